"""A folder with a JSON file for every service: ``folder:///run/services``."""

import json
from pathlib import Path
from urllib.parse import quote

from registrator.backend import ConfigError, Context, Rejected, Unavailable, require_port
from registrator.model import Actual, Entry, Plan, Service


class FolderBackend:
    """`registrator.backend.Backend` says what each method has to do."""

    keepalive_interval = None  # nothing here expires

    def __init__(self, context: Context) -> None:
        if context.uri.addresses or context.uri.unknown_options():
            raise ConfigError("write folder:///path, without a host and options")
        self._folder = Path(context.uri.path)
        self._ours = quote(context.identity.owner, safe="") + "@"

    def entry(self, service: Service) -> Entry:
        require_port(service)
        if len(key := f"{self._ours}{quote(service.id, safe='')}.json") > 250:
            raise Rejected("its id is too long for a file's name")
        record = {"name": service.name, "address": service.address, "port": service.port}
        return Entry(key, json.dumps(record), service)

    def list(self) -> dict[str, Actual]:
        try:
            paths = [path for path in self._folder.iterdir() if path.name.startswith(self._ours)]
            return {path.name: Actual(path.read_text(errors="replace")) for path in paths}
        except OSError as error:
            raise Unavailable(f"{self._folder} cannot be read: {error.strerror}") from error

    def apply(self, plan: Plan) -> dict[str, str]:
        try:
            for entry in plan.register:
                scratch = self._folder / ".new"
                scratch.write_text(entry.content)
                scratch.replace(self._folder / entry.key)
            for key in plan.deregister:
                (self._folder / key).unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable(f"{self._folder} cannot be written: {error.strerror}") from error
        return {}

    def keepalive(self) -> None: ...

    def close(self) -> None: ...
