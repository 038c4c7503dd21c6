"""QAPI modules ``machine`` and ``misc``: what the machine is (QEMU: ``qapi/machine.json``, ``qapi/misc.json``)."""

from __future__ import annotations

from timevm.qmp_schema.base import Bool, Command, Example, Int, IntAddress, QapiEnum, QapiModel, Str


class NameInfo(QapiModel):
    """``name``: of ``-name``, absent if there was none."""

    name: Str | None = None


class KvmInfo(QapiModel):
    enabled: Bool
    present: Bool


class SysEmuTarget(QapiEnum):
    """The guest architectures that timevm knows."""

    AARCH64 = "aarch64"
    I386 = "i386"
    RISCV64 = "riscv64"
    X86_64 = "x86_64"


class CpuInstanceProperties(QapiModel):
    socket_id: Int | None = None
    cluster_id: Int | None = None
    core_id: Int | None = None
    thread_id: Int | None = None


class CpuInfoFast(QapiModel):
    """``thread-id``: of the host thread that executes the guest."""

    cpu_index: Int
    qom_path: Str
    thread_id: Int
    props: CpuInstanceProperties | None = None
    target: SysEmuTarget


class MachineInfo(QapiModel):
    """A machine type; ``name`` is what ``-machine`` takes."""

    name: Str
    alias: Str | None = None
    is_default: Bool | None = None
    cpu_max: Int
    hotpluggable_cpus: Bool
    numa_mem_supported: Bool
    deprecated: Bool
    default_cpu_type: Str | None = None
    default_ram_id: Str | None = None


class MemorySaveArguments(QapiModel):
    """``val``: guest virtual address as the CPU sees it now; ``size`` in bytes; ``filename``: is overwritten."""

    val: IntAddress
    size: Int
    filename: Str
    cpu_index: Int | None = None


class PhysicalMemorySaveArguments(QapiModel):
    """``val``: guest physical address; ``size`` in bytes; ``filename``: is overwritten."""

    val: IntAddress
    size: Int
    filename: Str


class HumanMonitorArguments(QapiModel):
    command_line: Str
    cpu_index: Int | None = None


COMMANDS = (
    Command(
        name="query-name",
        documentation="The machine's name (`-name`).",
        result=NameInfo,
        example=Example(None, {"name": "build-box"}),
        allow_preconfig=True,
        hmp="info name",
    ),
    Command(
        name="query-kvm",
        documentation="Whether KVM is used: never, since nothing outside may know the instruction count.",
        result=KvmInfo,
        example=Example(None, {"enabled": False, "present": False}),
        hmp="info kvm",
    ),
    Command(
        name="query-cpus-fast",
        documentation="The virtual CPUs: there is one.",
        result=list[CpuInfoFast],
        example=Example(
            None,
            [
                {
                    "cpu-index": 0,
                    "qom-path": "/machine/unattached/device[0]",
                    "thread-id": 25627,
                    "props": {"socket-id": 0, "cluster-id": 0, "core-id": 0, "thread-id": 0},
                    "target": "aarch64",
                }
            ],
        ),
        hmp="info cpus",
    ),
    Command(
        name="query-machines",
        documentation="The machine types of this program.",
        result=list[MachineInfo],
        example=Example(
            None,
            [
                {
                    "name": "virt",
                    "cpu-max": 1,
                    "hotpluggable-cpus": False,
                    "numa-mem-supported": False,
                    "deprecated": False,
                }
            ],
        ),
        allow_preconfig=True,
    ),
    Command(
        name="memsave",
        documentation="Write guest memory to a file, addressed as the CPU addresses it now.",
        arguments=MemorySaveArguments,
        example=Example({"val": 10, "size": 100, "filename": "/tmp/virtual-memory"}, {}),
        errors=(
            "Could not open 'FILE': …",
            "Invalid addr 0x… /size … specified",
            "Parameter 'cpu-index' expects a CPU number",
        ),
        hmp="memsave",
    ),
    Command(
        name="pmemsave",
        documentation="Write guest memory to a file, by physical address.  RAM only: no device register is touched.",
        arguments=PhysicalMemorySaveArguments,
        example=Example({"val": 0x40000000, "size": 100, "filename": "/tmp/physical-memory"}, {}),
        errors=("Could not open 'FILE': …", "Invalid addr 0x… /size … specified"),
        hmp="pmemsave",
    ),
    Command(
        name="human-monitor-command",
        documentation="Execute a line of the human monitor and return what it prints (with `\\r\\n`).",
        arguments=HumanMonitorArguments,
        result=Str,
        example=Example({"command-line": "info status"}, "VM status: running\r\n"),
        errors=("Parameter 'cpu-index' expects a CPU number",),
        features=("savevm-monitor-nodes",),
    ),
    Command(
        name="inject-nmi",
        documentation=(
            "Inject a non-maskable interrupt: Linux says where it is, panics or starts kdump, as it is told to.  "
            "Recorded when recording; refused in a replay.  Only the PC takes one."
        ),
        example=Example(None, {}),
        errors=("this feature or command is not currently supported",),
        hmp="nmi",
    ),
)
