"""Sets up the log: lines on stderr, as text or as JSON. No line ever waits for stderr."""

import contextlib
import faulthandler
import json
import logging
import signal
from collections.abc import Iterator
from datetime import UTC, datetime

from registrator.system.stderr import Stderr

# These libraries log each request and retry. The agent itself says once what matters.
NOISY = ("kazoo", "urllib3", "docker", "consul", "etcd3", "grpc")


class _Text(logging.Formatter):
    """``2026-01-31T03:00:00.123Z WARN  text``: the time is UTC, as in the engine's own log."""

    def format(self, record: logging.LogRecord) -> str:
        level = {"WARNING": "WARN", "CRITICAL": "ERROR"}.get(record.levelname, record.levelname)
        text = record.getMessage().replace("\n", "\\n").replace("\r", "\\r")
        return f"{_time(record)} {level:<5} {text}{_traceback(self, record)}"


class _Json(logging.Formatter):
    """One object in each line: time, level, logger, message, and error for a traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if trace := _traceback(self, record):
            line["error"] = trace.strip()
        return json.dumps(line, ensure_ascii=False)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return "\n" + formatter.formatException(record.exc_info) if record.exc_info else ""


@contextlib.contextmanager
def on_stderr(level: str, form: str) -> Iterator[None]:
    """Log to stderr from `level` on, within the block.

    The lines of noisy libraries appear only with debug. On SIGUSR1 the stacks of all threads
    appear, whatever the threads do.
    """
    formatter = _Json() if form == "json" else _Text()

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
