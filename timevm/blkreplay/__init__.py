"""Block nodes: file, qcow2, overlay, blkreplay (floor L0)."""
