"""DNS records in etcd, as SkyDNS 2 and CoreDNS's etcd plugin read them: ``skydns2``.

The key is the DNS name with its labels in reverse order. A service ``redis`` in the domain
``cluster.local`` has the key ``/skydns/local/cluster/redis/<id>`` and the value
``{"host":"10.0.0.5","port":6379,"ttl":30,"host_name":"web01"}``. DNS clients find it as
``redis.cluster.local``. Without a ``ttl``, CoreDNS would give the record the time to live of its
lease, or the lease's id.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from registrator.backend import ConfigError, Context, require_port
from registrator.model import Entry, Service
from registrator.uri import RegistryURI

from ..common.values import HOST
from .backend import EtcdBackend
from .writes import check

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
HASH_DIGITS = 8
# The longest time in seconds that a DNS client may keep a record. RFC 8767 recommends no more.
MAX_DNS_TTL = 604_800
# A DNS name has at most 253 characters. The service and its id take up to 128 of them.
MAX_DOMAIN = 125


class SkyDNSBackend(EtcdBackend):
    """``skydns2://host:port,…/domain``. ``?dns-ttl=30`` is the records' time to live in seconds."""

    layout = "skydns"
    options = ("dns-ttl",)

    def __init__(self, context: Context) -> None:
        """Raise `ConfigError` if the URI or the environment is wrong."""
        super().__init__(context)
        text = context.uri.options.get("dns-ttl", "30")
        if not re.fullmatch("[0-9]{1,6}", text) or not 1 <= int(text) <= MAX_DNS_TTL:
            raise ConfigError(
                f"the option dns-ttl must be 1 to {MAX_DNS_TTL} whole seconds, not {text[:80]!r}"
            )
        self._dns_ttl = int(text)

    def prefix(self, uri: RegistryURI) -> str:
        """``/skydns`` and the domain's labels, reversed. Raises `ConfigError`."""
        domain = uri.path.strip("/").removesuffix(".").lower()
        if not domain:
            raise ConfigError(f"give a domain: {uri.scheme}://host:port/cluster.local")
        labels = domain.split(".")
        if len(domain) > MAX_DOMAIN or not all(map(LABEL.fullmatch, labels)):
            raise ConfigError(
                f"{domain[:80]!r} is not a domain name of up to {MAX_DOMAIN} characters"
            )
        return "/".join(["/skydns", *reversed(labels)])

    def entry(self, service: Service) -> Entry:
        """The service's name and id as labels. Raises `Rejected` if they are illegal.

        DNS ignores the case of names, so we do too. Ids identify services, so their case counts.
        """
        require_port(service)
        check("name", service.name, nested=True)
        check("id", service.id, nested=True)
        key = f"{self._prefix}/{label(service.name.lower())}/{label(service.id)}"
        value = {
            "host": service.address,
            "port": service.port,
            "ttl": self._dns_ttl,
            HOST: self._identity.hostname,
        }
        return Entry(key, json.dumps(value, separators=(",", ":")), service)

    def is_originals(self, document: Mapping[str, Any]) -> bool:
        """gliderlabs/registrator wrote a host and a port."""
        return document.keys() == {"host", "port"}


def label(text: str) -> str:
    """`text` if it is a DNS label in lower case, or else a label made from it.

    A label made from a text ends in a hash of the text, so ``a.b`` and ``a_b`` remain different.
    """
    if LABEL.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:HASH_DIGITS]
    room = 63 - HASH_DIGITS - 1
    readable = re.sub("[^a-z0-9]+", "-", text.lower())[:room].strip("-")
    return f"{readable}-{digest}" if readable else digest
