"""``-netdev user`` as plain data."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timevm.config import Config, parse_command_line
from timevm.config.model import UserNetdev
from timevm.config.networks import parse_netdev
from timevm.engine.machine.spec import DeviceOption
from timevm.errors import UserError
from timevm.network.settings import BadSetting, Forward, UserSettings


def test_what_qemus_defaults_are() -> None:
    assert parse_netdev("user,id=n0") == UserNetdev("n0", UserSettings())
    assert str(UserSettings().network) == "10.0.2.0/24"
    assert [str(each) for each in (UserSettings().host, UserSettings().nameserver, UserSettings().first_guest)] == [
        "10.0.2.2",
        "10.0.2.3",
        "10.0.2.15",
    ]


def test_everything_that_can_be_said() -> None:
    netdev = parse_netdev(
        "user,id=n,net=192.168.7.0/24,host=192.168.7.9,dhcpstart=192.168.7.40,restrict=on,hostname=box,"
        "dnssearch=a.example,dnssearch=b.example,hostfwd=tcp::2222-:22,hostfwd=udp:0.0.0.0:53-192.168.7.41:5353,"
        "domainname=example"
    )
    assert netdev.settings == UserSettings(
        IPv4Network("192.168.7.0/24"),
        IPv4Address("192.168.7.9"),
        IPv4Address("192.168.7.3"),
        IPv4Address("192.168.7.40"),
        restricted=True,
        forwards=(
            Forward("tcp", "127.0.0.1", 2222, None, 22, "tcp::2222-:22"),
            Forward("udp", "0.0.0.0", 53, IPv4Address("192.168.7.41"), 5353, "udp:0.0.0.0:53-192.168.7.41:5353"),
        ),
        host_name="box",
        domain_name="example",
        search=("a.example", "b.example"),
    )
    assert str(parse_netdev("user,id=n,net=172.16.0.0").settings.network) == "172.16.0.0/16"


def test_a_whole_command_line() -> None:
    line = (
        "-M virt -netdev user,id=n0 -device virtio-net-device,netdev=n0,mac=52:54:00:00:00:01 "
        "-object filter-replay,id=fr,netdev=n0 -nic none -net none"
    )
    config = parse_command_line("timevm-system-aarch64", line.split())
    assert isinstance(config, Config)
    assert [netdev.identifier for netdev in config.netdevs] == ["n0"]
    assert [device.driver for device in config.machine.devices] == ["virtio-net-device"]


def test_a_network_with_its_card_in_one_option() -> None:
    config = parse_command_line(
        "timevm",
        ["-nic", "user,model=rtl8139,mac=52:54:00:00:00:07,hostfwd=tcp::1-:2,hostfwd=tcp::3-:4", "-nic", "user"],
        "x86_64",
    )
    assert isinstance(config, Config)
    first, second = config.machine.devices
    assert (first.driver, first.properties) == ("rtl8139", (("netdev", "nic0"), ("mac", "52:54:00:00:00:07")))
    assert (second.driver, second.properties) == ("virtio-net-pci", (("netdev", "nic1"),))
    assert [netdev.identifier for netdev in config.netdevs] == ["nic0", "nic1"]
    assert [rule.text for rule in config.netdevs[0].settings.forwards] == ["tcp::1-:2", "tcp::3-:4"]
    config = parse_command_line("timevm", ["-M", "virt", "-nic", "user,id=mine,model=virtio"])
    assert isinstance(config, Config)
    assert config.machine.devices == (DeviceOption("virtio-net-device", None, (("netdev", "mine"),)),)


@pytest.mark.parametrize(
    ("line", "cards", "networks"),
    [
        (
            "-net nic,model=rtl8139,macaddr=52:54:00:00:00:09 -net user,hostfwd=tcp::1-:2",
            "rtl8139 nic0 52:54:00:00:00:09",
            1,
        ),
        ("-net user -net nic", "virtio-net-pci nic0 None", 1),
        ("-net nic", "virtio-net-pci None None", 0),
        ("-net user", "", 1),
        ("-net none", "", 0),
    ],
)
def test_the_older_words(line: str, cards: str, networks: int) -> None:
    config = parse_command_line("timevm", line.split(), "x86_64")
    assert isinstance(config, Config) and len(config.netdevs) == networks
    shown = [
        f"{device.driver} {dict(device.properties).get('netdev')} {dict(device.properties).get('mac')}"
        for device in config.machine.devices
    ]
    assert shown == ([cards] if cards else [])


@given(st.text(alphabet="tcpud:-.0123456789x/ ", max_size=40))
def test_any_rule_is_taken_or_refused_in_words(text: str) -> None:
    try:
        rule = Forward.parse(text)
    except BadSetting as why:
        assert str(why).startswith("Invalid host forwarding rule")
    else:
        assert 0 <= rule.port < 65536 and 0 < rule.guest_port < 65536


@given(st.lists(st.sampled_from(["net=", "10.0.2.0", "/24", "host=", ",", "id=a", "dns=", "255.0.0.0", "/", "x"])))
def test_any_option_is_taken_or_refused_in_words(parts: list[str]) -> None:
    try:
        parse_netdev("user,id=n," + "".join(parts))
    except UserError as why:
        assert str(why)


@pytest.mark.parametrize(
    ("net", "words"),
    [
        ("10.0.2.0/30", "too small"),
        ("10.0.2.0/x", "Failed to parse netmask"),
        ("ten", "Failed to parse net"),
        ("10.0.2.0/24,dns=10.0.2.2", "DNS must be different"),
    ],
)
def test_networks_that_cannot_be(net: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        parse_netdev(f"user,id=n,net={net}")
