"""The requests to one Consul server: python-consul2's API on our transport."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from consul import base

from .errors import Denied, Leaderless, Refused
from .kv_transaction import Operation, Stored
from .settings import Endpoint
from .transport import Client


@contextlib.contextmanager
def _gone() -> Iterator[None]:
    """Let a removal of what is gone succeed. Some versions answer 404 then, and some 500."""
    try:
        yield
    except Refused as error:
        if error.status != 404 and not error.reason.startswith("Unknown "):
            raise


class Api(base.Consul):  # type: ignore[misc]  # python-consul2 has no types
    """python-consul2's API of one server, on our transport.

    This does not call the parent's constructor. That one reads ``CONSUL_HTTP_ADDR`` and other
    variables from the process's environment, and fails on forms that Consul's own tools accept.
    """

    def __init__(self, http: Client) -> None:
        self.http = http
        self.token = None
        self.dc = None
        self.consistency = "default"
        self.agent = base.Consul.Agent(self)
        self.kv = base.Consul.KV(self)
        self.session = base.Consul.Session(self)
        self.status = base.Consul.Status(self)
        self.txn = base.Consul.Txn(self)

    @property
    def endpoint(self) -> Endpoint:
        """The server at the other end."""
        endpoint: Endpoint = self.http.endpoint
        return endpoint

    def node_id(self) -> str:
        """The agent's own id. Needs ``agent:read``."""
        answer = self.agent.self()
        with self.http.expect_consul_format():
            return str(answer["Config"]["NodeID"])

    def services(self) -> dict[str, Mapping[str, Any]]:
        """The agent's services by id."""
        return self._table(self.agent.services())

    def service(self, service_id: str) -> Mapping[str, Any]:
        """One of the agent's services. Empty if it has none with this id."""
        path = f"/v1/agent/service/{service_id}"
        try:
            answer: Mapping[str, Any] = self.http.get(base.CB.json(), path)
        except Refused as error:
            if error.status != 404:
                raise
            return {}
        with self.http.expect_consul_format():
            if not isinstance(answer, dict):
                raise TypeError
        return answer

    def checks(self) -> dict[str, Mapping[str, Any]]:
        """The agent's checks by id."""
        return self._table(self.agent.checks())

    def checks_named(self, name: str) -> dict[str, Mapping[str, Any]]:
        """The agent's checks of this name, by id. Consul before 1.5 answers with all checks."""
        params = [("filter", f"Name == {json.dumps(name)}")]
        return self._table(self.http.get(base.CB.json(), "/v1/agent/checks", params=params))

    def accessor_id(self) -> str:
        """The public id of the token in use. Empty if this Consul has no ACLs or no such ids."""
        try:
            answer = self.http.get(base.CB.json(), "/v1/acl/token/self")
        except Refused as error:
            if error.status not in (401, 404):
                raise
            return ""
        with self.http.expect_consul_format():
            return str(answer["AccessorID"])

    def _table(self, answer: Any) -> dict[str, Mapping[str, Any]]:
        table: dict[str, Mapping[str, Any]] = answer or {}
        with self.http.expect_consul_format():
            if not all(isinstance(row, dict) for row in table.values()):
                raise TypeError
        return table

    def server_nodes(self) -> Sequence[str]:
        """The nodes that are servers of the datacenter. Raises `Denied` if none may be read."""
        answer = self.http.get(base.CB.json(), "/v1/catalog/service/consul")
        with self.http.expect_consul_format():
            nodes = [str(row["Node"]) for row in answer]
        if not nodes:
            # Consul hides what the token may not read.
            raise Denied(f"{self.endpoint}: the token may not read the servers", unknown=False)
        return nodes

    def ping(self) -> None:
        """Raise `NoAnswer` unless the agent itself answers. A refusal is an answer too.

        The request needs neither the agent's cluster nor any right.
        """
        with contextlib.suppress(Refused, Denied, Leaderless):
            self.http.get(base.CB.bool(), "/v1/agent/service/registrator")

    def register(self, body: Mapping[str, Any]) -> None:
        """Register a service with its checks, and replace what has the same id.

        Other checks of the service stay, such as that of an operator's maintenance. So this does
        not use ``replace-existing-checks``. python-consul2's own call lacks fields.
        """
        self.http.put(base.CB.bool(), "/v1/agent/service/register", data=json.dumps(body))

    def deregister(self, service_id: str) -> None:
        """Remove a service and all its checks. A service that is gone is no error."""
        with _gone():
            self.agent.service.deregister(service_id)

    def register_check(self, body: Mapping[str, Any]) -> None:
        """Register a check of a service that stands, or replace the one with its id."""
        self.http.put(base.CB.bool(), "/v1/agent/check/register", data=json.dumps(body))

    def update_check(self, check_id: str, status: str) -> None:
        """Set the status of a TTL check. Raises `Refused` if there is none."""
        path = f"/v1/agent/check/update/{check_id}"
        self.http.put(base.CB.bool(), path, data=json.dumps({"Status": status}))

    def deregister_check(self, check_id: str) -> None:
        """Remove one check. A check that is gone is no error."""
        with _gone():
            self.agent.check.deregister(check_id)

    def transact(
        self,
        operations: Sequence[Operation],
        keep: Callable[[str, int], bool] = lambda key, flags: True,
    ) -> tuple[Sequence[tuple[str, Stored]], Mapping[int, str]]:
        """The keys that a transaction found or wrote, and its errors by the operation's number.

        If there are errors, nothing was written, and no key is given. Only keys that `keep` takes
        are given, by their flags.
        """
        try:
            answer = self.txn.put(operations)
        except Refused as error:
            if error.status != 409:
                raise
            with self.http.expect_consul_format():
                answer = json.loads(error.reason)
        with self.http.expect_consul_format():
            rows = [result["KV"] for result in answer["Results"] or ()]
            errors = {int(each["OpIndex"]): str(each["What"]) for each in answer["Errors"] or ()}
            if not errors.keys() <= set(range(len(operations))):
                raise IndexError
            kept = (row for row in rows if keep(row["Key"], row.get("Flags") or 0))
            return [(str(row["Key"]), Stored.read(row)) for row in kept], errors

    def folders(self, prefix: str) -> Sequence[str]:
        """The names below a prefix of the store that end with a slash, each with the prefix."""
        try:
            found = self.kv.get(prefix, keys=True, separator="/")[1]
        except Refused as error:
            if error.status != 404:
                raise
            return ()
        with self.http.expect_consul_format():
            return [each for each in found or () if each.endswith("/")]
