"""``timevm demo``: a small guest with a bug, recorded, replayed, and run backwards to the write that did it.

The guest is a notebook (``examples/guests/demo``); the session typed to it makes it damage its heap early and notice
late.  Nothing outside the package is needed; gdb tells the backtrace where it is installed.
"""

from timevm.demo.command import run_demo
from timevm.demo.runs import SESSION

__all__ = ["SESSION", "run_demo"]
