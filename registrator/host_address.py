"""Finds the address of published ports: that of ``-ip``, of an interface, or the host's own."""

import socket
import threading
from collections.abc import Callable

from registrator.config import Config
from registrator.system.hostaddr import (
    Found,
    find_address,
    find_ipv6_first,
    host_addresses,
    watch_address,
)
from registrator.system.interfaces import interface_address, watch_interface

Use = Callable[[str, frozenset[str]], None]


class HostAddress:
    """The address of published ports, and its changes. `current` is the one at the start, or ""."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._again = threading.Event()
        self._found = Found()
        if config.interface:
            self.current = interface_address(config.interface, config.family)
        elif config.ip:
            self.current = config.ip
        else:
            find = find_ipv6_first if config.family == 6 else find_address
            self._found = find(socket.gethostname())
            self.current = self._found.address

    @property
    def changes(self) -> bool:
        """Whether it can change. It cannot if ``-ip`` gives it, or if another host has it."""
        if self._config.ip:
            return bool(self._config.interface)
        return not self.current or self.current in host_addresses()

    def follow(self, use: Use, stop: threading.Event) -> None:
        """Call `use` with each new address, and with all of the host, until `stop` is set."""
        config = self._config
        if config.interface:
            watch_interface(
                config.interface, config.family, self.current, use, stop, self._again, config.resync
            )
        else:
            watch_address(self._found, use, stop, family=config.family)

    def look_again(self) -> None:
        """Have an interface read again at once. Any thread may call it."""
        self._again.set()
