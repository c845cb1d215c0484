"""The Docker client: it asks who the engine is and what runs, and reads its stream of events.

The SDK's low-level client finds the engine (variables, TLS, API version) and owns the connection
pool. Requests go straight to that pool, which costs half as much as `requests`. Every request has a
time limit, except the event stream, which is silent on a quiet host. Another thread ends it with
`interrupt` when the engine does not answer.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from typing import Any
from urllib.parse import urlencode

import docker
import requests
import urllib3
from urllib3.util import Timeout

from registrator.engine.answers import ALIASES, container_of, fingerprint, items, parse_event
from registrator.engine.contexts import context_arguments
from registrator.model import Container, EngineUnavailable, Event

log = logging.getLogger("registrator.docker")

SOCKETS = (Path("/var/run/docker.sock"), Path("/tmp/docker.sock"))

# With these a half-open stream ends within 25 s. By default the kernel takes two hours.
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

# These can change a container's services. `destroy` matters to `-deregister on-success`. Podman
# filters by its own names.
EVENTS = {
    "type": ["container", "network"],
    "event": ["start", "die", "destroy", "rename", "connect", "disconnect", *ALIASES],
}


class WrongVariables(EngineUnavailable):
    """A variable for the engine's address is wrong. The text has no value: it may be a secret."""


@dataclass(frozen=True, slots=True)
class Engine:
    """What an engine says of itself. `id` is empty if it has none that lasts."""

    id: str
    name: str
    version: str


