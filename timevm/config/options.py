"""Options one by one, and all of them together → ``Config``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from timevm.config import chardevs, checks, help, machine_options, networks
from timevm.config.architectures import Vocabulary
from timevm.config.keyvalue import OptionValue, hint, parse_number
from timevm.config.model import Chardev, Config, Monitor, MonitorMode, Stdio, UserNetdev
from timevm.config.table import EMPTY_LOG_ITEMS, LOG_ITEMS, SILENT_LOG_ITEMS
from timevm.engine.machine.spec import Blockdev, DeviceOption, Drive, Loader, LoaderData, MachineSpec, ObjectOption
from timevm.errors import UserError

#: where the defaults are written down
_MACHINE = MachineSpec()
_CONFIG = Config("timevm", _MACHINE)


class CommandLine:
    """What has been read so far.  ``information``: a text that was asked for instead of a machine."""

    def __init__(self, program: str, vocabulary: Vocabulary) -> None:
        self.program = program
        self.vocabulary = vocabulary
        self.information: str | None = None
        self.machine: str | None = None
        self.cpu = vocabulary.processors[0]
        self.ram_bytes: int | None = None
        self.icount = machine_options.Icount()
        self.rtc_base: int | None = None
        self.seed: int | None = None
        self.texts: dict[str, str] = {}
        self.flags: set[str] = set()
        self.loaders: list[Loader | LoaderData] = []
        self.drives: list[Drive] = []
        self.blockdevs: list[Blockdev] = []
        self.machine_properties: dict[str, str] = {}
        self.devices: list[DeviceOption] = []
        self.objects: list[ObjectOption] = []
        self.chardevs: list[Chardev] = []
        self.netdevs: list[UserNetdev] = []
        self.hub = networks.Hub()
        self.serial: list[str | None] = []
        self.monitors: list[tuple[str, Monitor]] = []
        self.compat_monitors = 0
        self.gdb: str | None = None
        self.default_serial = self.default_monitor = True
        self.no_reboot = self.no_shutdown = False
        self.name: str | None = None
        self.prompt = _CONFIG.prompt
        self.dump_device_tree: Path | None = None
        self.log_items: list[str] = []
        self.escape = _CONFIG.escape

    # -- one option at a time

    def take(self, name: str, text: str) -> None:
        handler = self._HANDLERS.get(name)
        if handler is not None:
            handler(self, text)
        elif name in self._TEXTS:
            if "\0" in text or (not text and name != "append"):
                raise UserError(f"-{name} {text}: {text!r} is not a name of a file or snapshot")
            self.texts[name] = text
        else:
            self.flags.add(name)

    def take_short_drive(self, name: str, text: str) -> None:
        """``-hda FILE`` and its like."""
        where = machine_options.SHORT_DRIVES[name]
        self.drives.append(machine_options.parse_drive(f"file={text.replace(',', ',,')},{where}", self.vocabulary))

    _TEXTS = frozenset({"kernel", "initrd", "append", "dtb", "bios", "pidfile", "D", "loadvm", "uuid"})

    def _machine(self, text: str) -> None:
        if text in ("help", "?"):
            self.information = help.machines(self.vocabulary)
            return
        self.machine, prompt, dump = machine_options.parse_machine(text, self.vocabulary)
        self.prompt = prompt or self.prompt
        self.dump_device_tree = dump or self.dump_device_tree

    def _cpu(self, text: str) -> None:
        if text in ("help", "?"):
            self.information = help.processors(self.vocabulary)
        else:
            self.cpu = machine_options.parse_cpu(text, self.vocabulary)

    def _memory(self, text: str) -> None:
        self.ram_bytes = machine_options.parse_memory(text, self.vocabulary)

    def _smp(self, text: str) -> None:
        machine_options.check_smp(text)

    def _accelerator(self, text: str) -> None:
        machine_options.check_accelerator(text)

    def _icount(self, text: str) -> None:
        self.icount = machine_options.parse_icount(text)

    def _rtc(self, text: str) -> None:
        self.rtc_base = machine_options.parse_rtc(text)

    def _seed(self, text: str) -> None:
        seed = parse_number(text)
        if seed is None or not 0 <= seed < 1 << 64:
            raise UserError(f"-seed {text}: Invalid seed number: {text}")
        self.seed = seed

    def _name(self, text: str) -> None:
        value = OptionValue("-name", text, known=("guest", "process", "debug-threads"), implied="guest")
        value.switch("debug-threads", False)
        self.name = value.text_of("guest")

    def _device(self, text: str) -> None:
        if text in ("help", "?"):
            self.information = "\n".join(f'name "{name}"' for name in self.vocabulary.devices)
            return
        device = machine_options.parse_device(text, self.vocabulary)
        if isinstance(device, DeviceOption):
            self.devices.append(device)
        else:
            self.loaders.append(device)

    def _drive(self, text: str) -> None:
        self.drives.append(machine_options.parse_drive(text, self.vocabulary))

    def _global(self, text: str) -> None:
        self.machine_properties = dict(machine_options.parse_global(text))

    def _blockdev(self, text: str) -> None:
        self.blockdevs.append(machine_options.parse_blockdev(text))

    def _object(self, text: str) -> None:
        if text in ("help", "?"):
            self.information = help.objects()
            return
        self.objects.append(machine_options.parse_object(text))

    def _netdev(self, text: str) -> None:
        if text in ("help", "?"):
            self.information = "Available netdev backend types:\nuser"
            return
        self.netdevs.append(networks.parse_netdev(text))

    def _net(self, text: str) -> None:
        self.hub.take(text)

    def _nic(self, text: str) -> None:
        found = networks.parse_nic(text, len(self.netdevs), self.vocabulary)
        if found is not None:
            self.netdevs.append(found[0])
            self.devices.append(found[1])

    def _display(self, text: str) -> None:
        if text != "none":
            raise UserError(f"-display {text}: there is no graphics: use -display none or -nographic")
        self.flags.add("display")

    def _vga(self, text: str) -> None:
        if text != "none":
            raise UserError(f"-vga {text}: there is no graphics: use -vga none or leave it out")

    def _add_chardev(self, chardev: Chardev) -> None:
        if any(known.identifier == chardev.identifier for known in self.chardevs):
            raise UserError(f"{chardev.option}: Duplicate ID '{chardev.identifier}' for chardev")
        self.chardevs.append(chardev)

    def _chardev(self, text: str) -> None:
        if text in ("help", "?"):
            self.information = "Available chardev backend types:\n" + "\n".join(
                f"  {name}" for name in chardevs.BACKENDS
            )
        else:
            self._add_chardev(chardevs.parse_chardev(text))

    def _short(self, option: str, text: str, identifier: str) -> str | None:
        """Id of the chardev that a short form names or makes."""
        chardev = chardevs.parse_short(option, text, identifier)
        if isinstance(chardev, Chardev):
            self._add_chardev(chardev)
            if chardev.mux and option != "-monitor":
                self.default_monitor = False
                self.monitors.append((f"{option} {text}", Monitor(identifier, MonitorMode.READLINE)))
            return chardev.identifier
        return chardev

    def _serial(self, text: str) -> None:
        self.default_serial = False
        self.serial.append(self._short("-serial", text, f"serial{len(self.serial)}"))

    def _monitor(self, text: str) -> None:
        self.default_monitor = False
        self._add_monitor("-monitor", text, Monitor("", MonitorMode.READLINE))

    def _qmp(self, text: str) -> None:
        self.default_monitor = False
        self._add_monitor("-qmp", text, Monitor("", MonitorMode.CONTROL))

    def _qmp_pretty(self, text: str) -> None:
        self.default_monitor = False
        self._add_monitor("-qmp-pretty", text, Monitor("", MonitorMode.CONTROL, pretty=True))

    def _add_monitor(self, option: str, text: str, monitor: Monitor) -> None:
        identifier = self._short(option, text.removeprefix("mon:"), f"compat_monitor{self.compat_monitors}")
        self.compat_monitors += 1
        if identifier is not None:
            self.monitors.append((f"{option} {text}", Monitor(identifier, monitor.mode, monitor.pretty)))

    def _mon(self, text: str) -> None:
        self.default_monitor = False
        value = OptionValue("-mon", text, known=("chardev", "mode", "pretty", "id"), implied="chardev")
        mode = MonitorMode(value.choice("mode", ("readline", "control"), "readline"))
        pretty = value.switch("pretty", False)
        if pretty and mode is MonitorMode.READLINE:
            value.fail("'pretty' is not compatible with HMP monitors")
        self.monitors.append((f"-mon {text}", Monitor(value.needed("chardev"), mode, pretty)))

    def _gdb(self, text: str, option: str = "-gdb") -> None:
        shown = f"{option} {text}"
        if self.gdb is not None:
            raise UserError(f"{shown}: gdb has one endpoint; several debuggers can use it one after another")
        chardev = chardevs.gdb_chardev(option, text, "gdb")
        if isinstance(chardev, Chardev):
            self._add_chardev(chardev)
            chardev = chardev.identifier
        self.gdb = chardev

    def _gdb_short(self, text: str) -> None:
        self._gdb("tcp::1234", "-s")

    def _action(self, text: str) -> None:
        value = OptionValue("-action", text, known=("reboot", "shutdown", "panic", "watchdog"))
        for key in ("panic", "watchdog"):
            if key in value:
                value.fail(f"'{key}' is known, but not part of this version")
        if "reboot" in value:
            self.no_reboot = value.choice("reboot", ("reset", "shutdown"), "reset") == "shutdown"
        if "shutdown" in value:
            self.no_shutdown = value.choice("shutdown", ("poweroff", "pause"), "poweroff") == "pause"

    def _no_reboot(self, text: str) -> None:
        self.no_reboot = True

    def _no_shutdown(self, text: str) -> None:
        self.no_shutdown = True

    def _log(self, text: str) -> None:
        if text in ("help", "?"):
            self.information = help.log_items()
            return
        known = (*LOG_ITEMS, *EMPTY_LOG_ITEMS)
        for item in filter(None, text.split(",")):
            if item not in known and not item.startswith("trace:"):
                raise UserError(f"-d {text}: unknown log item '{item}'{hint(item, known)}\n{help.log_items()}")
            self.log_items.append(item)

    def _escape(self, text: str) -> None:
        code = parse_number(text)
        if code is None or not 0 <= code <= 255:
            raise UserError(f"-echr {text}: give the code of a key, 0 to 255 (1 is Ctrl-A)")
        self.escape = code

    def _help(self, text: str) -> None:
        self.information = help.usage(self.program, self.vocabulary)

    def _version(self, text: str) -> None:
        self.information = help.version(self.program)

    _HANDLERS: dict[str, Callable[[CommandLine, str], None]] = {  # noqa: RUF012  (a table, never written)
        "M": _machine,
        "cpu": _cpu,
        "m": _memory,
        "smp": _smp,
        "accel": _accelerator,
        "icount": _icount,
        "rtc": _rtc,
        "seed": _seed,
        "name": _name,
        "device": _device,
        "drive": _drive,
        "blockdev": _blockdev,
        "object": _object,
        "global": _global,
        "netdev": _netdev,
        "net": _net,
        "nic": _nic,
        "display": _display,
        "vga": _vga,
        "chardev": _chardev,
        "serial": _serial,
        "monitor": _monitor,
        "qmp": _qmp,
        "qmp-pretty": _qmp_pretty,
        "mon": _mon,
        "gdb": _gdb,
        "s": _gdb_short,
        "action": _action,
        "no-reboot": _no_reboot,
        "no-shutdown": _no_shutdown,
        "d": _log,
        "echr": _escape,
        "h": _help,
        "version": _version,
    }

    # -- all of them together

    def finish(self) -> Config:
        machine = self.machine or self.vocabulary.default_machine
        if machine is None:
            raise UserError(machine_options.NO_MACHINE)
        if self.icount.mode != "none" and not self.icount.enabled:
            raise UserError("Please enable icount to use record/replay")
        for needing in ("append", "initrd"):
            if needing in self.texts and "kernel" not in self.texts:
                raise UserError(f"-{needing} only allowed with -kernel option")
        checks.check_block_graph(self.drives, self.blockdevs, self.devices, self.objects)
        netdevs, cards = self.hub.parts(len(self.netdevs), self.vocabulary)
        self.netdevs += netdevs
        self.devices += cards
        checks.check_networks([netdev.identifier for netdev in self.netdevs], self.devices, self.objects)
        self._default_front_ends()
        checks.check_chardevs(self.chardevs, self.serial, self.monitors, self.gdb, self.vocabulary.most_serial_ports)
        return Config(
            program=self.program,
            machine=self._spec(machine),
            chardevs=tuple(self.chardevs),
            netdevs=tuple(self.netdevs),
            serial=tuple(self.serial),
            monitors=tuple(monitor for _, monitor in self.monitors),
            gdb=self.gdb,
            start_paused="S" in self.flags,
            no_shutdown=self.no_shutdown,
            loadvm=self.texts.get("loadvm"),
            name=self.name,
            uuid=checks.uuid_of(self.texts.get("uuid")),
            pidfile=self._path("pidfile"),
            log_file=self._path("D"),
            log_items=frozenset(self.log_items) & LOG_ITEMS.keys(),
            unlogged_items=tuple(item for item in self.log_items if item not in {*LOG_ITEMS, *SILENT_LOG_ITEMS}),
            prompt=self.prompt,
            dump_device_tree=self.dump_device_tree,
            escape=self.escape,
        )

    def _path(self, name: str) -> Path | None:
        return Path(self.texts[name]) if name in self.texts else None

    def _spec(self, machine: str) -> MachineSpec:
        firmware = self.vocabulary.firmware_words.get(self.texts.get("bios", ""))
        return MachineSpec(
            architecture=self.vocabulary.architecture,
            machine=machine,
            cpu=self.cpu,
            ram_bytes=self.ram_bytes or _MACHINE.ram_bytes,
            kernel=self._path("kernel"),
            initrd=self._path("initrd"),
            dtb=self._path("dtb"),
            bios=self._path("bios") if firmware is None else None,
            append=self.texts.get("append", ""),
            loaders=tuple(self.loaders),
            shift=self.icount.shift,
            sleep=self.icount.sleep,
            rtc_base=self.rtc_base,
            serial_ports=max(1, len(self.serial)),
            mode=self.icount.mode,
            rrfile=self.icount.rrfile,
            rrsnapshot=self.icount.rrsnapshot,
            rrinterval=self.icount.rrinterval,
            rrmem=self.icount.rrmem,
            seed=self.seed,
            no_reboot=self.no_reboot,
            drives=tuple(self.drives),
            blockdevs=tuple(self.blockdevs),
            machine_properties=(*self.machine_properties.items(), *(firmware or ())),
            devices=tuple(self.devices),
            objects=tuple(self.objects),
            name=self.name,
        )

    def _default_front_ends(self) -> None:
        """What nobody asked for: as QEMU's ``-nographic``, also without a word about displays, as there is no other."""
        if "nodefaults" in self.flags or not (self.default_serial or self.default_monitor):
            return
        if "display" in self.flags and "nographic" not in self.flags:
            return
        if self.default_serial and self.default_monitor:
            self._serial("mon:stdio")
        elif self.default_serial and not self._stdio_taken():
            self._serial("stdio")
        elif self.default_monitor and "nographic" in self.flags and not self._stdio_taken():
            self._monitor("stdio")

    def _stdio_taken(self) -> bool:
        return any(isinstance(chardev.backend, Stdio) for chardev in self.chardevs)
