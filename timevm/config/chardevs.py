"""Character devices on the command line: ``-chardev``, and the short forms of ``-serial`` and its like.

The forms are those of QEMU's ``chardev/char.c`` (``qemu_chr_parse_compat``) and manual, old ones included:
``unix:PATH,server,nowait`` is ``unix:PATH,server=on,wait=off``.
"""

from __future__ import annotations

import re
from pathlib import Path

from timevm.config.keyvalue import OptionValue, hint
from timevm.config.model import Backend, Chardev, File, Null, Pipe, Pty, Ringbuf, Socket, Stdio
from timevm.errors import UserError

_COMMON = ("id", "mux", "logfile", "logappend")
_SOCKET = (
    "path", "host", "port", "fd", "to", "ipv4", "ipv6", "server", "wait", "telnet", "tn3270", "websocket",
    "nodelay", "delay", "reconnect", "tls-creds", "tls-authz", "abstract", "tight", "addr",
)  # fmt: skip
#: backend -> the keys it takes besides the common ones
BACKENDS: dict[str, tuple[str, ...]] = {
    "null": (),
    "socket": _SOCKET,
    "file": ("path", "append", "input-path"),
    "stdio": ("signal",),
    "pty": ("path",),
    "pipe": ("path",),
    "ringbuf": ("size",),
}
#: backends of QEMU that timevm knows of and does not have
_ABSENT = {
    "udp": "datagrams are no byte stream",
    "vc": "there is no graphical console",
    "msmouse": "there is no graphical console to move a mouse in",
    "braille": "there is no braille device",
    "serial": "connect the host's serial port with socat and a unix: socket",
    "tty": "connect the host's serial port with socat and a unix: socket",
    "parallel": "there is no parallel port",
    "parport": "there is no parallel port",
    "spicevmc": "there is no SPICE",
    "spiceport": "there is no SPICE",
    "memory": "it is called ringbuf",
    "testdev": "it is for QEMU's own tests",
    "wctablet": "there is no graphical console",
}
_ABSENT_SOCKET = ("tn3270", "websocket", "tls-creds", "tls-authz", "to", "abstract")
_NOT_BYTES = re.compile(r"[\0]")
#: of a TCP port, as other programs take it
_BARE_PORT = re.compile(r"([\w.-]*:)?([0-9]{1,5})", re.ASCII)


def file_path(value: OptionValue, text: str) -> Path:
    if not text or _NOT_BYTES.search(text):
        value.fail(f"{text!r} is not a file name")
    return Path(text)


def parse_chardev(text: str) -> Chardev:
    """``-chardev BACKEND,id=ID,…``."""
    kind = text.split(",", 1)[0]
    kind = kind.removeprefix("backend=")
    if kind not in BACKENDS:
        where = f"-chardev {text}: "
        if kind in _ABSENT:
            raise UserError(f"{where}timevm has no '{kind}' backend: {_ABSENT[kind]}")
        raise UserError(f"{where}'{kind}' is not a valid char driver name{hint(kind, BACKENDS)}")
    value = OptionValue("-chardev", text, known=("backend", *_COMMON, *BACKENDS[kind]), implied="backend")
    identifier = value.identifier()
    if identifier is None:
        value.fail("chardev: no id specified")
    return _chardev(value, kind, identifier)


def _chardev(value: OptionValue, kind: str, identifier: str) -> Chardev:
    logfile = value.text_of("logfile")
    return Chardev(
        identifier,
        _backend(value, kind),
        mux=value.switch("mux", False),
        logfile=None if logfile is None else file_path(value, logfile),
        log_append=value.switch("logappend", False),
        option=f"{value.option} {value.text}",
    )


def _backend(value: OptionValue, kind: str) -> Backend:
    path = value.text_of("path")
    match kind:
        case "null":
            return Null()
        case "stdio":
            return Stdio(signal=value.switch("signal", True))
        case "file":
            if path is None:
                value.fail("chardev: file: no filename given")
            source = value.text_of("input-path")
            return File(
                file_path(value, path),
                append=value.switch("append", False),
                input_path=None if source is None else file_path(value, source),
            )
        case "pipe":
            if path is None:
                value.fail("chardev: pipe: no device path given")
            return Pipe(file_path(value, path))
        case "pty":
            return Pty(None if path is None else file_path(value, path))
        case "ringbuf":
            size = value.size("size")
            if size is None:
                return Ringbuf()
            if size == 0 or size & (size - 1):
                value.fail("size of ringbuf chardev must be power of two")
            if size > 1 << 30:
                value.fail("a ringbuf chardev takes at most 1G")
            return Ringbuf(size)
        case _:
            return _socket(value)


