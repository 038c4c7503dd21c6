"""The host's own name server."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

_CONFIGURATION = Path("/etc/resolv.conf")
_PORT = 53


def host_nameserver(configuration: Path = _CONFIGURATION) -> tuple[str, int] | None:
    """(address, port) of the first one that the host's resolver is told; None if there is none to be found."""
    try:
        lines = configuration.read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                return str(ip_address(words[1])), _PORT
            except ValueError:
                continue
    return None
