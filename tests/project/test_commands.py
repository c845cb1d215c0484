"""Every command of the documents, word for word and in order, on a host with a real engine.

What a text takes for granted, such as a Consul agent at its usual port, is set up beforehand. The
examples' own pages are run by test_examples.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.host import Host
from support.images import WHEELS, packages_for
from support.servers import CACHE, program
from support.wait import until
from support.walkthrough import blocks, walk

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "examples/README.md"]
WITH_COMMANDS = sorted(path for path in DOCUMENTS if blocks(path))

# Languages of blocks without commands.
SHOWN_ONLY = {"", "diff", "js", "json", "python", "toml", "yaml"}

# Commands that no test runs, and why.
NOT_RUN = {
    "make test": "this runs in it",
    "make bench": "takes hours",
    "make bench BENCH=--quick": "takes minutes, and measures nothing on a busy machine",
    'make bench BENCH="--only events idle"': "the same as above",
    'make bench BENCH="--only fleet-etcd"': "takes minutes; test_benchmarks runs a small fleet",
    "make bench BENCH=--json": "the same as above",
    "make bench PEER=/usr/local/bin/registrator": "takes an hour, and needs another registrator",
    "make bench PEER=/usr/local/bin/registrator BENCH=--document": "the same, as one table",
    "make compatibility": "downloads each version of each registry, and takes half an hour",
    "make compatibility ONLY=etcd-3.6.8": "the same for one version",
    "make compatibility ONLY=etcd": "the same for all versions of one registry",
    "make compatibility ONLY='etcd-3.6.8 --suite contract'": "the same for one suite",
    "docker exec -it registrator registrator watch": "does not end; test_seeing runs it",
    "make faults": "takes hours; test_faults runs a part of it",
    "make faults SEEDS=200 REGISTRY=etcd": "takes 20 minutes",
    "make faults SEEDS=1 FIRST=17 REGISTRY=etcd": "takes over a minute; the same as above",
    "make soak MINUTES=60 REGISTRY=zookeeper": "takes an hour",
    "make watched MINUTES=60": "takes an hour",
    "make setup": "it made the environment that this runs in",
    "make check": "it runs the linters and `make unit`; this suite contains both",
    "make unit": "its tests are a part of this suite",
    """lease=$(printf '%x' "$(etcdctl get <key> -w fields | sed -n 's/^"Lease" : //p')")""": (
        "ends the lease of a host that is gone, and this host is here"
    ),
    'etcdctl lease timetolive --keys "$lease"': "the same as above",
    'etcdctl lease revoke "$lease"': "the same as above",
    "systemctl daemon-reload && systemctl enable --now registrator": (
        "systemd is not process 1 here; `started_by_the_unit` runs the unit's own command"
    ),
}

# Packages come from the folder that the image's build uses: no host of a test has a network.
ENVIRON = {
    "PATH": ":".join(
        [str(Path(sys.executable).parent), str(CACHE / "consul/usr/bin"),
         "/usr/share/zookeeper/bin", os.environ["PATH"], "/usr/sbin", "/sbin"]
    ),
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": f"{WHEELS} /opt/wheels",
    "XDG_RUNTIME_DIR": "/run",
}  # fmt: skip


def nothing(_: Host) -> None:
    pass


@dataclass(frozen=True)
class Setting:
    """The state that a page expects, and the results that it tells of but no command prints."""

    before: Callable[[Host], None] = nothing
    after: Callable[[Host], None] = nothing
    environ: Mapping[str, str] = field(default_factory=dict)
    blanks: Mapping[str, str] = field(default_factory=dict)


def serve(host: Host, image: str, *words: str) -> None:
    """A registry in a container on the host's network, that is no service itself."""
    host.run("docker", "run", "-d", "--net=host", "-e", "SERVICE_IGNORE=1", image, *words)


