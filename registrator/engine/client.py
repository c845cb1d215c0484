"""The Docker client: it asks who the engine is and what runs, and reads its stream of events.

Every request has a time limit, except the event stream, which is silent on a quiet host. Another
thread ends it with `interrupt` when the engine does not answer.
"""

import contextlib
import json
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import urlencode

import urllib3

from registrator.engine.answers import Derive, container_of, rows
from registrator.engine.connection import Connection
from registrator.engine.event_lines import ALIASES, HEALTH_STATUS, parse_event
from registrator.http import Answer
from registrator.model import Container, EngineUnavailable, Event, Unreadable

# With these a half-open stream ends within 25 s. By default the kernel takes two hours.
KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)

Known = TypeVar("Known", str, int)

# These can change a container's services. `destroy` matters to `-deregister on-success`. Podman
# filters by its own names.
EVENTS = ("start", "die", "destroy", "rename", "connect", "disconnect", *ALIASES)

# Seconds. The manager of a swarm without a quorum asks the others for 20 s before it answers.
INFO_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine's id, name and version. `id` is empty if the engine has none that lasts."""

    id: str
    name: str
    version: str


class DockerEngine:
    """One engine, over all reconnects.

    `labels` names labels to keep besides ``SERVICE_*``, and `more_events` the events to read
    besides `EVENTS`. `timeout` is the time limit of a request in seconds. `derive` evaluates the
    operator's templates over a whole inspection. The constructor raises `WrongVariables`. All
    methods raise `EngineUnavailable`, or `SocketReplaced`. Any thread may call any method, but only
    one at a time reads `events`.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        labels: tuple[str, ...] = (),
        timeout: float = 5.0,
        more_events: tuple[str, ...] = (),
        derive: Derive | None = None,
    ) -> None:
        self._connection = Connection(environ, timeout)
        self._get = self._connection.get
        self._labels = labels
        self._events = {"type": ["container", "network"], "event": [*EVENTS, *more_events]}
        self._derive = derive
        self._reads_health = HEALTH_STATUS in more_events
        self._stream: urllib3.BaseHTTPResponse | None = None
        self._listed: dict[Any, Any] = {}  # the ids and digests of the last listing

    @property
    def address(self) -> str:
        """The engine's address, as ``unix:///path`` or ``tcp://host:port``."""
        return self._connection.address

    def identify(self) -> Engine:
        """Ask the engine who it is."""
        self.ping()  # A frozen engine is noticed sooner than a slow one.
        info = self._object("/info", timeout=INFO_TIMEOUT)
        version = self._object("/version")
        components = version.get("Components")
        names = [
            str(part.get("Name"))
            for part in (components if isinstance(components, list) else ())
            if isinstance(part, Mapping)
        ]
        # Podman's API makes up a new id for every answer, and an owner must last.
        lasting = not any(name.startswith("Podman") for name in names)
        return Engine(
            id=_text(info.get("ID")) if lasting else "",
            name=_text(info.get("Name")),
            version=_text(version.get("Version")),
        )

    def ping(self) -> None:
        """Return if the engine answers."""
        self._get("/_ping", versioned=False)

    def running(self) -> dict[str, int]:
        """The id of every running container, with a digest of what the listing says of it.

        The digest changes if an inspection could tell something new. The listing is complete, or
        it raises.
        """
        text = self._get("/containers/json").data.decode(errors="replace")
        same = self._same
        listed = {same(key): same(digest) for key, digest in rows(text, self._reads_health)}
        self._listed = {each: each for row in listed.items() for each in row}
        return listed

    def inspect(self, container_id: str, timeout: float | None = None) -> Container | None:
        """The container as it is now, or None if it is gone.

        `timeout` is a time limit in seconds in place of the usual one. Raises `Unreadable` if the
        engine answers, and the answer makes no sense.
        """
        path = f"/containers/{container_id}/json"
        answer = self._get(path, missing_ok=True, timeout=timeout)
        if answer.status == 404:
            return None
        found = container_of(_json(answer, path), self._labels, self._derive)
        if found.id != container_id:
            raise Unreadable(f"its inspection is that of container {found.id[:12]!a}")
        return replace(found, id=self._same(container_id))

    def events(self, since: int | None) -> Iterator[Event | None]:
        """Yield None once the stream stands, then each event after `since` (ns).

        Ends when the engine ends it. Raises if the stream fails, or after `interrupt`. No line ends
        the stream, whatever it says.
        """
        query = {"filters": json.dumps(self._events)}
        if since is not None:
            # The engine includes this moment, and takes the fraction of a second only so.
            query["since"] = f"{(since + 1) // 10**9}.{(since + 1) % 10**9:09d}"
        stream = self._connection.stream(f"/events?{urlencode(query)}")
        self._stream = stream
        try:
            sock = getattr(stream.connection, "sock", None)
            if sock is not None:
                sock.settimeout(None)
                if sock.family != socket.AF_UNIX:
                    for level, option, value in KEEPALIVE:
                        sock.setsockopt(level, option, value)
            yield None
            yield from filter(None, map(parse_event, _lines(stream)))
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
        self._connection.close()

    def _same(self, value: Known) -> Known:
        """An id or a digest, as the object of the last listing.

        New objects among a listing's garbage would keep the garbage's memory in use. `sys.intern`
        would do it for ids. But its table never forgets how many it had, and doubles one day.
        """
        found: Known = self._listed.get(value, value)
        return found

    def _object(self, path: str, timeout: float | None = None) -> Mapping[str, Any]:
        found = _json(self._get(path, timeout=timeout), path)
        if not isinstance(found, Mapping):
            raise EngineUnavailable(f"{path}: the answer is not a JSON object")
        return found


def _json(answer: Answer, path: str) -> Any:
    try:
        return json.loads(answer.data.decode())
    except (ValueError, RecursionError) as error:
        raise EngineUnavailable(
            f"{path}: the answer is not JSON (is this a Docker engine?)"
        ) from error


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _lines(stream: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in stream.read_chunked() if stream.chunked else stream.stream(1):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (line for line in lines if line.strip())
