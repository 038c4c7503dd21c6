"""A device tree from a file (``-dtb``), told what only the command line knows: RAM, ``-append``, where the initrd is.

As QEMU does it: everything else stays what the user wrote.
"""

from __future__ import annotations

import fdt

from timevm.engine.machine.flattened_tree import argument_bytes
from timevm.engine.machine.images import File
from timevm.errors import UserError


def adapted(file: File, ram: tuple[int, int], arguments: str, initrd: tuple[int, int] | None) -> bytes:
    """The blob with ``ram`` (base and size) as its only memory.

    Empty ``arguments`` leave the tree's own, and so does an ``initrd`` (start and end) that is None.  Raises UserError.
    """
    try:
        tree = _parsed(file.data)
        root = tree.root
        address_cells, size_cells = _cells(root, "#address-cells", 2), _cells(root, "#size-cells", 1)
        for node in [node for node in root.nodes if node.name == "memory" or node.name.startswith("memory@")]:
            root.remove_subnode(node.name)
        memory = fdt.Node(f"memory@{ram[0]:x}")
        memory.append(fdt.PropStrings("device_type", "memory"))
        memory.append(fdt.PropWords("reg", *_number(ram[0], address_cells), *_number(ram[1], size_cells)))
        root.append(memory)
        chosen = tree.get_node("/chosen", create=True)
        if arguments:
            chosen.set_property("bootargs", argument_bytes(arguments))
        if initrd is not None:
            chosen.set_property("linux,initrd-start", _number(initrd[0], 2))
            chosen.set_property("linux,initrd-end", _number(initrd[1], 2))
        header = tree.header
        return bytes(
            tree.to_dtb(
                version=header.version or 17,
                last_comp_version=header.last_comp_version or 16,
                boot_cpuid_phys=header.boot_cpuid_phys or 0,
            )
        )
    except UserError:
        raise
    except Exception as error:
        why = str(error).rstrip(" !") or type(error).__name__
        raise UserError(f"device tree '{file.path}' is none that can be read: {why}") from error


def _parsed(data: bytes) -> fdt.FDT:
    shared = fdt.FDT().entries  # the library's trees share their list of reserved ranges, a default argument
    shared.clear()
    try:
        tree = fdt.parse_dtb(data)
        tree.entries = list(shared)
    finally:
        shared.clear()
    return tree


def _cells(root: fdt.Node, name: str, default: int) -> int:
    """How many cells a number has in ``reg``; the default is of the Devicetree Specification, 2.3.5."""
    found = root.get_property(name)
    count = default if found is None else int(found.value)
    if count not in (1, 2):
        raise UserError(f"the device tree's {name} is {count}: only 1 and 2 are known")
    return count


def _number(value: int, cells: int) -> list[int]:
    if cells == 1:
        if value >> 32:
            raise UserError(f"the device tree has room for 32-bit numbers only, not for {value:#x}: give it more cells")
        return [value]
    return [value >> 32, value & 0xFFFF_FFFF]