def serve_consul(host: Host, *options: str) -> None:
    serve(host, "consul:1.8", "agent", "-dev", f"-bind={host.ip}", *options)
    until(lambda: ask(host, "catalog/nodes") not in ("", "[]"), "Consul")


def serve_etcd(host: Host) -> None:
    serve(host, "quay.io/coreos/etcd:v3.4.23")
    until(lambda: host.run("etcdctl", "member", "list", check=False), "etcd")


def ask(host: Host, path: str) -> str:
    return host.run("curl", "-s", f"http://127.0.0.1:8500/v1/{path}", check=False).strip()


def held(host: Host) -> dict[str, tuple[str, str, int, list[str]]]:
    """Name, address, port and tags of what Consul holds, by id."""
    return {
        key: (each["Service"], each["Address"], each["Port"], each["Tags"])
        for key, each in json.loads(ask(host, "agent/services")).items()
    }


def names(host: Host) -> set[str]:
    return {each[0] for each in held(host).values()}


def run_web(host: Host) -> None:
    host.run("docker", "run", "-d", "-P", "-e", "SERVICE_NAME=web", "nginx:1.22")


def consul_and_web(host: Host) -> None:
    serve_consul(host)
    run_web(host)


def run_agent(host: Host, *options: str, container: Sequence[str] = ()) -> None:
    socket = "--volume=/var/run/docker.sock:/var/run/docker.sock"
    words = ("--name=registrator", "--net=host", socket, *container, "registrator:latest")
    host.run("docker", "run", "-d", *words, *options, "consul://127.0.0.1:8500")


def agent_at_work(host: Host) -> None:
    consul_and_web(host)
    run_agent(host)


def agent_that_logs_all_in_json(host: Host) -> None:
    """Beside a container called web."""
    serve_consul(host)
    run_agent(host, "-log-format=json", "-log-level=debug")
    host.run("docker", "run", "-d", "-P", "--name=web", "-e", "SERVICE_NAME=web", "nginx:1.22")
    until(lambda: names(host) == {"web"}, lambda: str(held(host)))


# --- README ---


def web_by_both_forms(host: Host) -> None:
    """By the command, and by the compose file below it."""
    until(lambda: names(host) == {"web"}, lambda: str(held(host)))
    host.run("docker", "rm", "-f", "registrator")
    (web,) = held(host)
    host.run("curl", "-sX", "PUT", f"http://127.0.0.1:8500/v1/agent/service/deregister/{web}")
    text = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    for each in text:
        host.run("sh", "-c", 'printf %s "$0" >/opt/compose.yml', each)
        host.run("docker-compose", "-f", "/opt/compose.yml", "up", "-d")
        until(lambda: names(host) == {"web"}, lambda: str(held(host)))
    assert len(text) == 1


# --- deploy ---


