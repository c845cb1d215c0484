"""An engine's API as the tests use it: over its unix socket, each call with a deadline.

Not the client under test, so that a mistake there cannot hide behind itself.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import shutil
import socket
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from support.require import require

# Stops at once and with exit code 0. A bare `sleep` as process 1 would ignore SIGTERM.
WAIT_FOR_TERM = ("sh", "-c", "trap 'exit 0' TERM; sleep 1000000 & wait")
APPLETS = ("cat", "echo", "false", "hostname", "httpd", "nc", "sh", "sleep", "true", "wget")

# A port of the host, or an address and a port. With port 0 the engine chooses one.
Binding = int | tuple[str, int]


class APIError(Exception):
    """The engine refused."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"status {status}: {message}")
        self.status = status


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, deadline: float) -> None:
        super().__init__("localhost", timeout=deadline)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class DockerAPI:
    """One engine's containers, images and networks. Ids are full ids, names work as well."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def request(
        self, method: str, path: str, body: object = None, *, tar: bytes = b"", deadline: float = 60
    ) -> Any:
        """A call of the API. `body` goes as JSON. Raises `APIError` and `OSError`."""
        kind = "application/x-tar" if tar else "application/json"
        payload = tar or (b"" if body is None else json.dumps(body).encode())
        connection = _Connection(self._path, deadline)
        try:
            connection.request(method, path, payload, {"Content-Type": kind})
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        if response.status >= 400:
            raise APIError(response.status, data[:500].decode(errors="replace").strip())
        return json.loads(data) if data.strip().startswith((b"{", b"[")) else data

    def import_image(
        self,
        name: str,
        expose: Iterable[int | str] = (),
        env: Mapping[str, str] | None = None,
        command: Sequence[str] = WAIT_FOR_TERM,
    ) -> None:
        """Make an image of busybox. Nothing can be pulled on a machine without a network."""
        changes = [f"CMD {json.dumps([*command])}", *(f"EXPOSE {port}" for port in expose)]
        changes += [f"ENV {key}={json.dumps(value)}" for key, value in (env or {}).items()]
        path, slash, last = name.rpartition("/")
        last, _, tag = last.partition(":")
        repository = f"{path}{slash}{last}"
        query = {"fromSrc": "-", "repo": repository, "tag": tag or "latest", "changes": changes}
        self.request("POST", f"/images/create?{urlencode(query, doseq=True)}", tar=busybox_layer())

    def create(
        self,
        name: str,
        image: str = "web",
        *,
        ports: Mapping[str, Binding | Sequence[Binding]] | None = None,
        expose: Iterable[str] = (),
        env: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        network: str = "bridge",
        publish_all: bool = False,
        command: Sequence[str] = (),
        restart: str = "no",
        stop_signal: str = "",
        health_cmd: str = "",
        **host_config: object,
    ) -> str:
        """Make a container without starting it. Returns its id.

        `ports` maps ``80/tcp`` and the like to a host port, to an address and port, or to several
        of these. `network` is any network mode. `restart` is a policy's name. `health_cmd` runs
        every second, and one failure counts.
        """
        bindings = {port: _bindings(given) for port, given in (ports or {}).items()}
        body: dict[str, object] = {
            "Image": image,
            "Env": [f"{key}={value}" for key, value in (env or {}).items()],
            "Labels": dict(labels or {}),
            "ExposedPorts": {port: {} for port in (*bindings, *expose)},
            "HostConfig": {
                "PortBindings": bindings,
                "NetworkMode": network,
                "PublishAllPorts": publish_all,
                "RestartPolicy": {"Name": restart},
                **host_config,
            },
        }
        if command:
            body["Cmd"] = [*command]
        if health_cmd:
            probe = {"Interval": 10**9, "Timeout": 60 * 10**9, "Retries": 1}
            body["Healthcheck"] = {"Test": ["CMD-SHELL", health_cmd], **probe}
        if stop_signal:
            body["StopSignal"] = stop_signal
        made = self.request("POST", f"/containers/create?{urlencode({'name': name})}", body)
        return str(made["Id"])

    def run(self, name: str, image: str = "web", **options: Any) -> str:
        """Make and start a container (see `create`). Returns its id."""
        container_id = self.create(name, image, **options)
        self.start(container_id)
        return container_id

    def start(self, container: str) -> None:
        """Start a container that was made or has stopped."""
        self.request("POST", f"/containers/{container}/start")

    def stop(self, container: str, deadline: int = 10) -> None:
        """SIGTERM, and SIGKILL after `deadline` seconds. Returns when it has stopped."""
        self.request("POST", f"/containers/{container}/stop?t={deadline}", deadline=deadline + 20)

    def restart(self, container: str, deadline: int = 10) -> None:
        """Stop a container and start it again."""
        path = f"/containers/{container}/restart?t={deadline}"
        self.request("POST", path, deadline=deadline + 20)

    def pause(self, container: str) -> None:
        """Freeze all processes of a container."""
        self.request("POST", f"/containers/{container}/pause")

    def unpause(self, container: str) -> None:
        """Let a paused container go on."""
        self.request("POST", f"/containers/{container}/unpause")

    def kill(self, container: str, signal: str = "KILL") -> None:
        """Send a signal. Does not wait for what comes of it."""
        self.request("POST", f"/containers/{container}/kill?signal={signal}")

    def execute(self, container: str, *command: str) -> None:
        """Run a command in a container. Does not wait for its end."""
        made = self.request("POST", f"/containers/{container}/exec", {"Cmd": [*command]})
        self.request("POST", f"/exec/{made['Id']}/start", {"Detach": True})

    def remove(self, container: str) -> None:
        """Kill it if it runs, and take it away."""
        self.request("DELETE", f"/containers/{container}?force=1&v=1")

    def rename(self, container: str, name: str) -> None:
        """Give a container another name."""
        self.request("POST", f"/containers/{container}/rename?{urlencode({'name': name})}")

    def inspect(self, container: str) -> dict[str, Any]:
        """All that the engine says of a container."""
        return dict(self.request("GET", f"/containers/{container}/json"))

    def host_port(self, container: str, port: str = "80/tcp") -> int:
        """The host's port that is bound to a container's."""
        bound = self.inspect(container)["NetworkSettings"]["Ports"][port]
        return int(bound[0]["HostPort"])

    def containers(self) -> list[dict[str, Any]]:
        """All containers, running or not."""
        return list(self.request("GET", "/containers/json?all=1"))

    def network_create(self, name: str, **options: object) -> str:
        """Make a bridge network. Returns its id."""
        return str(self.request("POST", "/networks/create", {"Name": name, **options})["Id"])

    def network_connect(self, network: str, container: str) -> None:
        """Put a container into one more network."""
        self.request("POST", f"/networks/{network}/connect", {"Container": container})

    def network_disconnect(self, network: str, container: str) -> None:
        """Take a container out of a network."""
        body = {"Container": container, "Force": True}
        self.request("POST", f"/networks/{network}/disconnect", body)

    def network_remove(self, network: str) -> None:
        """Take a network away."""
        self.request("DELETE", f"/networks/{network}")

    def clear(self) -> None:
        """Take away all containers and all networks that were made."""
        for container in self.containers():
            self.remove(container["Id"])
        self.request("POST", "/networks/prune")


def _bindings(given: Binding | Sequence[Binding]) -> list[dict[str, str]]:
    many = given if isinstance(given, list) else [given]
    pairs = [one if isinstance(one, tuple) else ("", one) for one in many]
    return [{"HostIp": ip, "HostPort": str(port)} for ip, port in pairs]


def busybox_layer() -> bytes:
    """A file system with busybox and nothing else, as a tar."""
    binary = shutil.which("busybox") or ""
    require("busybox", binary, "Debian's busybox-static")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(os.path.realpath(binary), "bin/busybox")
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return out.getvalue()
