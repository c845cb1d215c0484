"""How the operator wants services to be made: the options that concern them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rules:
    """How the operator wants services to be made.

    `hostname` is the first part of ids. `host_ip` is the host's own address as found out,
    `forced_ip` that of ``-ip``. `ip_label` is the label of ``-useIpFromLabel``. `network` is the
    one whose address `internal` takes (empty: the container's main one).
    """

    hostname: str
    host_ip: str = ""
    forced_ip: str = ""
    internal: bool = False
    network: str = ""
    explicit: bool = False
    ip_label: str = ""
    tags: tuple[str, ...] = ()
