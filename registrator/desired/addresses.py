"""At which address clients reach a port. The first setting that is used counts.

``docs/services.md`` states the order for users.
"""

from registrator.desired.metadata import Settings
from registrator.desired.ports import on_host_network, shares_network
from registrator.desired.rules import Rules
from registrator.desired.untrusted import Rejection, shown, valid_ip
from registrator.model import Container, Port, Reason


def address_of(
    container: Container, port: Port, settings: Settings, rules: Rules, peer: Container | None
) -> str:
    """The address of one port, in its usual spelling. Raises `Rejection`."""
    label = container.labels.get(rules.ip_label, "").partition("/")[0].strip()
    if rules.ip_label and label:
        return valid_ip(label, f"its label {shown(rules.ip_label)}")
    if own := settings.text("ip"):
        return valid_ip(own, shown(settings["ip"].key))
    if on_host_network(container, peer):
        return valid_ip(rules.forced_ip or rules.host_ip, "the host's address")
    if shares_network(container):
        if peer is None:
            raise Rejection("the container whose network it shares is not there", Reason.NO_ADDRESS)
        return _own_ip(peer, rules, f"container {shown(peer.name)}, whose network it shares,")
    if rules.internal:
        return _own_ip(container, rules, "it")
    bound = "" if port.host_ip in ("0.0.0.0", "::") else port.host_ip
    return valid_ip(rules.forced_ip or bound or rules.host_ip, "the host's address")


def _own_ip(container: Container, rules: Rules, who: str) -> str:
    own = container.networks
    if rules.network and rules.network not in own:
        raise Rejection(f"{who} is not on the network {shown(rules.network)}", Reason.NO_ADDRESS)
    address = own[rules.network] if rules.network else next(filter(None, own.values()), "")
    if not address:
        raise Rejection(f"{who} has no address of its own", Reason.NO_ADDRESS)
    return valid_ip(address, "its own address")
