"""How the operator wants services to be made: the options that concern them."""

from dataclasses import dataclass

from registrator.desired.filters import EVERYTHING, Filter


@dataclass(frozen=True, slots=True)
class Rules:
    """How the operator wants services to be made.

    `hostname` is the first part of ids. `host_ip` is the host's own address as found out,
    `forced_ip` that of ``-ip``. If ``-ip`` names an `interface`, `forced_ip` is empty until that
    has an address. `ip_label` is the label of ``-useIpFromLabel``. `network` is the one whose
    address `internal` takes (empty: the container's main one). `family` is 6 if IPv6 comes first.
    `filter` says which containers count at all. `filters` are the different filters of the
    registries. There are none if no registry has one. `on_stop` and `on_pause` take away the
    services of a container that is being stopped, or that is paused. With `health` the container's
    health check counts.
    """

    hostname: str
    host_ip: str = ""
    forced_ip: str = ""
    internal: bool = False
    network: str = ""
    explicit: bool = False
    ip_label: str = ""
    tags: tuple[str, ...] = ()
    filter: Filter = EVERYTHING
    filters: tuple[Filter, ...] = ()
    on_stop: bool = False
    on_pause: bool = False
    interface: str = ""
    family: int = 4
    health: bool = False
