"""What a machine is made of, as names and digests: another build of timevm may make another one of the same options."""

from __future__ import annotations

from collections.abc import Sequence

#: of each part of the machine, in the machine's order: its name, for people, and a digest
Build = tuple[tuple[str, str], ...]

#: how names of devices and of the recording's events begin
DEVICE, EVENT = "device ", "event "


def build_differences(recorded: Build, now: Build) -> str:
    """What there is now, e.g. ``another memory map, no device rtc``; empty if it is the same.

    Nothing is compared with what does not say of what it was made (``()``).  An event that was not known when it was
    recorded is not in the recording, and no difference.
    """
    if not recorded or not now:
        return ""
    before, after = dict(recorded), dict(now)
    changed = [name for name in before if name in after and before[name] != after[name]]
    gone = [name for name in before if name not in after]
    new = [name for name in after if name not in before and not name.startswith(EVENT)]
    said = []
    if changed:
        said.append(f"another {_list(changed)}")
    if gone:
        said.append(f"no {_list(gone)}")
    if new:
        said.append(f"a new {_list(new)}")
    if not said and _order(recorded) != _order(now):
        said.append("its devices in another order")
    return ", ".join(said)


def _order(build: Build) -> Sequence[str]:
    return [name for name, _ in build if name.startswith(DEVICE)]


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
