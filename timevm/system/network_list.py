"""The network cards and networks of a machine, for ``info network``."""

from __future__ import annotations

from timevm.config.model import Config, UserNetdev
from timevm.engine.machine.network_cards import CardPlan, plan_cards
from timevm.monitor.commands.context import NetworkClient

#: properties of ``-object filter-replay`` in the order in which QEMU shows them, and what they are unless told
_FILTER = {"position": "tail", "status": "on", "insert": "behind", "netdev": "", "queue": "all"}


def network_list(config: Config) -> list[NetworkClient]:
    """In QEMU's order: networks without a card, then each card with its network."""
    cards = plan_cards(config.machine)
    used = {card.netdev for card in cards}
    lonely = [_network(config, netdev) for netdev in config.netdevs if netdev.identifier not in used]
    return lonely + [_card(config, card) for card in cards]


def _card(config: Config, card: CardPlan) -> NetworkClient:
    netdev = next((each for each in config.netdevs if each.identifier == card.netdev), None)
    details = f"model={card.option.driver},macaddr={card.address.hex(':')}"
    return NetworkClient(card.name, "nic", details, peer=None if netdev is None else _network(config, netdev))


def _network(config: Config, netdev: UserNetdev) -> NetworkClient:
    settings = netdev.settings
    details = f"net={settings.network.network_address},restrict={'on' if settings.restricted else 'off'}"
    filters = []
    for each in config.machine.objects:
        shown = _FILTER | dict(each.properties)
        if each.kind == "filter-replay" and shown["netdev"] == netdev.identifier:
            filters.append(",".join([f"{each.identifier}: type=filter-replay", *(f"{k}={shown[k]}" for k in _FILTER)]))
    return NetworkClient(netdev.identifier, "user", details, tuple(filters))
