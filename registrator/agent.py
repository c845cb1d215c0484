"""The threads that make an agent, its signals, and its end.

One thread reads the engine's events and marks containers dirty, one turns these into snapshots,
one per registry reconciles. They share an immutable snapshot and a wake-up each, nothing else.
The agent ends by a signal, by spent ``-retry-attempts``, or by a bug: a thread that dies of one
ends the process, so that its supervisor starts it again; it never limps on.
"""

from __future__ import annotations

import functools
import gc
import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import FrameType

from registrator import __version__
from registrator.backend import Backend, ConfigError
from registrator.config import Config
from registrator.desired.inventory import Inventory
from registrator.engine.client import DockerEngine, Engine, WrongVariables
from registrator.health import PERIOD, Health
from registrator.model import EngineUnavailable, Identity, Snapshot
from registrator.registries import make_backend
from registrator.status.board import Board
from registrator.sync.reconciler import GaveUp, Reconciler
from registrator.system import log as logs
from registrator.system.hostaddr import host_address, host_addresses
from registrator.system.memory import limit_malloc_arenas
from registrator.system.retry import backoff
from registrator.system.systemd import tell_ready
from registrator.uri import RegistryURI

log = logging.getLogger("registrator.agent")

# How often the engine is asked whether it still answers: its event stream tells neither way.
HEARTBEAT = 10.0

# The longest wait between two calls to an engine that does not answer. It is near and has no other
# host's agents to serve, and its return, after whatever time, is to be seen within 3 s.
PATIENCE = 2.0

# All threads together get this long to end by themselves; one that still waits is left behind. An
# end may take 2 s on a busy machine.
GRACE = 1.0


def run(config: Config) -> int:
    """Run an agent until a signal or a failure and end the process; return 2 where none can run."""
    limit_malloc_arenas()
    logs.setup(config.log_level, config.log_format)
    try:
        agent = Agent(config)
    except WrongVariables as error:
        log.error("%s", error)
        return 2
    code = agent.run()
    logging.shutdown()
    # The interpreter would wait for the threads of thread pools, however long a registry takes.
    os._exit(code)


def identify(config: Config, engine: Engine) -> Identity:
    """Who this host is in the registries.

    A hostname of 12 hex digits is that of the agent's own container: it changes with every
    recreation of that, and all ids with it, so that the engine's name is taken in its place.
    """
    hostname = config.hostname or socket.gethostname()
    if not config.hostname and re.fullmatch("[0-9a-f]{12}", hostname) and engine.name:
        log.warning(
            "the agent runs without --net=host: its hostname %s would change with its container; "
            "ids start with the engine's name %s, give -hostname for another",
            hostname, engine.name,
        )  # fmt: skip
        hostname = engine.name
    return Identity(engine.id or hostname, hostname)


def tell_addresses(config: Config, hostname: str, host_ip: str) -> None:
    """Say what ids and addresses are made of, which whoever reads a wrong one looks for."""
    if config.internal:
        log.info(
            "ids start with %s, exposed ports are registered at the containers' own addresses%s",
            hostname, f" in the network {config.network}" if config.network else "",
        )  # fmt: skip
        return
    log.log(
        logging.INFO if host_ip else logging.WARNING,
        "ids start with %s, published ports are registered at %s",
        hostname, host_ip or "no address: none was found, give one with -ip",
    )  # fmt: skip