def wheels_and_certificates(host: Host) -> None:
    """One package comes as sources, and Debian's pip would need another package to build it."""
    consul_and_web(host)
    packages = packages_for(Path("/usr/bin/python3"))
    (source,) = packages.glob("*.tar.gz")
    build = ("wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "/opt/wheels", str(source))
    host.run(sys.executable, "-m", "pip", *build)
    host.run("sh", "-c", 'cp "$0"/*.whl /opt/wheels', str(packages))
    host.run("sh", "-c", 'mkdir -p "$1" && cp -rT "$0" "$1/docker"', str(host.tls),
             "/etc/registrator")  # fmt: skip


def started_by_the_unit(host: Host) -> None:
    """All that systemd would read is in its place, and its command does its job."""
    verify = ("systemd-analyze", "verify", "--man=no", "/etc/systemd/system/registrator.service")
    program(verify[0], package="systemd")
    assert host.run("sh", "-c", '"$@" 2>&1', "sh", *verify) == ""
    script = (
        "set -a; . /etc/default/registrator; "
        "exec timeout 20 $(sed -n 's/^ExecStart=//p' /etc/systemd/system/registrator.service "
        '| sed "s#\\$REGISTRIES#$REGISTRIES#")'
    )
    host.run("docker", "stop", "registrator")
    until(lambda: len(held(host)) == 1, lambda: str(held(host)))
    (web,) = held(host)
    host.run("curl", "-sX", "PUT", f"http://127.0.0.1:8500/v1/agent/service/deregister/{web}")
    shown = host.run("sh", "-c", f"({script}) 2>&1 | sed '/registered web/q'")
    assert "registered web" in shown
    until(lambda: names(host) == {"web"}, lambda: str(held(host)))


# --- run ---


def the_host_has_left(host: Host) -> None:
    assert held(host) == {}


# --- seeing ---


def agent_and_a_container_called_web(host: Host) -> None:
    """The agent has no rights but the engine's socket, as in the compose file."""
    serve_consul(host)
    host.run("docker", "run", "-d", "-P", "--name=web", "nginx:1.22")
    run_agent(host, "-http=127.0.0.1:9909", container=("--read-only", "--cap-drop=ALL"))
    until(lambda: names(host) == {"nginx"}, lambda: str(held(host)))
    until(lambda: exec_in_agent(host, "-m", "registrator.health") == "well\n", "the agent")


def exec_in_agent(host: Host, *words: str) -> str:
    return host.run("docker", "exec", "registrator", "python", *words, check=False)


# --- services ---


def agent_of_web01(host: Host) -> None:
    serve_consul(host)
    run_agent(host, "-hostname=web01", "-deregister-on-stop")


def as_the_table_and_the_comments_say(host: Host) -> None:
    tags = ["blue", "http"]
    expected = {
        "web01:kim:80": ("web", host.ip, 8080, tags),
        "web01:pat:80": ("web", host.ip, 8081, tags),
    }
    until(lambda: expected.items() <= held(host).items(), lambda: str(held(host)))
    comments = {
        name
        for block in blocks(ROOT / "docs/services.md")
        for command in block
        for name in command.comment.split(", ")
        if name
    }
    assert len(comments) == 11
    until(lambda: names(host) == {"web", "nginx", *comments}, lambda: str(held(host)))
    assert {"sue": ["web-7", "zone=b"], "tom": ["web-8", "zone=none"]}.items() <= {
        labels["container"]: labels["tags"].strip(",").split(",")
        for labels in in_file(host, "/run/zones.json")
    }.items()
    of_file = {
        labels["container"]: labels["service"] for labels in in_file(host, "/run/names.json")
    }
    assert (of_file["ann"], of_file["tom"]) == ("ann", "web")


def in_file(host: Host, path: str) -> list[dict[str, str]]:
    """The labels of each group that a file holds."""
    return [group["labels"] for group in json.loads(host.run("cat", path))]


# --- registries ---

MANAGER = "8f246b77-f3e1-ff88-5b48-8ec93abf3e05"

# Without a token everything is allowed, with one only what its policy says.
ACLS = f"""acl {{ enabled = true, default_policy = "deny", tokens {{
    master = "{MANAGER}", default = "{MANAGER}", agent = "{MANAGER}" }} }}"""


def consul_with_acls(host: Host) -> None:
    """And a stale entry in the catalog and in the store."""
    serve_consul(host, f"-hcl={ACLS}")
    run_web(host)
    put_stale_in_consul(host)


def etcd_and_web(host: Host) -> None:
    """And a password in its file, and a stale key."""
    serve_etcd(host)
    run_web(host)
    host.run("sh", "-c", "mkdir -p /etc/registrator && echo secret >/etc/registrator/password")
    host.run("etcdctl", "put", "stale/web/h:web:80", "x")


def zookeeper_and_web(host: Host) -> None:
    """And a stale node."""
    serve(host, "zookeeper:3.8")
    run_web(host)
    put_stale_in_zookeeper(host)


def place_for_packages(host: Host) -> None:
    """An environment that sees what this interpreter does, registrator included."""
    host.run(sys.executable, "-m", "venv", "/opt/venv")
    own = f"import site; site.addsitedir({str(Path(pytest.__file__).parents[1])!r})"
    script = "echo \"$0\" >$(echo /opt/venv/lib/python*/site-packages)/tests.pth && printf '%s\\n'"
    script += " '#!/bin/sh' 'exec /opt/venv/bin/python -m registrator \"$@\"'"
    script += " >/opt/venv/bin/registrator && chmod +x /opt/venv/bin/registrator"
    host.run("sh", "-c", script, own)
    run_web(host)


def is_well(host: Host) -> None:
    """The agent that the page started last is in step, and had no reason to warn."""
    check = ("docker", "exec", "registrator", "python", "-m", "registrator.health")
    until(lambda: host.run(*check, check=False) == "well\n", lambda: logs(host))
    assert not re.search(" (WARN|ERROR)", logs(host)), logs(host)


def logs(host: Host) -> str:
    return host.run("sh", "-c", "docker logs registrator 2>&1")


def writes(host: Host) -> None:
    """A service that starts now is registered by the agent that the page started last."""
    run_web(host)
    until(lambda: ": registered " in logs(host), lambda: logs(host))
    is_well(host)


def the_rules_are_enough(host: Host) -> None:
    """And the stale service is gone."""
    writes(host)
    until(lambda: names(host) == {"web"}, lambda: str(held(host)))


def keys_are_locked(host: Host) -> None:
    is_well(host)
    assert host.run("consul", "kv", "get", "-recurse", "stale", environ=ENVIRON) == ""
    (key,) = json.loads(ask(host, "kv/services/?recurse"))
    assert key["Session"]


def the_role_is_enough(host: Host) -> None:
    """Authentication is on. The password is that of the file."""
    host.run("etcdctl", "user", "add", "root:root")
    host.run("etcdctl", "auth", "enable")
    host.run("docker", "restart", "registrator")
    writes(host)


def the_node_is_readable(host: Host) -> None:
    is_well(host)
    line = "zkCli.sh -server 127.0.0.1 ls /private/web 2>&1"
    until(lambda: "[192.0.2.10:" in host.run("sh", "-c", line, environ=ENVIRON), "the node")


def the_file_has_web(host: Host) -> None:
    is_well(host)
    (group,) = json.loads(host.run("cat", "/run/services/services.json"))
    assert group["labels"]["service"] == "web"


def the_folder_has_web(host: Host) -> None:
    assert '"name": "web"' in host.run("sh", "-c", "cat /run/services/*")


# --- troubleshooting ---

STALE = {
    "<the agent that holds it>": "127.0.0.1",
    "<node>": "gone",
    "<prefix>": "stale",
    "<base>": "/stale",
    "<host>": "127.0.0.1",
    "<name>": "web",
    "<ip>:<port>": "192.0.2.10:80",
    "<id>": "h:web:80",
}


def put_stale_in_consul(host: Host) -> None:
    body = '{"ID": "h:web:80", "Name": "web"}'
    url = "http://127.0.0.1:8500/v1/agent/service/register"
    host.run("curl", "-sfX", "PUT", "-d", body, url)
    host.run("consul", "kv", "put", "stale/web/h:web:80", "x", environ=ENVIRON)


def put_stale_in_zookeeper(host: Host) -> None:
    script = "create /stale\\ncreate /stale/web\\ncreate /stale/web/192.0.2.10:80 x\\n"
    fill = f"printf '{script}' | zkCli.sh -server 127.0.0.1 2>&1"
    until(
        lambda: (
            "Created /stale/web/192" in host.run("sh", "-c", fill, environ=ENVIRON, check=False)
        ),
        "ZooKeeper",
    )


def stale_entries(host: Host) -> None:
    """In all registries, and in a Consul node that is gone."""
    serve_consul(host)
    serve_etcd(host)
    serve(host, "zookeeper:3.8")
    joined = ("-retry-join=192.0.2.10", "-node=gone", "-bind={{ GetPrivateIP }}")
    host.run("docker", "run", "-d", "--name=gone", "consul:1.8", "agent", *joined)
    until(lambda: '"gone"' in ask(host, "catalog/nodes"), "the other node")
    host.run("docker", "rm", "-f", "gone")
    put_stale_in_consul(host)
    host.run("etcdctl", "put", "stale/web/h:web:80", "x")
    put_stale_in_zookeeper(host)


def no_entry_left(host: Host) -> None:
    assert held(host) == {}
    members = host.run("consul", "members", environ=ENVIRON)
    assert "gone" not in members, members
    assert host.run("consul", "kv", "get", "-recurse", "stale", environ=ENVIRON) == ""
    assert host.run("etcdctl", "get", "--prefix", "stale") == ""
    line = "zkCli.sh -server 127.0.0.1 ls /stale/web 2>&1"
    assert host.run("sh", "-c", line, environ=ENVIRON).splitlines()[-1] == "[]"


SETTINGS = {
    "README.md": Setting(consul_and_web, web_by_both_forms),
    "docs/deploy.md": Setting(wheels_and_certificates, started_by_the_unit),
    "docs/readers.md": Setting(agent_at_work),
    "docs/run.md": Setting(agent_that_logs_all_in_json, the_host_has_left),
    "docs/seeing.md": Setting(agent_and_a_container_called_web),
    "docs/services.md": Setting(agent_of_web01, as_the_table_and_the_comments_say),
    "docs/troubleshooting.md": Setting(stale_entries, no_entry_left, blanks=STALE),
    "docs/registries/consul.md": Setting(consul_with_acls, the_rules_are_enough,
                                         {"CONSUL_HTTP_TOKEN": MANAGER}, STALE),
    "docs/registries/consul-kv.md": Setting(consul_with_acls, keys_are_locked,
                                            {"CONSUL_HTTP_TOKEN": MANAGER}, STALE),
    "docs/registries/etcd.md": Setting(etcd_and_web, the_role_is_enough, blanks=STALE),
    "docs/registries/skydns.md": Setting(etcd_and_web, the_role_is_enough,
                                         blanks=STALE | {"<domain in reverse>": "local/cluster"}),
    "docs/registries/zookeeper.md": Setting(zookeeper_and_web, the_node_is_readable,
                                            blanks=STALE | {"<password>": "secret"}),
    "docs/registries/file.md": Setting(run_web, the_file_has_web),
    "docs/registries/your-own.md": Setting(place_for_packages, the_folder_has_web,
                                           {"PATH": f"/opt/venv/bin:{ENVIRON['PATH']}"}),
}  # fmt: skip


@pytest.fixture
def fresh(host: Host) -> Iterator[Host]:
    """The host. Afterwards no container is left."""
    program("docker-compose", package="docker-compose")
    program("etcdctl", package="etcd-client")
    host.run("docker", "tag", "nginx:1.22", "nginx")
    yield host
    host.api.clear()
    host.run("docker", "volume", "prune", "-f")


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_do_what_the_text_says(path: Path, fresh: Host) -> None:
    setting = SETTINGS.get(str(path.relative_to(ROOT)), Setting())
    setting.before(fresh)
    walk(fresh, path, folder=ROOT, skip=NOT_RUN, environ={**ENVIRON, **setting.environ},
         blanks=setting.blanks)  # fmt: skip
    setting.after(fresh)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_block_hides_commands(path: Path) -> None:
    """A block in another language than those that are run would be run by no test."""
    languages = re.findall(r"^```(\S*)\n.*?^```", path.read_text(), re.M | re.S)
    assert {*languages} <= {"sh", "console", *SHOWN_ONLY}


def test_what_is_not_run_is_in_the_documents() -> None:
    lines = {c.line for path in WITH_COMMANDS for block in blocks(path) for c in block}
    assert [each for each in NOT_RUN if each not in lines] == []
