"""Commands of QEMU's human monitor that timevm knows and does not do, each with the reason: a table of names."""

from __future__ import annotations

from timevm.monitor.hmp.errors import HmpError
from timevm.monitor.hmp.parameters import Kind, Parameter
from timevm.monitor.hmp.table import Call, HmpCommand

_SCREEN = "the machine has no screen, keyboard or mouse: its serial ports are its terminals"
_SOUND = "the machine has no sound card"
_MIGRATION = "timevm does not migrate: copy the recording, or the disk with its snapshots, and start from there"
_FIXED = "what the machine is made of is fixed by the command line, for recording and replay alike"
_MEDIUM = "a medium cannot be changed while the machine is there: name another file on the command line"
_DISKS = "timevm does not do this to disks in use: `timevm img` and qemu-img do it to the files afterwards"
_NBD = "timevm does not serve disks: `qemu-nbd --read-only` does it with the files"
_MEMORY = "the guest's RAM is fixed by -m"
_HOST_ADDRESS = "timevm does not show where the host has it: xp and pmemsave read memory by physical address"
_PORTS = "touching a device from outside would change the guest unrecorded: info qtree shows what the devices hold"
_OBJECTS = "timevm has no object tree: info qtree shows the devices"
_OWN_LOG = "what timevm logs is said on its command line, by -d and -D"
_NETWORK = "cables are fixed by the command line"
_ONE_CPU = "the machine has one processor"
_NO_PASSWORD = "there is no display to protect"

_REASONS: dict[str, str] = {
    _SCREEN: "sendkey screendump mouse_move mouse_button mouse_set",
    _SOUND: "wavcapture stopcapture",
    _MIGRATION: "migrate migrate_cancel migrate_continue migrate_incoming migrate_pause migrate_recover "
    "migrate_set_capability migrate_set_parameter migrate_start_postcopy client_migrate_info x_colo_lost_heartbeat",
    _FIXED: "device_add device_del drive_add drive_del object_add object_del chardev-add chardev-change chardev-remove "
    "netdev_add netdev_del boot_set",
    _MEDIUM: "change eject",
    _DISKS: "commit block_resize block_stream block_job_cancel block_job_complete block_job_pause block_job_resume "
    "block_job_set_speed block_set_io_throttle drive_mirror drive_backup snapshot_blkdev qemu-io",
    _NBD: "nbd_server_start nbd_server_add nbd_server_remove nbd_server_stop",
    _MEMORY: "balloon",
    _HOST_ADDRESS: "gpa2hva gpa2hpa",
    _PORTS: "i o mce pcie_aer_inject_error",
    _OBJECTS: "qom-get qom-list qom-set",
    _OWN_LOG: "log logfile trace-event singlestep sync-profile",
    _NETWORK: "set_link announce_self",
    _ONE_CPU: "cpu",
    _NO_PASSWORD: "set_password expire_password",
    "the machine is never suspended": "system_wakeup",
    "the machine has no watchdog": "watchdog_action",
    "timevm does not start in such a state: -S is where it waits": "exit_preconfig",
    "-M virt,dumpdtb=FILE writes the device tree": "dumpdtb",
    "serial ports say no break": "chardev-send-break",
    "file descriptors come with -chardev socket,fd= only": "getfd closefd",
    "checkpoints say how much a guest writes: info checkpoints": "calc_dirty_rate set_vcpu_dirty_limit "
    "cancel_vcpu_dirty_limit",
}


_INFORMATION_REASONS: dict[str, str] = {
    _SCREEN: "mice spice vnc",
    _SOUND: "capture",
    _MIGRATION: "migrate migrate_capabilities migrate_parameters rdma dirty_rate vcpu_dirty_limit",
    _MEMORY: "balloon memdev memory-devices numa",
    _HOST_ADDRESS: "ramblock",
    _OBJECTS: "qom-tree qdm",
    _OWN_LOG: "trace-events sync-profile",
    "nothing works on disks in use here: info block lists them, info jobs the jobs of snapshots": "block-jobs",
    "timevm keeps no such figures: info checkpoints has those of going back": "jit opcount profile stats",
    "the machine has one processor: info cpus": "hotpluggable-cpus",
    "the machine has no USB": "usb usbhost",
    "the machine has no such switch": "rocker rocker-of-dpa-flows rocker-of-dpa-groups rocker-ports",
    "the machine has no such device": "sev sgx tpm vm-generation-id",
    "the guest's connections are sockets of the host: info network shows the cables": "usernet",
    "info qtree shows the devices and their queues": "virtio virtio-queue-element virtio-queue-status "
    "virtio-status virtio-vhost-queue-status",
}


def _refused(name: str, reason: str, group: str = "") -> HmpCommand:
    async def refuse(call: Call) -> str:
        raise HmpError(f"{group}{name}: {reason}")

    return HmpCommand((name,), f"not here: {reason}", refuse, (Parameter("rest", Kind.REST),), prefix=False)


def _table(reasons: dict[str, str], group: str = "") -> tuple[HmpCommand, ...]:
    return tuple(_refused(name, reason, group) for reason, names in reasons.items() for name in names.split())


REFUSALS = _table(_REASONS)
#: of ``info``
INFORMATION_REFUSALS = _table(_INFORMATION_REASONS, "info ")
