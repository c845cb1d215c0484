"""Over which kinds of registries a test runs."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

LOCAL = ("fake", "file")
CONSUL = ("consul", "consul-tls", "consul-unix")
CONSULKV = ("consulkv", "consulkv-json", "consulkv-tls", "consulkv-unix")
ETCD = ("etcd", "etcd-json", "etcd-tls", "etcd-user", "etcd-tls-user", "skydns2", "skydns2-tls")
ZOOKEEPER = ("zookeeper", "zookeeper-acl", "zookeeper-tls", "zookeeper-tls-acl")
SERVERS = (*CONSUL, *CONSULKV, *ETCD, *ZOOKEEPER)
TLS = ("consul-tls", "consulkv-tls", "etcd-tls", "skydns2-tls", "zookeeper-tls")
# Each layout and protocol once: for what does not depend on how the server is reached.
PLAIN = ("consul", "consulkv", "etcd", "skydns2", "zookeeper")


def over(kinds: Iterable[str]) -> pytest.MarkDecorator:
    """Run the test over these kinds: it takes the fixture `registry`."""
    return pytest.mark.parametrize("registry", kinds, indirect=True)


everywhere = over((*LOCAL, *SERVERS))
on_servers = over(SERVERS)
