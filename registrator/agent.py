"""Composes the agent: its parts, their threads, its signals and its end.

Two threads follow the engine's events, one at a time, and act on them (see `act_here`). One does
the rest of the inventory's work, and one for each registry the rest of its work. The agent ends by
a signal, by spent ``-retry-attempts``, or by a bug. If a bug ends one thread, the whole process
ends, so that its supervisor starts it again.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from registrator import __version__
from registrator.backend import Backend, ConfigError, Context
from registrator.config import Config
from registrator.derive import derivation
from registrator.desired.inventory import Inventory
from registrator.engine.address import WrongVariables
from registrator.engine.client import DockerEngine, Engine
from registrator.engine.connection import SocketReplaced
from registrator.engine.follower import Follower
from registrator.engine.timed import TimedEngine
from registrator.health import PERIOD, Health
from registrator.host_address import HostAddress
from registrator.identity import identify, tell_addresses
from registrator.listener.listener import Listener
from registrator.model import Identity, Snapshot
from registrator.registries import make_backend
from registrator.status.board import Board
from registrator.status.rows import AgentRow
from registrator.sync.reconciler import GaveUp, Reconciler
from registrator.system import log as logs
from registrator.system.hostaddr import host_addresses
from registrator.system.memory import collect_new_garbage, limit_malloc_arenas, settle_memory
from registrator.system.presence import Presence
from registrator.system.signals import Inbox
from registrator.system.systemd import tell_ready
from registrator.uri import RegistryURI

log = logging.getLogger("registrator.agent")

# Seconds that all threads together get to end by themselves. One that still waits then is left
# behind, since the end must not take longer than 2 s on a busy machine.
GRACE = 1.0


def run(config: Config) -> int:
    """Run an agent until it ends, and end the process. Return 2 if none can run."""
    limit_malloc_arenas()
    with logs.on_stderr(config.log_level, config.log_format):
        try:
            agent = Agent(config)
        except WrongVariables as error:
            log.error("%s", error)
            return 2
        code = agent.run()
    # The interpreter would wait for the threads of thread pools, however long a registry takes.
    os._exit(code)


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
        self._address: HostAddress | None = None
        self._health = Health()
        self._board = Board(map(str, config.uris))
        self._board.agent = AgentRow(
            __version__, time.time(), policy="internal" if config.internal else "published",
            network=config.network,
        )  # fmt: skip
        self._listener = Listener(config.http, self._board, self._health)
        self._health.socket = self._listener.name
        self._engine = DockerEngine(
            environ,
            config.labels,
            more_events=config.more_events,
            derive=derivation(config),
        )
        self._presence: Presence | None = None
        self._inbox = Inbox((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))

    def run(self) -> int:
        """Run until a signal or a failure. Returns the exit code."""
        threading.excepthook = lambda died: self._end_by_bug(died.exc_value)
        log.info("registrator %s for %s", __version__, ", ".join(map(str, self._config.uris)))
        tell_ready(self._environ)
        # This thread calls neither engine nor registry: it always gets to its signals.
        self._spawn("events", self._follow_engine)
        self._spawn("listener", lambda: self._listener.run(self._stop))
        self._guard(self._attend)
        self._shut_down()
        return 1 if self._failed else 0

    def _attend(self) -> None:
        """Write the health note, and do what signals ask for, until the agent ends."""
        started = False
        while not self._stop.is_set():
            problems = self._board.problems()
            self._health.note(problems)
            if not (problems or started):
                started = True
                settle_memory()
            for number in self._inbox.wait(PERIOD):
                if number is signal.SIGHUP:
                    log.info("SIGHUP: listing the engine and the registries")
                    self._wake_all()
                else:
                    log.info("%s: ending, the entries stay", number.name)
                    self._stop.set()

    def _follow_engine(self) -> None:
        """Wait for the engine, start all that needs it, and follow its events."""
        follower = Follower(self._engine, self._board, self._stop)
        engine = follower.await_engine()
        if engine is not None:
            inventory = self._start(engine)
            # If one of the two acts on an event for long, the other one reads on.
            react = partial(act_here, inventory, self._reconcilers)
            follow = partial(follower.follow, inventory, react)
            self._spawn("events", follow)
            follow()

    def _start(self, engine: Engine) -> Inventory:
        config = self._config
        identity = identify(config, engine)
        self._address = HostAddress(config)
        host_ip = self._address.current
        tell_addresses(config, identity.hostname, host_ip)
        self._presence = Presence(identity.owner, identity.hostname)
        self._board.tell_agent(hostname=identity.hostname, address=host_ip)
        self._reconcilers = [
            Reconciler(
                report,
                partial(self._backend, uri, identity, report.serves),
                identity,
                cleanup=config.cleanup,
                resync=config.resync,
                attempts=config.retry_attempts,
                first_wait=config.retry_interval,
                view=view.text,
            )
            for uri, view, report in zip(
                config.uris, config.registry_filters, self._board.registries, strict=True
            )
        ]
        inventory = Inventory(
            TimedEngine(self._engine, self._board.requests),
            config.rules(identity.hostname, host_ip),
            self._publish,
            keep_failed=config.deregister == "on-success",
            addresses=host_addresses() | ({host_ip} if host_ip else set()),
            resync=config.resync,
            board=self._board,
        )
        self._inventory = inventory
        if self._address.changes:

            def use(address: str, present: frozenset[str]) -> None:
                inventory.use_rules(config.rules(identity.hostname, address), present)
                self._board.tell_agent(address=address)

            self._spawn("address", partial(self._address.follow, use, self._stop))
        self._spawn("inventory", lambda: inventory.run(self._stop))
        for reconciler in self._reconcilers:
            self._spawn(reconciler.report.row.name, partial(reconciler.run, self._stop))
        return inventory

    def _backend(
        self,
        uri: RegistryURI,
        identity: Identity,
        serves: Callable[[str], None],
        wake: Callable[[], None],
        wake_soon: Callable[[], None],
    ) -> Backend:
        context = Context(
            uri, identity, self._config.ttl, self._config.ttl_refresh,
            environ=self._environ, wake=wake, wake_soon=wake_soon, serves=serves,
        )  # fmt: skip
        return make_backend(context)

    def _publish(self, snapshot: Snapshot) -> None:
        for reconciler in self._reconcilers:
            reconciler.publish(snapshot)

    def _spawn(self, name: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=self._guard, args=(work,), name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _guard(self, work: Callable[[], None]) -> None:
        """Do a thread's work. However it ends, the agent ends with it."""
        try:
            work()
        except GaveUp as error:
            extra = {"event": "gave_up", "registry": error.args[0]}
            why = ": ".join(error.args)
            log.error("giving up, as -retry-attempts are spent: %s", why, extra=extra)
            self._failed = True
        except (SocketReplaced, ConfigError) as error:
            # A file or folder may have changed between the command's start and the engine's answer.
            log.error("%s", error)
            self._failed = True
        except BaseException as error:
            self._end_by_bug(error)
        finally:
            self._end()

    def _end(self) -> None:
        self._stop.set()
        self._inbox.wake()

    def _end_by_bug(self, error: BaseException | None) -> None:
        """End the agent because a thread died: its own, that of a backend, or of a library."""
        log.critical("a bug ended a thread, and the agent with it; report this", exc_info=error)
        self._failed = True
        self._end()

    def _wake_all(self) -> None:
        if self._address is not None:
            self._address.look_again()
        if self._inventory is not None:
            self._inventory.resync()
        for reconciler in self._reconcilers:
            reconciler.retry_now()

    def _shut_down(self) -> None:
        """Let the threads end by themselves, but not for long."""
        self._wake_all()
        self._engine.interrupt()
        self._listener.wake()
        end = time.monotonic() + GRACE
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        self._health.close()
        if self._presence is not None:
            self._presence.close()
        log.info("ended")


def act_here(inventory: Inventory, reconcilers: Sequence[Reconciler]) -> None:
    """Act on an event in the thread that read it, as far as nothing else is under way.

    That saves two hand-overs between threads. The first registry is written by this thread. The
    others have their own, so that none waits for another one.
    """
    first, *others = reconcilers
    published = False

    def publish(snapshot: Snapshot) -> None:
        nonlocal published
        published = True
        for reconciler in others:
            reconciler.publish(snapshot)
        first.publish(snapshot, wake=False)

    inventory.step_here(publish)
    if published:
        first.step_here()
    collect_new_garbage()
