"""python-consul2's API of one Consul server, on a transport of our own."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from consul import base

from .errors import Denied, Leaderless, Refused
from .settings import Endpoint
from .transport import Client


class Api(base.Consul):  # type: ignore[misc]  # python-consul2 has no types
    """python-consul2's API of one server, on our transport.

    The parent's constructor is not called: it reads ``CONSUL_HTTP_ADDR`` and others from the
    process's environment, and fails on forms of it that are legal for Consul's own tools.
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
        """The server that this is connected to."""
        endpoint: Endpoint = self.http.endpoint
        return endpoint

    def node_id(self) -> str:
        """The agent's own id; needs ``agent:read``."""
        answer = self.agent.self()
        with self.http.consuls_own():
            return str(answer["Config"]["NodeID"])

    def services(self) -> dict[str, Mapping[str, Any]]:
        """The agent's services by id."""
        return self._table(self.agent.services())

    def checks(self) -> dict[str, Mapping[str, Any]]:
        """The agent's checks by id."""
        return self._table(self.agent.checks())

    def _table(self, answer: Any) -> dict[str, Mapping[str, Any]]:
        table: dict[str, Mapping[str, Any]] = answer or {}
        with self.http.consuls_own():
            if not all(isinstance(row, dict) for row in table.values()):
                raise TypeError
        return table

    def ping(self) -> None:
        """Raise `NoAnswer` unless the agent itself answers, be it with a refusal.

        Asks for nothing that its cluster would be needed for, and needs no right.
        """
        with contextlib.suppress(Refused, Denied, Leaderless):
            self.http.get(base.CB.bool(), "/v1/agent/service/registrator")

    def register(self, body: Mapping[str, Any]) -> None:
        """Register a service in place of what stands under its id, checks included.

        python-consul2's own call lacks fields; ``=1`` instead of ``=true`` would be ignored.
        """
        self.http.put(
            base.CB.bool(),
            "/v1/agent/service/register",
            params=[("replace-existing-checks", "true")],
            data=json.dumps(body),
        )

    def transact(
        self, operations: Sequence[Mapping[str, Any]]
    ) -> tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]]:
        """Results and errors of a transaction; where there are errors, nothing was written."""
        try:
            answer = self.txn.put(operations)
        except Refused as error:
            if error.status != 409:
                raise
            with self.http.consuls_own():
                answer = json.loads(error.reason)
        with self.http.consuls_own():
            return answer["Results"] or (), answer["Errors"] or ()
