"""Requests to the engine, each with a time limit.

The SDK's low-level client finds out which API version both speak, and owns the connection pool.
Requests go straight to that pool, at a fourth of what `requests` costs.
"""

from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import docker
import requests
import urllib3
from urllib3.util import Timeout

from registrator.engine.address import client_arguments
from registrator.engine.tls import Adapter
from registrator.http import Answer, exchange
from registrator.model import EngineSlow, EngineUnavailable

# What a request may raise.
FAILURES = (urllib3.exceptions.HTTPError, HTTPException, OSError)


class SocketReplaced(Exception):
    """The engine's socket was made anew elsewhere: this process can never reach it again."""


class _Client(docker.APIClient):  # type: ignore[misc]
    """The SDK's client, which ignores variables for web requests: only the engine's CA counts."""

    def get_adapter(self, url: str) -> Any:
        """The transport for a URL. The SDK's constructor asks for it, too."""
        if url.startswith("https:") and not isinstance(self.adapters["https://"], Adapter):
            self.mount("https://", Adapter())
        return super().get_adapter(url)

    def merge_environment_settings(
        self, _url: str, _proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> dict[str, Any]:
        """A request's settings. By default REQUESTS_CA_BUNDLE would win over the engine's CA."""
        verify = self.verify if verify is None else verify
        return {"proxies": {}, "stream": stream, "verify": verify, "cert": cert or self.cert}


class _Agreed(NamedTuple):
    """A client that agreed on an API version with the engine, and its pool of connections."""

    client: _Client
    pool: urllib3.HTTPConnectionPool
    headers: Mapping[str, str]


class Connection:
    """The connection to one engine, over all reconnects. Any thread may use it.

    `timeout` is the time limit of a request in seconds. The constructor raises `WrongVariables`.
    """

    def __init__(self, environ: Mapping[str, str], timeout: float) -> None:
        self._environ = environ
        self._timeout = timeout
        # One immutable thing, which threads replace as a whole.
        self._agreed: _Agreed | None = None
        self.address: str = client_arguments(environ)["base_url"]

    def get(
        self,
        path: str,
        *,
        missing_ok: bool = False,
        versioned: bool = True,
        timeout: float | None = None,
    ) -> Answer:
        """The answer to a request. With `missing_ok` it may have status 404.

        Otherwise it has none from 400 on. Raises `EngineUnavailable`, or `SocketReplaced`.
        """
        agreed = self._connect()
        target = f"/v{agreed.client.api_version}{path}" if versioned else path
        try:
            answer = exchange(
                agreed.pool, "GET", target, agreed.headers, wait=timeout or self._timeout
            )
        except FAILURES as error:
            raise self._failure(error) from error
        if not (missing_ok and answer.status == 404):
            self._check(agreed, path, answer.status, answer.data)
        return answer

    def stream(self, path: str) -> urllib3.BaseHTTPResponse:
        """The answer to a request, of which only the head was read. Raises as `get`."""
        agreed = self._connect()
        try:
            response = agreed.pool.urlopen(
                "GET",
                f"/v{agreed.client.api_version}{path}",
                retries=False,
                preload_content=False,
                timeout=Timeout(connect=self._timeout, read=self._timeout),
            )
            if response.status >= 400:
                self._check(agreed, path, response.status, response.data)
        except FAILURES as error:
            raise self._failure(error) from error
        return response

    def _check(self, agreed: _Agreed, path: str, status: int, data: bytes) -> None:
        """Raise for an answer that is not a success."""
        if status == 400 and self._agreed is agreed:
            # An upgraded engine may refuse the API version that the old one agreed to.
            self._agreed = None
        if status >= 400:
            text = data[:200].decode(errors="replace").strip()
            raise EngineUnavailable(f"{path.partition('?')[0]}: status {status}: {text}")

    def close(self) -> None:
        """Close all connections."""
        if self._agreed is not None:
            self._agreed.client.close()

    def _connect(self) -> _Agreed:
        """The client and its pool. The first use finds out which API version both speak."""
        agreed = self._agreed
        if agreed is None:
            agreed = self._agreed = self._agree()
        return agreed

    def _agree(self) -> _Agreed:
        try:
            found = client_arguments(self._environ)
            self.address = found["base_url"]
            client = _Client(timeout=self._timeout, **found)
            adapter = client.get_adapter(client.base_url)
            probe = requests.Request("GET", client.base_url + "/").prepare()
            pool = adapter.get_connection_with_tls_context(
                probe, verify=client.verify, cert=client.cert, proxies={}
            )
        except (docker.errors.DockerException, requests.RequestException, OSError) as error:
            raise self._failure(error) from error
        return _Agreed(client, pool, {"Host": urlsplit(client.base_url).netloc})

    def _failure(self, error: Exception) -> Exception:
        """The exception to raise for a request that failed for this reason."""
        kind, _, path = self.address.partition("://")
        if kind == "unix" and _is_deleted(Path(path)):
            return SocketReplaced(
                f"the engine's socket {path} is an old one, as it was mounted and then made anew: "
                "start this container again"
            )
        timeouts = (TimeoutError, urllib3.exceptions.TimeoutError, requests.Timeout)
        kind_of = EngineSlow if isinstance(error, timeouts) else EngineUnavailable
        return kind_of(_reason(error))


def _is_deleted(path: Path) -> bool:
    """Whether a file is still mounted, though it was deleted in its own folder."""
    try:
        return path.stat().st_nlink == 0
    except OSError:
        return False


def _reason(error: BaseException) -> str:
    """The innermost message, since the libraries wrap a refused connection four times."""
    while True:
        inner = error.__cause__ or error.__context__
        if inner is None or isinstance(inner, KeyError):
            break
        error = inner
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