def _socket(value: OptionValue) -> Socket:
    for key in _ABSENT_SOCKET:
        if key in value and value.text_of(key) not in ("off", "no"):
            value.fail(f"'{key}' is known, but not part of this version of timevm")
    path, port = value.text_of("path"), value.text_of("port")
    descriptor = value.number("fd")
    server = value.switch("server", False)
    reconnect = value.number("reconnect") or 0
    if sum(given is not None for given in (path, port, descriptor)) > 1:
        value.fail("chardev: socket: give one of path, port and fd")
    if path is None and port is None and descriptor is None:
        if "host" in value:
            value.fail("chardev: socket: no port given")
        value.fail("chardev: socket: give path=PATH, or host=HOST,port=PORT, or fd=NUMBER")
    if descriptor is not None and not 0 <= descriptor < 1 << 31:
        value.fail(f"File descriptor '{descriptor}' is not a socket")
    if "wait" in value and not server:
        value.fail("'wait' option is incompatible with socket in client connect mode")
    if reconnect and server:
        value.fail("'reconnect' option is incompatible with socket in server listen mode")
    if not 0 <= reconnect <= 86400:
        value.fail("'reconnect' is a number of seconds up to 86400")
    if path is not None and len(path.encode(errors="surrogateescape")) > 107:
        value.fail(f"UNIX socket path '{path}' is too long: at most 107 bytes")
    if port is not None:
        _check_port(value, port)
    nodelay = value.switch("nodelay", True) if "nodelay" in value else not value.switch("delay", False)
    return Socket(
        path=None if path is None else file_path(value, path),
        host=value.text_of("host") or "",
        port=port,
        fd=descriptor,
        server=server,
        wait=server and value.switch("wait", True),
        telnet=value.switch("telnet", False),
        nodelay=nodelay,
        reconnect=reconnect,
    )


def _check_port(value: OptionValue, port: str) -> None:
    if port.isascii() and port.isdigit():
        if len(port) > 5 or int(port) > 65535:
            value.fail(f"port {port} is out of range: 0 to 65535")
    elif not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]*", port):
        value.fail(f"'{port}' is not a port")


def parse_short(
    option: str, text: str, identifier: str, *, multiplexed: bool = True, extra: str = ""
) -> Chardev | str | None:
    """What ``-serial TEXT`` and its like connect to: a new chardev, the id of one (``chardev:ID``), None for ``none``.

    ``multiplexed``: whether ``mon:`` may stand before it; ``extra``: what a socket's options end with.
    """
    if text == "none":
        return None
    if text.startswith("chardev:"):
        return text.removeprefix("chardev:")
    mux = multiplexed and text.startswith("mon:")
    rest = text.removeprefix("mon:") if mux else text
    where = f"{option} {text}"
    if rest in ("null", "stdio", "pty"):
        backends: dict[str, Backend] = {"null": Null(), "stdio": Stdio(signal=not mux), "pty": Pty()}
        return Chardev(identifier, backends[rest], mux=mux, option=where)
    if rest == "vc" or rest.startswith("vc:"):
        return Chardev(identifier, Null(), mux=mux, option=where)
    scheme, colon, tail = rest.partition(":")
    if colon and scheme in ("file", "pipe"):
        if not tail or _NOT_BYTES.search(tail):
            raise UserError(f"{where}: no file name given")
        backend: Backend = File(Path(tail)) if scheme == "file" else Pipe(Path(tail))
        return Chardev(identifier, backend, mux=mux, option=where)
    if colon and scheme in ("tcp", "telnet", "unix"):
        return Chardev(identifier, _short_socket(option, text, scheme, tail + extra), mux=mux, option=where)
    if (colon and scheme in (*_ABSENT, "tn3270", "websocket", "con", "fdset")) or rest.startswith("/dev/"):
        reason = _ABSENT.get(scheme, "it is known, but not part of this version")
        if rest.startswith("/dev/"):
            scheme, reason = rest, _ABSENT["serial"]
        raise UserError(f"{where}: timevm has no '{scheme}' backend: {reason}")
    if bare := _BARE_PORT.fullmatch(rest):
        raise UserError(f"{where}: '{rest}' is not a valid char driver (did you mean 'tcp:{bare[1] or ':'}{bare[2]}'?)")
    known = ("stdio", "mon:stdio", "null", "none", "pty", "file:", "pipe:", "unix:", "tcp:", "telnet:", "chardev:")
    raise UserError(f"{where}: '{rest}' is not a valid char driver{hint(rest, known)}")


def _short_socket(option: str, shown: str, scheme: str, tail: str) -> Socket:
    address, comma, options = tail.partition(",")
    while comma and options.startswith(","):  # ,, is a comma in the address
        more, comma, options = options[1:].partition(",")
        address += "," + more
    if scheme == "unix":
        fields = [("path", address)]
    else:
        match = re.fullmatch(r"(?:\[([0-9A-Za-z:.%]*)\]|([^:\[\]]*)):([^:]+)", address)
        if match is None:
            raise UserError(f"{option} {shown}: '{address}' is not HOST:PORT")
        fields = [("host", match[1] or match[2] or ""), ("port", match[3])]
        if scheme == "telnet":
            fields.append(("telnet", "on"))
    value = OptionValue(option, options, known=_SOCKET, shown=shown)
    value.override(fields)
    return _socket(value)


def gdb_chardev(option: str, text: str, identifier: str) -> Chardev | str | None:
    """``-gdb``: as the short forms; ``tcp:`` and ``unix:`` listen and do not wait for a client."""
    extra = ",wait=off,nodelay=on,server=on" if text.startswith(("tcp:", "unix:")) else ""
    return parse_short(option, text, identifier, multiplexed=False, extra=extra)
