"""Sets up the log: lines on stderr, as text or as JSON. No line ever waits for stderr."""

import contextlib
import faulthandler
import json
import logging
import re
import signal
from collections.abc import Iterator
from datetime import UTC, datetime

from registrator.system.stderr import Stderr

# These libraries log each request and retry. The agent itself says once what matters.
NOISY = ("kazoo", "urllib3", "docker", "consul", "etcd3", "grpc")

# The facts of a line that JSON has under keys of their own. A caller gives them as `extra`.
# Only the formatter for JSON looks at them. docs/run.md explains each.
KEYS = (
    "event", "registry", "server", "service", "service_id", "container", "container_id", "address",
    "port", "reason", "attempt", "duration_seconds", "latency_seconds",
)  # fmt: skip

# A longer text of a container, an engine or a registry is cut.
MAX_TEXT = 4096

# Some readers end a line at one of these, or refuse it: control characters, line separators and
# halves of surrogate pairs. JSON itself allows them.
_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Text(logging.Formatter):
    """``2026-01-31T03:00:00.123Z WARN  text``: the time is UTC, as in the engine's own log."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, and a traceback below it."""
        level = {"WARNING": "WARN", "CRITICAL": "ERROR"}.get(record.levelname, record.levelname)
        text = record.getMessage().replace("\n", "\\n").replace("\r", "\\r")
        return f"{_time(record)} {level:<5} {text}{_traceback(self, record)}"


class Json(logging.Formatter):
    """One object in each line: time, level, logger, message, `KEYS`, and error for a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _bounded(record.getMessage()),
        }
        given = record.__dict__
        line |= {key: _bounded(given[key]) for key in KEYS if given.get(key) not in (None, "")}
        if trace := _traceback(self, record):
            line["error"] = trace.strip()
        return _UNSAFE.sub(_escaped, json.dumps(line, ensure_ascii=False))


def _bounded(value: object) -> str | int | float:
    """A value of a line: a number, or a text that is not too long."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, int):
        return value
    text = str(value)
    return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"


def _escaped(found: re.Match[str]) -> str:
    """A character as JSON's escape. Half of a surrogate pair is no character."""
    char = found[0]
    return "\\ufffd" if "\ud800" <= char <= "\udfff" else f"\\u{ord(char):04x}"


def _time(record: logging.LogRecord) -> str:
    # To ask a zone for its offset, Python makes a new text, and keeps that of some thousand calls.
    moment = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
    return moment.isoformat(timespec="milliseconds") + "Z"


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return "\n" + formatter.formatException(record.exc_info) if record.exc_info else ""


@contextlib.contextmanager
def on_stderr(level: str, form: str) -> Iterator[None]:
    """Log to stderr from `level` on, within the block.

    The lines of noisy libraries appear only with debug. On SIGUSR1 the stacks of all threads
    appear, whatever the threads do.
    """
    formatter = Json() if form == "json" else Text()

    def lost(number: int) -> str:
        text = f"stderr did not take {number} lines of the log"
        record = logging.LogRecord("registrator.log", logging.WARNING, "", 0, text, None, None)
        return formatter.format(record) + "\n"

    with Stderr(lost) as stderr:
        handler = logging.StreamHandler(stderr)
        handler.setFormatter(formatter)
        logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
        for name in NOISY:
            logging.getLogger(name).setLevel(logging.INFO if level == "debug" else logging.CRITICAL)
        faulthandler.register(signal.SIGUSR1, stderr, all_threads=True)
        yield
