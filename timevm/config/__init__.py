"""The command line: ``parse_command_line(program, arguments)`` → ``Config`` (or ``Information`` to print)."""

from timevm.config.model import Chardev, Config, Information, Monitor, MonitorMode
from timevm.config.parse import parse_command_line

__all__ = ["Chardev", "Config", "Information", "Monitor", "MonitorMode", "parse_command_line"]
