"""Command lines as plain data; refusals in QEMU's words; garbage."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timevm.config import Chardev, Config, Information, Monitor, MonitorMode, parse_command_line
from timevm.config.architectures import VOCABULARIES
from timevm.config.keyvalue import parse_number, parse_size, split_parts
from timevm.config.model import File, Null, Pipe, Pty, Ringbuf, Socket, Stdio
from timevm.config.table import ABSENT, BY_NAME
from timevm.engine.machine.spec import GIB, MIB, Blockdev, DeviceOption, Drive, Loader, LoaderData, ObjectOption
from timevm.errors import UserError


def parsed(line: str, architecture: str = "aarch64") -> Config:
    config = parse_command_line("timevm", line.split(), architecture)
    assert isinstance(config, Config)
    return config


def refusal(line: str, architecture: str = "aarch64") -> str:
    with pytest.raises(UserError) as caught:
        parse_command_line("timevm", line.split(), architecture)
    return str(caught.value)


def test_a_whole_command_line() -> None:
    config = parsed(
        "-M virt,gic-version=2 -cpu cortex-a72 -m 1G -smp 1 -kernel Image --initrd i.gz -append console=ttyAMA0 "
        "-icount shift=7,rr=record,rrfile=f,rrsnapshot=s,rrinterval=100Mi,rrmem=1G -rtc base=2020-01-02 -name fred "
        "-nographic -no-reboot -seed 5 -net none -nic none -vga none -pidfile p -D log -d int,unimp,cpu_reset -S -s "
        "-loadvm tag -no-shutdown -accel tcg -echr 0x14 -nodefaults"
    )
    spec = config.machine
    assert (spec.machine, spec.cpu, spec.ram_bytes, spec.append) == ("virt", "cortex-a72", GIB, "console=ttyAMA0")
    assert (spec.kernel, spec.initrd, spec.shift, spec.mode) == (Path("Image"), Path("i.gz"), 7, "record")
    assert (spec.rrfile, spec.rrsnapshot, spec.rrmem, spec.seed) == (Path("f"), "s", GIB, 5)
    assert spec.rrinterval is not None and spec.rrinterval.instructions == 100_000_000
    assert spec.rtc_base == 1577923200 and spec.no_reboot
    assert (config.name, config.pidfile, config.log_file) == ("fred", Path("p"), Path("log"))
    assert config.log_items == {"cpu_reset"} and config.start_paused and config.no_shutdown
    assert (config.loadvm, config.escape, config.gdb, config.serial) == ("tag", 0x14, "gdb", ())
    assert config.chardev("gdb").backend == Socket(port="1234", server=True, wait=False)


def test_the_interface_of_virtio_mmio() -> None:
    for text, properties in (("off", (("virtio-mmio.force-legacy", "off"),)), ("on", ()), ("yes", ())):
        assert parsed(f"-M virt -global virtio-mmio.force-legacy={text}").machine.machine_properties == properties
    assert "expects 'on' or 'off'" in refusal("-M virt -global virtio-mmio.force-legacy=perhaps")
    assert "'virtio-mmio.forcelegacy' is not part of this version" in refusal("-global virtio-mmio.forcelegacy=on")
    assert "write DRIVER.PROPERTY=VALUE" in refusal("-M virt -global nonsense")


@pytest.mark.parametrize(
    ("line", "backend"),
    [
        ("-serial stdio", Stdio(signal=True)),
        ("-serial mon:stdio", Stdio(signal=False)),
        ("-serial null", Null()),
        ("-serial pty", Pty()),
        ("-serial file:out,put", File(Path("out,put"))),
        ("-serial pipe:p", Pipe(Path("p"))),
        ("-serial unix:s", Socket(path=Path("s"))),
        ("-serial unix:s,server", Socket(path=Path("s"), server=True, wait=True)),
        ("-serial unix:s,server,nowait", Socket(path=Path("s"), server=True)),
        ("-serial unix:s,server=on,wait=off", Socket(path=Path("s"), server=True)),
        ("-serial tcp::4444,server,nowait", Socket(port="4444", server=True)),
        ("-serial tcp:[::1]:4444", Socket(host="::1", port="4444")),
        ("-serial telnet:localhost:23,server,nowait", Socket(host="localhost", port="23", server=True, telnet=True)),
        ("-chardev socket,id=a,fd=5,server=on,wait=off -serial chardev:a", Socket(fd=5, server=True)),
        ("-chardev ringbuf,id=a,size=4096 -serial chardev:a", Ringbuf(4096)),
        ("-chardev file,id=a,path=f,append=on,input-path=i -serial chardev:a", File(Path("f"), True, Path("i"))),
        ("-chardev pty,id=a,path=l -serial chardev:a", Pty(Path("l"))),
        ("-chardev socket,id=a,path=s,reconnect=3 -serial chardev:a", Socket(path=Path("s"), reconnect=3)),
    ],
)
def test_character_devices(line: str, backend: object) -> None:
    config = parsed(f"-M virt -nodefaults {line}")
    assert config.serial[0] is not None
    assert config.chardev(config.serial[0]).backend == backend


def test_monitors() -> None:
    config = parsed(
        "-M virt -nodefaults -qmp unix:q,server,nowait -monitor telnet::5555,server,nowait -qmp-pretty stdio "
        "-chardev socket,id=c,path=m,server=on,wait=off -mon chardev=c,mode=control,pretty=on"
    )
    assert config.monitors == (
        Monitor("compat_monitor0", MonitorMode.CONTROL),
        Monitor("compat_monitor1", MonitorMode.READLINE),
        Monitor("compat_monitor2", MonitorMode.CONTROL, pretty=True),
        Monitor("c", MonitorMode.CONTROL, pretty=True),
    )
    assert config.has_control and not parsed("-M virt -nodefaults -serial stdio").has_control


def test_what_nobody_asked_for() -> None:
    nothing = parsed("-M virt")
    assert [chardev.identifier for chardev in nothing.chardevs] == ["serial0"] and nothing.chardevs[0].mux
    assert nothing.monitors == (Monitor("serial0", MonitorMode.READLINE),)
    assert parsed("-M virt -display none").chardevs == ()
    assert parsed("-M virt -serial stdio -nographic").monitors == ()
    assert parsed("-M virt -nographic -serial null").monitors == (Monitor("compat_monitor0", MonitorMode.READLINE),)


def test_disks_and_devices() -> None:
    config = parsed(
        "-M virt -drive file=d.qcow2,if=none,id=d,snapshot=on,readonly=on,cache=none "
        "-drive driver=blkreplay,if=none,image=d,id=dr -device virtio-blk-device,drive=dr,id=v "
        "-blockdev driver=file,node-name=f,filename=x -object rng-builtin,id=r -device virtio-rng-device,rng=r "
        "-device loader,file=a,addr=0x40000000,force-raw=on -device loader,addr=16,data=258,data-len=2,data-be=on "
        "-device loader,file=b,cpu-num=0 -device loader,addr=0x40,cpu-num=0"
    )
    spec = config.machine
    assert spec.drives == (
        Drive("d", Path("d.qcow2"), None, "none", True, True, properties=(("cache", "none"),)),
        Drive("dr", driver="blkreplay", image="d"),
    )
    assert spec.blockdevs == (Blockdev("file", "f", (("filename", "x"),)),)
    assert spec.devices == (
        DeviceOption("virtio-blk-device", "v", (("drive", "dr"),)),
        DeviceOption("virtio-rng-device", None, (("rng", "r"),)),
    )
    assert spec.objects == (ObjectOption("rng-builtin", "r"),)
    assert spec.loaders == (
        Loader(Path("a"), 0x40000000, raw=True),
        LoaderData(b"\x01\x02", 16),
        Loader(Path("b"), sets_pc=True),
        LoaderData(b"", 0x40, sets_pc=True),
    )


def test_a_pc_has_acpi() -> None:
    assert parsed("-M pc,acpi=on", "x86_64").machine.machine == "pc"
    assert parsed("-M virt,acpi=off").machine.machine == "virt"
    with pytest.raises(UserError, match="'acpi=off' is not part of this version: it takes on"):
        parsed("-M pc,acpi=off", "x86_64")


@pytest.mark.parametrize("architecture", ["x86_64", "i386"])
def test_a_pc(architecture: str) -> None:
    config = parsed(
        "-m 512 -drive file=d,format=raw -drive file=e,if=none,id=e -device ide-hd,drive=e -serial null -serial null",
        architecture,
    )
    spec = config.machine
    assert (spec.architecture, spec.machine, spec.ram_bytes) == (architecture, "pc", 512 * MIB)
    assert spec.cpu == {"x86_64": "qemu64", "i386": "qemu32"}[architecture]
    assert (spec.drives[0].interface, spec.drives[1].interface, spec.serial_ports) == ("ide", "none", 2)
    assert parsed("-M pc-i440fx-7.2,hpet=off -device virtio-blk-pci,drive=a -drive file=f,id=a,if=none", architecture)
    assert "needs KVM" in refusal("-cpu host", architecture)
    assert "a PC has no virtio-mmio bus" in refusal("-device virtio-blk-device,drive=x", architecture)
    assert "unsupported machine type 'q35'" in refusal("-M q35", architecture)
    hda, cdrom = parsed("-hda x,y -cdrom z", architecture).machine.drives
    assert (hda.file, hda.interface, hda.properties) == (Path("x,y"), "ide", (("index", "0"),))
    assert (cdrom.file, cdrom.readonly, cdrom.properties) == (Path("z"), True, (("index", "2"), ("media", "cdrom")))
    assert "takes 16M to 3584M" in refusal("-m 4G", architecture)
    help_text = parse_command_line("timevm", ["-h"], architecture)
    assert isinstance(help_text, Information) and "ttyS0" in help_text.text


@pytest.mark.parametrize("option", ["-h", "--help", "-version", "-M help", "-cpu help", "-device help", "-d help",
                                    "-chardev help", "-object help"])  # fmt: skip
def test_information(option: str) -> None:
    found = parse_command_line("timevm", option.split())
    assert isinstance(found, Information) and len(found.text) > 40


def test_every_option_is_in_the_help() -> None:
    found = parse_command_line("timevm", ["-h"])
    assert isinstance(found, Information)
    for name in BY_NAME:
        assert f"-{name}" in found.text


#: command line → a piece of the refusal
REFUSALS = [
    ("", "No machine specified, and there is no default\nUse -machine help to list supported machines"),
    ("-M foo", "unsupported machine type 'foo'"),
    ("-M virtt", "unsupported machine type 'virtt' (did you mean 'virt'?)"),
    ("-M virt,gic-version=3", "-machine virt,gic-version=3: 'gic-version=3' is not part of this version: it takes 2"),
    ("-M virt,bogus=1", "Property 'virt-machine.bogus' not found"),
    ("-M virt -frobnicate", "-frobnicate: invalid option"),
    ("-M virt -kernal x", "-kernal: invalid option (did you mean 'kernel'?)"),
    ("-M virt -kernel", "-kernel: requires an argument"),
    ("-M virt disk.img", "a disk image alone is not taken"),
    ("-M virt -cpu z80", "unable to find CPU model 'z80'"),
    ("-M virt -m 1", "takes 16M to 4096M of RAM"),
    ("-M virt -m lots", "Parameter 'size' expects a non-negative number below 2^64"),
    ("-M virt -smp 2", "timevm has one processor"),
    ("-M virt -accel kvm", "which kvm cannot"),
    ("-M virt -enable-kvm", "-enable-kvm: QEMU's option -enable-kvm is known, but not done"),
    ("-M virt -no-acpi", "a Linux kernel leaves it alone with -append acpi=off"),
    ("-M virt -boot order=d", "-boot order=d: QEMU's option -boot is known, but not done: -kernel or -bios says what"),
    ("-M virt -device virtio-blk-pci,drive=d", "which this machine has not: use virtio-blk-device"),
    ("-M virt -device virtio-blk-device,help", "properties are not listed in this version"),
    ("-M virt -device virtio-rng-pci", "which this machine has not: use virtio-rng-device"),
    ("-M virt -device ide-hd,drive=d", "which this machine has not: disks are virtio-blk-device here"),
    ("-M virt -gdb 1234", "-gdb 1234: '1234' is not a valid char driver (did you mean 'tcp::1234'?)"),
    ("-M virt -gdb localhost:1234", "(did you mean 'tcp:localhost:1234'?)"),
    ("-M virt -monitor :55", "(did you mean 'tcp::55'?)"),
    ("-M virt -netdev tap,id=n", "'tap' is known, but not part of this version"),
    ("-M virt -netdev foo,id=a", "-netdev foo,id=a: Parameter 'type' does not accept value 'foo'"),
    ("-M virt -netdev user", "-netdev user: Parameter 'id' is missing"),
    ("-M virt -netdev user,id=a,foo=1", "Invalid parameter 'foo'"),
    ("-M virt -netdev user,id=a,smb=/", "'smb' is known, but not part of this version"),
    ("-M virt -netdev user,id=a,ipv6=on", "this network has IPv4 and nothing else"),
    ("-M virt -netdev user,id=a,restrict=maybe", "Parameter 'restrict' expects 'on' or 'off'"),
    ("-M virt -netdev user,id=a,net=10.0.0.0/40", "Invalid netmask provided (must be in range 4-32)"),
    ("-M virt -netdev user,id=a,net=10.0.0.0/24,host=10.0.1.2", "Host doesn't belong to network"),
    ("-M virt -netdev user,id=a,hostfwd=x", "Invalid host forwarding rule 'x' (No : separators)"),
    ("-M virt -netdev user,id=a,hostfwd=tcp::99999-:1", "rule 'tcp::99999-:1' (Bad host port)"),
    ("-M virt -netdev user,id=a,hostfwd=tcp::1-:x", "(Bad guest port)"),
    ("-M virt -netdev user,id=a,hostfwd=sctp::1-:1", "(Bad protocol name)"),
    ("-M virt -netdev user,id=a -netdev user,id=a", "Duplicate ID 'a' for netdev"),
    ("-M virt -device virtio-net-device,netdev=n", "Property 'virtio-net-device.netdev' can't find value 'n'"),
    (
        "-M virt -netdev user,id=a -device virtio-net-device,netdev=a -device virtio-net-device,netdev=a",
        "Property 'virtio-net-device.netdev' can't take value 'a', it's in use",
    ),
    ("-M virt -device rtl8139", "'rtl8139' is known, but this machine has another network card: use virtio-net-device"),
    ("-M virt -net tap", "-net tap: this version takes -net none, -net user and -net nic"),
    ("-M virt -net user -net user", "-net user: there is one -net user already"),
    ("-M virt -net nic,model=ne2k", "Unsupported NIC model: ne2k"),
    ("-M virt -nic user,model=e1000", "-nic user,model=e1000: Unsupported NIC model: e1000 (this machine has "),
    ("-M virt -nic tap", "-nic tap: 'tap' is known, but not part of this version"),
    ("-M virt -nic user,hostfwd=x", "-nic user,hostfwd=x: Invalid host forwarding rule 'x'"),
    ("-M virt -device ide-hd,drive=d", "'ide-hd' is known, but it needs a PCI or USB bus"),
    ("-M virt -device virtio-blk-device", "drive property not set"),
    ("-M virt -device virtio-blk-device,drive=x", "Property 'virtio-blk-device.drive' can't find value 'x'"),
    ("-M virt -device virtio-blk", "'virtio-blk' is not a valid device model name (did you mean 'virtio-blk-device'?)"),
    ("-M virt -drive if=none", "a drive needs file=FILE"),
    ("-M virt -drive file=x,if=ide", "this machine has no 'ide' bus: use -drive file=F,if=none,id=d"),
    ("-M virt -drive driver=blkreplay,image=x", "Cannot find device='x' nor node-name='x'"),
    ("-M virt -drive file=a,id=d,if=none -drive file=b,id=d,if=none", "Duplicate ID 'd' for drive"),
    ("-M virt -drive file=x,format=vmdk", "Unknown driver 'vmdk'"),
    ("-M virt -object filter-replay,id=f,netdev=n", "Parameter 'netdev' expects a network backend id"),
    ("-M virt -object filter-replay,id=f", "Parameter 'netdev' is missing"),
    ("-M virt -icount shift=auto,rr=foo", "Invalid icount rr option: foo"),
    ("-M virt -icount shift=auto,rr=record", "File name not specified for replay"),
    ("-M virt -icount rr=record,rrfile=x", "Please enable icount to use record/replay"),
    ("-M virt -icount shift=11", "icount: Invalid shift value"),
    ("-M virt -icount shift=x", "icount: Invalid shift value"),
    ("-M virt -icount align=on", "Please specify shift option when using align"),
    ("-M virt -icount shift=1,align=on,sleep=off", "align=on and sleep=off are incompatible"),
    ("-M virt -icount shift=auto,align=on", "shift=auto and align=on are incompatible"),
    ("-M virt -icount shift=1,bogus=2", "Invalid parameter 'bogus'"),
    ("-M virt -icount shift=1,rr=record,rrfile=f,rrinterval=5x", "Invalid rrinterval '5x'"),
    ("-M virt -append x", "-append only allowed with -kernel option"),
    ("-M virt -initrd x", "-initrd only allowed with -kernel option"),
    ("-M virt -serial stdio -monitor stdio", "cannot use stdio by multiple character devices"),
    ("-M virt -serial chardev:nobody", 'chardev "nobody" not found'),
    ("-M virt -serial bogus", "'bogus' is not a valid char driver"),
    ("-M virt -serial null -serial null", "this machine has 1 serial port, 2 were asked for"),
    ("-M virt -chardev socket,id=a", "chardev: socket: give path=PATH, or host=HOST,port=PORT, or fd=NUMBER"),
    ("-M virt -chardev socket,path=x", "chardev: no id specified"),
    ("-M virt -chardev udp,id=a", "timevm has no 'udp' backend: datagrams are no byte stream"),
    ("-M virt -chardev null,id=a -chardev null,id=a", "Duplicate ID 'a' for chardev"),
    ("-M virt -chardev stdio,id=a -serial chardev:a -mon chardev=a", "give mux=on to its -chardev to share it"),
    ("-M virt -mon mode=control", "Parameter 'chardev' is missing"),
    ("-M virt -mon chardev=a,mode=x", "Parameter 'mode' does not accept value 'x'"),
    ("-M virt -rtc base=yesterday", "invalid datetime format"),
    ("-M virt -d bogus", "unknown log item 'bogus'"),
    ("-M virt -display gtk", "there is no graphics"),
    ("-M virt -vga std", "there is no graphics"),
    ("-M virt -s -gdb tcp::5", "gdb has one endpoint"),
    ("-M virt -hda disk.img", "use -drive file=F,if=none,id=d -device virtio-blk-device,drive=d"),
    ("-M virt -echr 300", "give the code of a key, 0 to 255"),
    ("-M virt -seed x", "Invalid seed number: x"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "piece"), REFUSALS, ids=[line or "nothing" for line, _ in REFUSALS])
def test_refusals(line: str, piece: str) -> None:
    assert piece in refusal(line)


def test_riscv64() -> None:
    machine = parsed("-M virt -kernel k", "riscv64").machine
    assert (machine.architecture, machine.machine, machine.cpu, machine.bios) == ("riscv64", "virt", "rv64", None)
    assert parsed("-M virt,aclint=off,aia=none -cpu sifive-u54", "riscv64").machine.cpu == "sifive-u54"
    assert "'aia=aplic' is not part of this version" in refusal("-M virt,aia=aplic", "riscv64")
    assert "No machine specified" in refusal("-kernel k", "riscv64")
    assert "unable to find CPU model 'cortex-a57'" in refusal("-M virt -cpu cortex-a57", "riscv64")
    assert "use virtio-net-device" in refusal("-M virt -device rtl8139", "riscv64")
    for text, name in (("-M help", "virt"), ("-cpu help", "rv64"), ("-h", "console=ttyS0")):
        found = parse_command_line("timevm", text.split(), "riscv64")
        assert isinstance(found, Information) and name in found.text


def test_words_in_place_of_a_firmware_file() -> None:
    for text, properties in (("none", (("firmware", "none"),)), ("default", ())):
        machine = parsed(f"-M virt -bios {text} -kernel k", "riscv64").machine
        assert (machine.bios, machine.machine_properties) == (None, properties)
    machine = parsed("-M virt -bios none -global virtio-mmio.force-legacy=off", "riscv64").machine
    assert machine.machine_properties == (("virtio-mmio.force-legacy", "off"), ("firmware", "none"))
    assert parsed("-M virt -bios fw.bin", "riscv64").machine.bios == Path("fw.bin")
    assert parsed("-bios none", "x86_64").machine.bios == Path("none")


@pytest.mark.parametrize("name", ABSENT)
def test_options_that_qemu_has_and_timevm_not_say_why(name: str) -> None:
    takes_value, _ = ABSENT[name]
    text = refusal(f"-M virt -{name}{' x' if takes_value else ''}")
    assert f"QEMU's option -{name} is known, but not done: " in text and "{" not in text


_WORDS = st.sampled_from(
    [f"-{name}" for name in BY_NAME] + ["virt", "id=a", "stdio", "mon:stdio", "shift=1,rr=record,rrfile=f", "512", "x"]
) | st.text(max_size=20)


@given(st.lists(_WORDS, max_size=8), st.sampled_from(sorted(VOCABULARIES)))
def test_garbage_is_refused_or_understood(words: list[str], architecture: str) -> None:
    try:
        parse_command_line("timevm", words, architecture)
    except UserError as refused:
        assert str(refused)


@given(st.sampled_from(sorted(BY_NAME)), st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_value_is_refused_or_understood(name: str, value: str) -> None:
    try:
        parse_command_line("timevm", ["-M", "virt", f"-{name}", value])
    except UserError as refused:
        assert str(refused)


def test_the_small_parts() -> None:
    assert split_parts("a,b,,c,") == ["a", "b,c", ""]
    assert [parse_number(text) for text in ("10", "0x1F", "010", "-5", "+3", "1x", "")] == [
        10,
        31,
        8,
        -5,
        3,
        None,
        None,
    ]
    assert [parse_size(text, "M") for text in ("1", "1k", "1.5G", "0x10", "1q")] == [
        MIB,
        1024,
        3 * GIB // 2,
        16 * MIB,
        None,
    ]
    assert isinstance(parsed("-M virt").chardevs[0], Chardev)
