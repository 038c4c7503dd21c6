"""``timevm-system-*``: one run of the virtual machine as a process, from its command line to its exit code.

The top of the house (L5): it knows every room and puts them together; nothing below knows it.
"""
