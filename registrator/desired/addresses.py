"""At which address clients reach a port. The first setting that is used counts.

``docs/services.md`` states the order for users.
"""

from collections.abc import Mapping

from registrator.desired.metadata import Settings
from registrator.desired.ports import HOST, at_host, on_host_network, shares_network
from registrator.desired.rules import Rules
from registrator.desired.untrusted import Rejection, shown, valid_ip
from registrator.model import Container, Port, Reason

# The label that tells the first part of the names of a compose file's networks.
COMPOSE_PROJECT = "com.docker.compose.project"


def address_of(
    container: Container, port: Port, settings: Settings, rules: Rules, peer: Container | None
) -> str:
    """The address of one port, in its usual spelling. Raises `Rejection`."""
    label = container.labels.get(rules.ip_label, "").partition("/")[0].strip()
    if rules.ip_label and label:
        return valid_ip(label, f"its label {shown(rules.ip_label)}")
    if own := settings.text("ip"):
        return valid_ip(own, shown(settings["ip"].key))
    network = settings.text("network")
    if network and network != HOST:
        return _in_network(container, settings, rules, peer)
    if network == HOST or on_host_network(container, peer):
        return _at_host(port, rules)
    if shares_network(container):
        return _own_ip(_peer(peer), rules, f"container {shown(_peer(peer).name)}, {_SHARED},")
    if rules.internal:
        return _own_ip(container, rules, "it")
    return _at_host(port, rules)


_SHARED = "whose network it shares"


def _peer(peer: Container | None) -> Container:
    """The container whose network is shared. Raises `Rejection` if it does not run."""
    if peer is None:
        raise Rejection("the container whose network it shares is not there", Reason.NO_ADDRESS)
    return peer


def _at_host(port: Port, rules: Rules) -> str:
    if rules.interface and not rules.forced_ip:
        text = f"the interface {shown(rules.interface)}, which -ip names, has no address"
        raise Rejection(text, Reason.NO_ADDRESS)
    return valid_ip(at_host(port, rules), "the host's address")


def _in_network(
    container: Container, settings: Settings, rules: Rules, peer: Container | None
) -> str:
    """The address in the network that ``SERVICE_NETWORK`` names, as a compose file may name it."""
    name, key = settings.text("network"), shown(settings["network"].key)
    own = _addresses(_peer(peer) if shares_network(container) else container, rules)
    project = container.labels.get(COMPOSE_PROJECT, "")
    address = own.get(name) or own.get(f"{project}_{name}") or ""
    if not address:
        text = f"{key} names the network '{shown(name)}', and the container has no address there"
        raise Rejection(text, Reason.NOT_ATTACHED)
    return valid_ip(address, f"its address in the network {shown(name)}")


def _own_ip(container: Container, rules: Rules, who: str) -> str:
    own = _addresses(container, rules)
    if rules.network and rules.network not in own:
        raise Rejection(f"{who} is not on the network {shown(rules.network)}", Reason.NO_ADDRESS)
    address = own[rules.network] if rules.network else next(filter(None, own.values()), "")
    if not address:
        raise Rejection(f"{who} has no address of its own", Reason.NO_ADDRESS)
    return valid_ip(address, "its own address")


def _addresses(container: Container, rules: Rules) -> Mapping[str, str]:
    """The container's address in each network, its main network first."""
    if rules.family == 6 and container.networks_6:
        return {**container.networks, **container.networks_6}
    return container.networks
