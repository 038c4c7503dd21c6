"""What ``docs/demo.md`` shows of the demo: ``python -m tests.demo.document`` takes it anew from the real program.

It stands between ``<!-- demo -->`` and the end of the block of code behind it.  What differs from host to host and from
run to run is left out of comparisons: times, digests (of a machine with another seed and date), and where the host's
speed put checkpoints.
"""

from __future__ import annotations

import os
import re
import subprocess

from tests.daemon import DEADLINE, command
from tests.guests import ROOT

DOCUMENT = ROOT / "docs" / "demo.md"
_BLOCK = re.compile(r"(<!-- demo -->\n```text\n)(.*?)(```)", re.DOTALL)


def demonstrate() -> str:
    """In 80 columns, as to a terminal without colours."""
    done = subprocess.run(
        command(["demo"], "main"),
        env={**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        timeout=DEADLINE,
        check=True,
    )
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.decode().splitlines())


def documented() -> str:
    found = _BLOCK.search(DOCUMENT.read_text())
    assert found is not None, f"{DOCUMENT.name} has no place for it"
    return found[2]


def comparable(text: str) -> str:
    text = re.sub(r"\b[0-9.]+ m?s\b", "TIME", text.replace("┻", "━").replace("┴", "─"))
    text = re.sub(r"\b(?=[0-9]*[a-f])[0-9a-f]{16}\b|\b[0-9]{16}\b", "DIGEST", text)
    text = re.sub(r"its \d+ checkpoints", "its checkpoints", text)
    return re.sub(r" +", " ", text)


def main() -> None:
    output = demonstrate()
    DOCUMENT.write_text(_BLOCK.sub(lambda found: found[1] + output + found[3], DOCUMENT.read_text(), count=1))


if __name__ == "__main__":
    main()
