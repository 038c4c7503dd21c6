"""``timevm img``: qemu-img's syntax over our own qcow2."""