class _Client(docker.APIClient):  # type: ignore[misc]
    """The SDK's client, which ignores variables for web requests: only the engine's CA counts."""

    def merge_environment_settings(
        self, _url: str, _proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> dict[str, Any]:
        """A request's settings. By default REQUESTS_CA_BUNDLE would win over the engine's CA."""
        verify = self.verify if verify is None else verify
        return {"proxies": {}, "stream": stream, "verify": verify, "cert": cert or self.cert}


class DockerEngine:
    """One engine, over all reconnects.

    `labels` names labels to keep besides ``SERVICE_*``. `timeout` is the time limit of a request in
    seconds. The constructor raises `WrongVariables`, and all methods raise `EngineUnavailable`. Any
    thread may call `interrupt`. Each other method belongs to one thread.
    """

    def __init__(
        self, environ: Mapping[str, str], labels: tuple[str, ...] = (), timeout: float = 5.0
    ) -> None:
        self._environ = environ
        self._labels = labels
        self._timeout = timeout
        self._client: Any = None
        self._pool: urllib3.HTTPConnectionPool | None = None
        self._stream: urllib3.BaseHTTPResponse | None = None
        self.address: str = client_arguments(environ)["base_url"]

    def identify(self) -> Engine:
        """Ask the engine who it is."""
        info, version = self._get("/info"), self._get("/version")
        components = [part.get("Name") or "" for part in version.get("Components") or ()]
        # Podman's API makes up a new id for every answer, and an owner must last.
        lasting = not any(name.startswith("Podman") for name in components)
        return Engine(
            id=(info.get("ID") or "") if lasting else "",
            name=info.get("Name") or "",
            version=version.get("Version") or "",
        )

    def ping(self) -> None:
        """Return if the engine answers."""
        self._request("/_ping", versioned=False)

    def running(self) -> dict[str, int]:
        """The id of every running container, with a digest of what the listing says of it.

        The digest changes if an inspection could tell something new. The listing is complete, or
        it raises.
        """
        path = "/containers/json"
        text = self._request(path).data.decode(errors="replace")
        try:
            return {intern(row["Id"]): fingerprint(row) for row in items(text)}
        except ValueError as error:
            raise EngineUnavailable(
                f"{path}: the answer is not JSON (is this a Docker engine?)"
            ) from error

    def inspect(self, container_id: str) -> Container | None:
        """The container as it is now, or None if it is gone."""
        answer = self._get(f"/containers/{container_id}/json", missing_ok=True)
        return None if answer is None else container_of(answer, self._labels)

    def events(self, since: int | None) -> Iterator[Event | None]:
        """Yield None once the stream stands, then each event after `since` (ns).

        Ends when the engine ends it. Raises if the stream fails, or after `interrupt`.
        """
        query = {"filters": json.dumps(EVENTS)}
        if since is not None:
            # The engine includes this moment, and takes the fraction of a second only so.
            query["since"] = f"{(since + 1) // 10**9}.{(since + 1) % 10**9:09d}"
        stream = self._request(f"/events?{urlencode(query)}", stream=True)
        self._stream = stream
        try:
            sock = getattr(stream.connection, "sock", None)
            if sock is not None:
                sock.settimeout(None)
                if sock.family != socket.AF_UNIX:
                    for level, option, value in KEEPALIVE:
                        sock.setsockopt(level, option, value)
            yield None
            yield from (event for line in _lines(stream) for event in parse_event(line))
        except ValueError as error:
            raise EngineUnavailable("the event stream has a line that is not an event") from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise EngineUnavailable("the event stream broke off") from error
        finally:
            self._stream = None
            stream.close()

    def interrupt(self) -> None:
        """End the event stream, which another thread may be reading."""
        stream = self._stream
        if stream is not None:
            # It may end by itself at this moment. Then there is nothing to shut down.
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                stream.shutdown()

    def close(self) -> None:
        """Close all connections."""
        self.interrupt()
        if self._client is not None:
            self._client.close()

    def _get(self, path: str, missing_ok: bool = False) -> Any:
        response = self._request(path, missing_ok=missing_ok)
        if response.status == 404:
            return None
        try:
            return response.json()
        except ValueError as error:
            raise EngineUnavailable(
                f"{path}: the answer is not JSON (is this a Docker engine?)"
            ) from error

    def _request(
        self, path: str, *, stream: bool = False, missing_ok: bool = False, versioned: bool = True
    ) -> urllib3.BaseHTTPResponse:
        pool = self._connect()
        url = f"/v{self._client.api_version}{path}" if versioned else path
        try:
            response = pool.urlopen(
                "GET",
                url,
                retries=False,
                preload_content=not stream,
                timeout=Timeout(connect=self._timeout, read=self._timeout),
            )
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise EngineUnavailable(_reason(error)) from error
        if response.status == 400:
            # An upgraded engine may refuse the API version that the old one agreed to.
            self._pool = None
        if response.status >= 400 and not (missing_ok and response.status == 404):
            text = response.data[:200].decode(errors="replace").strip()
            raise EngineUnavailable(f"{path.partition('?')[0]}: status {response.status}: {text}")
        return response

    def _connect(self) -> urllib3.HTTPConnectionPool:
        """The connection pool. The first use finds out which API version both speak."""
        if self._pool is None:
            try:
                found = client_arguments(self._environ)
                self.address = found["base_url"]
                client = _Client(timeout=self._timeout, **found)
                adapter = client.get_adapter(client.base_url)
                probe = requests.Request("GET", client.base_url + "/").prepare()
                self._client = client
                self._pool = adapter.get_connection_with_tls_context(
                    probe, verify=client.verify, cert=client.cert, proxies={}
                )
            except (docker.errors.DockerException, requests.RequestException, OSError) as error:
                raise EngineUnavailable(_reason(error)) from error
        return self._pool


def client_arguments(environ: Mapping[str, str]) -> dict[str, Any]:
    """The arguments for `docker.APIClient`, from the variables that the Docker CLI reads.

    Raises `WrongVariables`.
    """
    try:
        found: dict[str, Any] = docker.utils.kwargs_from_env(environment=dict(environ))
    except docker.errors.DockerException as error:
        raise WrongVariables(
            "put ca.pem, cert.pem and key.pem into DOCKER_CERT_PATH (~/.docker by default)"
        ) from error
    found["version"] = environ.get("DOCKER_API_VERSION") or "auto"
    if not re.fullmatch(r"auto|[0-9]+\.[0-9]+", found["version"]):
        raise WrongVariables("DOCKER_API_VERSION must be a version such as 1.44, or auto")
    if "base_url" not in found and environ.get("DOCKER_CONTEXT") not in (None, "", "default"):
        found |= _context(environ)
    if "base_url" not in found:
        present = [path for path in SOCKETS if path.exists()]
        found["base_url"] = f"unix://{(present or SOCKETS)[0]}"
    # The CLI's default port, also with TLS.
    if re.fullmatch(r"tcp://([^:/@]+|\[[^]/@]+\])/?", found["base_url"]):
        found["base_url"] = found["base_url"].rstrip("/") + ":2375"
    _check_address(found["base_url"])
    return found


def _context(environ: Mapping[str, str]) -> dict[str, Any]:
    try:
        return context_arguments(environ, environ["DOCKER_CONTEXT"])
    except FileNotFoundError as error:
        raise WrongVariables(
            "DOCKER_CONTEXT: no context has this name; `docker context ls` lists them"
        ) from error
    except RuntimeError as error:
        raise WrongVariables(
            "DOCKER_CONTEXT needs HOME or DOCKER_CONFIG: the contexts are in a folder there"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, docker.errors.DockerException) as error:
        raise WrongVariables("DOCKER_CONTEXT: the files of this context cannot be read") from error


def _check_address(address: str) -> None:
    try:
        read = docker.utils.parse_host(address)
    except (docker.errors.DockerException, ValueError):
        read = ""
    if not re.match(r"http\+unix://|https?://[^@]*$", read):
        raise WrongVariables(
            "DOCKER_HOST, or its context's host, must be unix:///path or tcp://host:port"
        )


def _lines(stream: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in stream.read_chunked() if stream.chunked else stream.stream(1):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line.strip())


def _reason(error: BaseException) -> str:
    """The innermost message, since the libraries wrap a refused connection four times."""
    while True:
        inner = error.__cause__ or error.__context__
        if inner is None or isinstance(inner, KeyError):
            break
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
