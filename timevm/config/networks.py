"""``-netdev``, and the two ways to say that there is no network."""

from __future__ import annotations

from dataclasses import replace

from timevm.config.keyvalue import OptionValue, hint
from timevm.config.model import UserNetdev
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


def check_none(option: str, text: str) -> None:
    """``-net none`` and ``-nic none``.  Raises UserError for everything else."""
    if text != "none":
        raise UserError(
            f"{option} {text}: this version takes {option} none only: a network is -netdev user,id=n with a card "
            "-device virtio-net-device,netdev=n (virtio-net-pci on a PC)"
        )
