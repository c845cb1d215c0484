"""Reads the Docker engine as an agent with the same options would. It needs no agent."""

import os
import time
from collections.abc import Mapping

from registrator import __version__
from registrator.config import Config
from registrator.derive import derivation
from registrator.desired.inventory import Inventory
from registrator.engine.client import DockerEngine
from registrator.host_address import HostAddress
from registrator.identity import identify
from registrator.model import EngineUnavailable, Snapshot
from registrator.status.board import Board
from registrator.status.rows import AgentRow
from registrator.system.hostaddr import host_addresses

# Seconds that slow inspections may take in all, and the pause between two looks for their answers.
PATIENCE, PAUSE = 10.0, 0.1


class Host:
    """This host, and what its containers offer. `board` tells it in the form of an agent's board.

    Raises `WrongVariables` if the variables for the engine are wrong, and `EngineUnavailable`.
    """

    def __init__(self, config: Config, environ: Mapping[str, str] = os.environ) -> None:
        self.engine = DockerEngine(
            environ, config.labels, more_events=config.more_events, derive=derivation(config)
        )
        self.board = Board(map(str, config.uris))
        try:
            engine = self.engine.identify()
        except EngineUnavailable as error:
            self.engine.close()
            raise EngineUnavailable(f"{self.engine.address}: {error}") from error
        self.board.engine.succeeded(address=self.engine.address, version=engine.version)
        self.identity = identify(config, engine)
        address = HostAddress(config).current
        self.board.agent = AgentRow(
            __version__, hostname=self.identity.hostname, address=address,
            policy="internal" if config.internal else "published", network=config.network,
        )  # fmt: skip
        self._snapshot = Snapshot(complete=False, settled=False)
        self._inventory = Inventory(
            self.engine,
            config.rules(self.identity.hostname, address),
            self._take,
            keep_failed=config.deregister == "on-success",
            addresses=host_addresses() | ({address} if address else set()),
            board=self.board,
        )

    def look(self) -> Snapshot:
        """The services that run now. It is not complete if a container cannot be inspected."""
        end = time.monotonic() + PATIENCE
        self._inventory.resync()
        self._inventory.step()
        while not self._snapshot.settled or not (self._snapshot.complete or time.monotonic() > end):
            self._inventory.wait(PAUSE)
            self._inventory.step()
        return self._snapshot

    def close(self) -> None:
        """Close the connections to the engine."""
        self.engine.close()

    def _take(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
