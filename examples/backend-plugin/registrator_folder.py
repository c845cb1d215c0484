"""A folder with a JSON file for every service: ``folder:///run/services``."""

import json
from pathlib import Path
from urllib.parse import quote

from registrator.backend import ConfigError, Context, Rejected, Unavailable
from registrator.model import Actual, Entry, Mark, Plan, Service


class FolderBackend:
    """What each method has to do stands in `registrator.backend.Backend`."""

    keepalive_interval = None  # nothing here expires

    def __init__(self, context: Context) -> None:
        if context.uri.addresses or context.uri.unknown_options():
            raise ConfigError("write folder:///path, without a host and options")
        self._folder, self._owner = Path(context.uri.path), context.identity.owner

    def entry(self, service: Service) -> Entry:
        if len(key := quote(service.id, safe="") + ".json") > 250:
            raise Rejected("its id is too long for a file's name")
        where = {"name": service.name, "address": service.address, "port": service.port}
        return Entry(key, json.dumps({"owner": self._owner, "id": service.id} | where), service)

    def list(self) -> dict[str, Actual]:
        try:
            files = [path for path in self._folder.iterdir() if path.suffix == ".json"]
            found = {path.name: (text := path.read_text(), json.loads(text)) for path in files}
        except (OSError, ValueError) as error:
            raise Unavailable(f"{self._folder} cannot be read: {error}") from error
        marks = {True: Mark.OURS, False: Mark.OTHERS}
        return {
            key: Actual(text, marks[it["owner"] == self._owner], id=it["id"], address=it["address"])
            for key, (text, it) in found.items()
        }

    def apply(self, plan: Plan) -> dict[str, str]:
        try:
            for entry in plan.register:
                scratch = self._folder / f"{entry.key}.tmp"
                scratch.write_text(entry.content)
                scratch.replace(self._folder / entry.key)
            for key in plan.deregister:
                (self._folder / key).unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable(f"{self._folder} cannot be written: {error}") from error
        return {}

    def keepalive(self) -> None: ...

    def close(self) -> None: ...
