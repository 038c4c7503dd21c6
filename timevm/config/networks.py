"""``-netdev`` and ``-nic``, and how to say that there is no network."""

from __future__ import annotations

from dataclasses import replace

from timevm.config.architectures import Vocabulary
from timevm.config.keyvalue import OptionValue, hint
from timevm.config.model import UserNetdev
from timevm.engine.machine.network_cards import CARDS
from timevm.engine.machine.spec import DeviceOption
from timevm.errors import UserError
from timevm.network.settings import BadSetting, Forward, UserSettings

#: types of QEMU 7.2 that are not done here
_ABSENT = (
    "tap",
    "bridge",
    "socket",
    "stream",
    "dgram",
    "vde",
    "l2tpv3",
    "hubport",
    "vhost-user",
    "vhost-vdpa",
    "passt",
)
_KEYS = (
    "type", "id", "net", "host", "dns", "dhcpstart", "restrict", "hostfwd", "hostname", "domainname", "dnssearch",
    "ipv4", "ipv6",
)  # fmt: skip
#: of ``-nic``: the card's own
_CARD_KEYS = ("model", "mac", "addr", "id")
_KNOWN_NOT_DONE = (
    "guestfwd", "tftp", "tftp-server-name", "bootfile", "smb", "smbserver", "ipv6-net", "ipv6-host", "ipv6-prefix",
    "ipv6-prefixlen", "ipv6-dns",
)  # fmt: skip


def parse_netdev(text: str) -> UserNetdev:
    """Raises UserError, in QEMU's words where it has some."""
    value = OptionValue("-netdev", text, known=None, implied="type")
    kind = value.needed("type")
    if kind in _ABSENT:
        value.fail(f"'{kind}' is known, but not part of this version: the one network there is has type user")
    if kind != "user":
        value.fail(f"Parameter 'type' does not accept value '{kind}'{hint(kind, ('user',))}")
    for key, _ in value.pairs:
        if key in _KNOWN_NOT_DONE:
            value.fail(f"'{key}' is known, but not part of this version")
        if key not in _KEYS:
            value.fail(f"Invalid parameter '{key}'{hint(key, _KEYS)}")
    identifier = value.identifier()
    if identifier is None:
        value.fail("Parameter 'id' is missing")
    if not value.switch("ipv4", True) or value.switch("ipv6", False):
        value.fail("this network has IPv4 and nothing else: leave out ipv4= and ipv6=")
    try:
        settings = UserSettings.of(
            value.text_of("net"), value.text_of("host"), value.text_of("dns"), value.text_of("dhcpstart")
        )
        forwards = tuple(Forward.parse(rule) for key, rule in value.pairs if key == "hostfwd")
    except BadSetting as why:
        value.fail(str(why))
    settings = replace(
        settings,
        restricted=value.switch("restrict", False),
        forwards=forwards,
        host_name=value.text_of("hostname"),
        domain_name=value.text_of("domainname"),
        search=tuple(name for key, name in value.pairs if key == "dnssearch"),
    )
    return UserNetdev(identifier, settings)


def parse_nic(text: str, number: int, vocabulary: Vocabulary) -> tuple[UserNetdev, DeviceOption] | None:
    """``-nic user[,model=CARD][,mac=ADDRESS]`` and what ``-netdev user`` takes; None for ``-nic none``.

    ``number`` is of this option, for the network's name.  Raises UserError.
    """
    if text == "none":
        return None
    value = OptionValue("-nic", text, known=None, implied="type")
    cards = [card for card in CARDS if card in vocabulary.devices]
    model = value.text_of("model") or cards[0]
    if model in ("virtio", "virtio-net"):
        model = cards[0]
    if model not in cards:
        value.fail(f"Unsupported NIC model: {model}{hint(model, cards)} (this machine has {', '.join(cards)})")
    identifier = value.identifier() or f"nic{number}"
    rest = [(key, given) for key, given in value.pairs if key not in _CARD_KEYS]
    try:
        netdev = parse_netdev(
            ",".join(f"{key}={given.replace(',', ',,')}" for key, given in (*rest, ("id", identifier)))
        )
    except UserError as error:
        raise UserError(f"-nic {text}: {str(error).partition(': ')[2]}") from error
    kept = tuple((key, value.needed(key)) for key in ("mac", "addr") if key in value)
    return netdev, DeviceOption(model, None, (("netdev", identifier), *kept))


class Hub:
    """``-net nic`` and ``-net user``, QEMU's older words for a card and a network: here one of each at most."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}

    def take(self, text: str) -> None:
        """Raises UserError."""
        kind, _, rest = text.partition(",")
        if kind == "none":
            return
        if kind not in ("nic", "user"):
            raise UserError(f"-net {text}: this version takes -net none, -net user and -net nic")
        if kind in self._given:
            raise UserError(f"-net {text}: there is one -net {kind} already: use -nic user for a network and card more")
        self._given[kind] = rest

    def parts(self, number: int, vocabulary: Vocabulary) -> tuple[list[UserNetdev], list[DeviceOption]]:
        """Both connected, or what there is.  Raises UserError."""
        if not self._given:
            return [], []
        card = ",".join(
            f"mac={part.partition('=')[2]}" if part.startswith("macaddr=") else part
            for part in self._given.get("nic", "").split(",")
        )
        found = parse_nic(",".join(filter(None, ("user", self._given.get("user"), card))), number, vocabulary)
        assert found is not None, "this is not -nic none"
        netdev, device = found
        if "user" not in self._given:
            return [], [replace(device, properties=device.properties[1:])]
        return [netdev], [device] if "nic" in self._given else []
