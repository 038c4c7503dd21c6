"""The vocabulary: every option of ``timevm-system-*``, and those of QEMU 7.2 that are known and not done here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """``argument`` is what the help shows for its value, empty if it takes none; ``aliases`` are other names."""

    name: str
    argument: str
    group: str
    help: str
    aliases: tuple[str, ...] = ()


MACHINE, BOOT, TIME, SERIAL, CONTROL, DISKS, RUN = (
    "Machine",
    "What to boot",
    "Record, replay, time",
    "Serial ports and character devices",
    "Monitors and debuggers",
    "Disks and devices",
    "Running and stopping",
)

OPTIONS: tuple[Option, ...] = (
    Option("M", "MACHINE[,prop=value…]", MACHINE, "the machine; -M help lists them", ("machine",)),
    Option("cpu", "MODEL", MACHINE, "the processor; -cpu help lists them"),
    Option("m", "[size=]SIZE", MACHINE, "RAM: 512 is MiB, or 512M, 1G (default 128M)"),
    Option("smp", "1", MACHINE, "one processor; record/replay knows no other number"),
    Option("accel", "tcg", MACHINE, "accepted for QEMU's command lines"),
    Option("rtc", "base=utc|localtime|DATE", MACHINE, "what the real-time clock shows at reset"),
    Option("seed", "NUMBER", MACHINE, "seed of the machine's random numbers (default: from the host, recorded)"),
    Option("no-hpet", "", MACHINE, "accepted for QEMU's command lines: there is no HPET"),
    Option("name", "[guest=]NAME", MACHINE, "the machine's name, for query-name and the console"),
    Option("uuid", "UUID", MACHINE, "the machine's UUID, for query-uuid; the guest does not see it"),
    Option("kernel", "FILE", BOOT, "Linux Image (flat or gzip), a PC's bzImage, an ELF file, or a flat binary"),
    Option("initrd", "FILE", BOOT, "initial ramdisk"),
    Option("append", "TEXT", BOOT, "the kernel's command line"),
    Option("dtb", "FILE", BOOT, "device tree, instead of the machine's own"),
    Option("bios", "FILE", BOOT, "firmware"),
    Option(
        "icount",
        "[shift=N|auto][,sleep=on|off][,align=off][,rr=record|replay,rrfile=F[,rrsnapshot=S][,rrinterval=N[k|M|G]i|Ns][,rrmem=SIZE]]",
        TIME,
        "count instructions; virtual time is icount << N ns; record into or replay from F, with a snapshot S at its "
        "start, others every N instructions or seconds, and SIZE of memory for automatic checkpoints",
    ),
    Option("loadvm", "TAG", TIME, "start from this snapshot"),
    Option(
        "serial",
        "DEV",
        SERIAL,
        "stdio, mon:stdio, null, none, pty, file:F, pipe:F, unix:PATH[,server=on][,wait=off], "
        "tcp:HOST:PORT[,…], telnet:HOST:PORT[,…], chardev:ID",
    ),
    Option(
        "chardev",
        "BACKEND,id=ID[,…]",
        SERIAL,
        "socket (path=, host=,port=, fd=, server=, wait=, telnet=, reconnect=), file (path=), stdio, pty, pipe, "
        "ringbuf (size=), null; mux=on shares it, logfile=F keeps a copy of the output",
    ),
    Option("echr", "CODE", SERIAL, "the key that starts commands of a shared terminal (default 1: Ctrl-A)"),
    Option("monitor", "DEV", CONTROL, "HMP, the monitor for people, on DEV"),
    Option("qmp", "DEV", CONTROL, "QMP, the monitor for programs, on DEV"),
    Option("qmp-pretty", "DEV", CONTROL, "the same with indented JSON"),
    Option("mon", "[chardev=]ID[,mode=readline|control]", CONTROL, "HMP (readline) or QMP (control) on a chardev"),
    Option("gdb", "DEV", CONTROL, "wait for gdb on DEV, e.g. tcp::1234"),
    Option("s", "", CONTROL, "short for -gdb tcp::1234"),
    Option("S", "", CONTROL, "do not start: wait for cont of a monitor or a debugger"),
    Option(
        "drive",
        "file=F,if=none|virtio|ide,id=ID[,format=qcow2|raw][,snapshot=on][,readonly=on]",
        DISKS,
        "a disk image (a PC also takes -hda F to -hdd F and -cdrom F); driver=blkreplay,if=none,image=ID,id=ID2 puts "
        "one behind record/replay",
    ),
    Option("blockdev", "driver=…,node-name=ID[,…]", DISKS, "a node of the block graph"),
    Option(
        "device",
        "DRIVER[,prop=value…]",
        DISKS,
        "loader,file=F[,addr=N]; a disk, a network card, a random number generator; -device help lists them",
    ),
    Option(
        "object",
        "rng-builtin|rng-random,id=ID",
        DISKS,
        "a source of random numbers for virtio-rng-device; filter-replay,id=ID,netdev=N is accepted: networks are "
        "always recorded",
    ),
    Option("global", "virtio-mmio.force-legacy=on|off", DISKS, "the interface of virtio-mmio devices"),
    Option(
        "netdev",
        "user,id=ID[,hostfwd=tcp|udp:[ADDR]:PORT-[ADDR]:PORT][,restrict=on][,net=…][,host=…][,dns=…][,dhcpstart=…]",
        DISKS,
        "a network of the host's own sockets, for the card with netdev=ID; forwarded ports are on 127.0.0.1 unless "
        "ADDR says otherwise",
    ),
    Option("net", "none|user[,…]|nic[,model=CARD][,macaddr=ADDRESS]", DISKS, "QEMU's older words for -nic"),
    Option("nic", "user[,model=CARD][,mac=ADDRESS][,…]|none", DISKS, "a network and its card in one, or none"),
    Option("nographic", "", RUN, "serial port and monitor on this terminal: -serial mon:stdio"),
    Option("display", "none", RUN, "accepted for QEMU's command lines: there is no graphics"),
    Option("vga", "none", RUN, "accepted for QEMU's command lines"),
    Option("nodefaults", "", RUN, "no serial port or monitor that was not asked for"),
    Option("no-user-config", "", RUN, "accepted for QEMU's command lines: there is no configuration file"),
    Option("no-reboot", "", RUN, "a reset by the guest ends the run"),
    Option("no-shutdown", "", RUN, "after power-off, pause instead of leaving"),
    Option("action", "reboot=reset|shutdown[,shutdown=poweroff|pause]", RUN, "the same two, in one option"),
    Option("pidfile", "FILE", RUN, "write the process id there"),
    Option("D", "FILE", RUN, "write the log there instead of to standard error"),
    Option("d", "ITEM[,…]", RUN, "log these; -d help lists them"),
    Option("h", "", RUN, "this text", ("help",)),
    Option("version", "", RUN, "the version"),
)

#: items of ``-d``
LOG_ITEMS: dict[str, str] = {
    "cpu_reset": "resets of the guest, with the instruction count",
    "trace:replay": "what comes to the guest from outside, with the instruction count, as it happens",
}
#: items of QEMU's ``-d`` that ask for nothing of their own
SILENT_LOG_ITEMS = frozenset(("nochain", "tid", "none"))
#: items of QEMU's ``-d`` that are accepted and log nothing here
EMPTY_LOG_ITEMS = SILENT_LOG_ITEMS | frozenset(
    ("guest_errors", "unimp", "int", "out_asm", "in_asm", "op", "op_opt", "op_ind", "exec", "cpu", "fpu", "mmu",
     "pcall", "page", "plugin", "strace", "vpu")
)  # fmt: skip

_SHARING = "network filters and file sharing are not part of this version"
_GRAPHICS = "there is no graphics, sound or keyboard: use the serial port"
_DRIVE = "use {disk}"
_NO_DEVICE = "this machine has no such device"
_CONFINE = "start timevm from a tool that confines it"
_NOT_NOW = "it is not part of this version"
#: reason -> options of QEMU 7.2 that take a value and are not part of timevm
_WITH_VALUE: dict[str, str] = {
    _SHARING: "netfilter tpmdev fsdev virtfs iscsi",
    _GRAPHICS: "spice vnc k rotate audiodev audio",
    _DRIVE: "hda hdb hdc hdd cdrom fda fdb sd mtdblock pflash",
    "migration is not part of timevm: copy the recording, it is the whole machine's history": "incoming",
    _NO_DEVICE: "parallel debugcon usbdevice option-rom smbios acpitable",
    _CONFINE: "sandbox chroot runas",
    "there is no Xen": "xen-domid",
    "-kernel or -bios says what starts; the PC's BIOS tries its disks, then its CDs": "boot",
    _NOT_NOW: "numa add-fd set mem-path compat fw_cfg overcommit dfilter watchdog watchdog-action "
    "semihosting-config readconfig trace plugin msg dump-vmstate L tb-size prom-env g",
}
#: the same for those without one
_WITHOUT_VALUE: dict[str, str] = {
    "timevm counts every instruction, which KVM cannot": "enable-kvm",
    "start it with setsid or a service manager; -pidfile works": "daemonize",
    "give snapshot=on to each -drive": "snapshot",
    _GRAPHICS: "full-screen portrait alt-grab ctrl-grab audio-help curses sdl",
    _NO_DEVICE: "usb win2k-hack no-fd-bootchk",
    "ACPI is a part of the PC; a Linux kernel leaves it alone with -append acpi=off": "no-acpi",
    _NOT_NOW: "mem-prealloc singlestep preconfig only-migratable semihosting old-param async-teardown "
    "enable-sync-profile xen-attach xen-domid-restrict",
}

#: name -> (takes a value, why not)
ABSENT: dict[str, tuple[bool, str]] = {
    **{name: (True, reason) for reason, names in _WITH_VALUE.items() for name in names.split()},
    **{name: (False, reason) for reason, names in _WITHOUT_VALUE.items() for name in names.split()},
}

BY_NAME: dict[str, Option] = {name: option for option in OPTIONS for name in (option.name, *option.aliases)}