class Agent:
    """One run of the agent."""

    def __init__(self, config: Config, environ: Mapping[str, str] = os.environ) -> None:
        self._config = config
        self._environ = environ
        self._stop = threading.Event()
        self._failed = False
        self._threads: list[threading.Thread] = []
        self._reconcilers: list[Reconciler] = []
        self._inventory: Inventory | None = None
        self._health = Health()
        self._board = Board()
        for uri in config.uris:
            self._board.add_registry(str(uri))
        self._engine = DockerEngine(
            environ, labels=(config.use_ip_from_label,) if config.use_ip_from_label else ()
        )

    def run(self) -> int:
        """Run until a signal or a failure; returns the exit code."""
        for number, handler in (
            (signal.SIGTERM, self._end),
            (signal.SIGINT, self._end),
            (signal.SIGHUP, self._resync),
        ):
            signal.signal(number, handler)
        threading.excepthook = lambda died: self._end_by_bug(died.exc_value)
        log.info("registrator %s for %s", __version__, ", ".join(map(str, self._config.uris)))
        tell_ready(self._environ)
        # Signals end this thread's waits at once, but not a call to an engine that is frozen.
        self._spawn("events", self._follow)
        self._guard(self._tell_health)
        self._shut_down()
        return 1 if self._failed else 0

    def _tell_health(self) -> None:
        while not self._stop.is_set():
            self._health.note(self._board.problems())
            self._stop.wait(PERIOD)

    def _end(self, number: int, _: FrameType | None) -> None:
        log.info("%s: ending; the entries stay", signal.Signals(number).name)
        self._stop.set()

    def _resync(self, _number: int, _: FrameType | None) -> None:
        log.info("SIGHUP: listing the engine and the registries")
        if self._inventory is not None:
            self._inventory.resync()
        for reconciler in self._reconcilers:
            reconciler.retry_now()

    def _follow(self) -> None:
        """Wait for the engine, start all that works on it, and read its events."""
        engine = self._await_engine()
        if engine is not None:
            self._read_events(self._start(engine))

    def _await_engine(self) -> Engine | None:
        """Who the engine is, as soon as it answers; None where the agent is to end before."""
        report, address = self._board.engine, self._engine.address
        while not self._stop.is_set():
            try:
                engine = self._engine.identify()
            except EngineUnavailable as error:
                report.failed(f"none answers at {address} ({error})")
                self._back_off(report.row.failures)
            else:
                report.succeeded(address=address, version=engine.version)
                log.info("Docker engine %s at %s", engine.version, self._engine.address)
                return engine
        return None

    def _start(self, engine: Engine) -> Inventory:
        config = self._config
        identity = identify(config, engine)
        host_ip = config.ip or host_address(socket.gethostname())
        tell_addresses(config, identity.hostname, host_ip)
        self._reconcilers = [
            Reconciler(
                report,
                functools.partial(self._backend, uri, identity),
                identity,
                cleanup=config.cleanup,
                resync=config.resync,
                attempts=config.retry_attempts,
                first_wait=config.retry_interval,
            )
            for uri, report in zip(config.uris, self._board.registries, strict=True)
        ]
        inventory = Inventory(
            self._engine,
            config.rules(identity.hostname, host_ip),
            self._publish,
            keep_failed=config.deregister == "on-success",
            addresses=host_addresses() | ({host_ip} if host_ip else set()),
        )
        self._inventory = inventory
        if not config.ip and (not host_ip or host_ip in host_addresses()):
            watch = functools.partial(self._watch_address, inventory, identity.hostname, host_ip)
            self._spawn("address", watch)
        self._spawn("inventory", functools.partial(self._take_stock, inventory))
        for reconciler in self._reconcilers:
            self._spawn(reconciler.report.row.name, functools.partial(reconciler.run, self._stop))
        return inventory

    def _watch_address(self, inventory: Inventory, hostname: str, host_ip: str) -> None:
        """Follow the host's address: a network may come up late, a lease may be lost.

        One that the host still has stays, whatever its name resolves to meanwhile.
        """
        while not self._stop.wait(HEARTBEAT if host_ip else PATIENCE):
            present = host_addresses()
            found = host_ip if host_ip in present else host_address(socket.gethostname())
            if found and found != host_ip:
                log.warning(
                    "the host's address is %s now (it was %s): registering published ports there",
                    found, host_ip or "not found",
                )  # fmt: skip
                host_ip = found
                inventory.follow(self._config.rules(hostname, host_ip), present | {host_ip})

    def _backend(self, uri: RegistryURI, identity: Identity, wake: Callable[[], None]) -> Backend:
        config = self._config
        return make_backend(uri, identity, wake, self._environ, config.ttl, config.ttl_refresh)

    def _publish(self, snapshot: Snapshot) -> None:
        for reconciler in self._reconcilers:
            reconciler.publish(snapshot)

    def _spawn(self, name: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._guard, args=(work,), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _guard(self, work: Callable[[], None]) -> None:
        """Run a thread's work; however it fails, the agent ends with it."""
        try:
            work()
        except GaveUp as error:
            log.error("giving up, as -retry-attempts are spent: %s", error)
            self._failed = True
        except ConfigError as error:
            # What was right when the command started may have changed until the engine answered.
            log.error("%s", error)
            self._failed = True
        except BaseException as error:
            self._end_by_bug(error)
        finally:
            self._stop.set()

    def _end_by_bug(self, error: BaseException | None) -> None:
        """End the agent as a thread died: one of its own, of a backend, or of a library."""
        log.critical("a bug ended a thread, and the agent with it", exc_info=error)
        self._failed = True
        self._stop.set()

    def _read_events(self, inventory: Inventory) -> None:
        """Mark what events tell of, over all reconnects; each means a full listing."""
        last: int | None = None
        while not self._stop.is_set():
            reason = "the engine ended the stream"
            try:
                for event in self._engine.events(last):
                    if event is None:
                        self._board.events.succeeded()
                        inventory.resync()
                    else:
                        last = event.time
                        inventory.mark(event)
            except EngineUnavailable as error:
                reason = str(error)
            if not self._stop.is_set():
                self._report_stream(reason)
                inventory.resync()
                rows = (self._board.engine.row, self._board.events.row)
                self._back_off(max(1, *(row.failures for row in rows)))

    def _report_stream(self, reason: str) -> None:
        """Say that the stream failed; where all of the engine does, `_take_stock` says so."""
        try:
            self._engine.ping()
        except EngineUnavailable as error:
            log.debug("Docker events: %s; %s", reason, error)
        else:
            self._board.events.failed(reason)

    def _take_stock(self, inventory: Inventory) -> None:
        """Turn what is dirty into snapshots; find out when the engine stalls, and list on time."""
        report = self._board.engine
        resync = self._config.resync or float("inf")
        listing = time.monotonic() + resync
        while not self._stop.is_set():
            try:
                if not inventory.wait(min(HEARTBEAT, max(0.0, listing - time.monotonic()))):
                    self._engine.ping()
                if time.monotonic() >= listing:
                    listing = time.monotonic() + resync
                    inventory.resync()
                inventory.step()
                report.succeeded()
            except EngineUnavailable as error:
                report.failed(error)
                self._engine.interrupt()
                self._back_off(report.row.failures)

    def _back_off(self, failures: int) -> None:
        # The libraries' exceptions hold the socket that failed in a cycle: it would stay open.
        gc.collect()
        self._stop.wait(min(PATIENCE, backoff(failures)))

    def _shut_down(self) -> None:
        """Let the threads end by themselves, but not for long."""
        if self._inventory is not None:
            self._inventory.resync()
        for reconciler in self._reconcilers:
            reconciler.retry_now()
        self._engine.interrupt()
        deadline = time.monotonic() + GRACE
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._health.close()
        log.info("ended")
