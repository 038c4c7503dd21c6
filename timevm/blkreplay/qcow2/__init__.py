"""qcow2, versions 2 and 3, read and written (format: QEMU's docs/interop/qcow2)."""
