"""Completion for shells, generated from the option table: ``timevm completion bash|zsh|fish``."""

from __future__ import annotations

from timevm.config.architectures import VOCABULARIES, Vocabulary
from timevm.config.chardevs import BACKENDS
from timevm.config.table import EMPTY_LOG_ITEMS, LOG_ITEMS, OPTIONS

#: options whose value is a file
FILES = ("kernel", "initrd", "dtb", "bios", "pidfile", "D")
#: places of a serial port or monitor
_DEVICES = ("stdio", "mon:stdio", "null", "none", "pty", "file:", "pipe:", "unix:", "tcp:", "telnet:", "chardev:")
_COMMANDS = (
    ("img", "disk images"),
    ("log", "look into a recording"),
    ("demo", "a small guest with a bug"),
    ("completion", "this"),
)
#: command → the words that may follow it at once
_ACTIONS = {
    "img": "create info check snapshot map convert resize",
    "log": "dump verify stat",
    "completion": "bash zsh fish",
}


def values(vocabulary: Vocabulary) -> dict[str, tuple[str, ...]]:
    """Option → words that its value may be or begin with; every alias has an entry of its own."""
    found: dict[str, tuple[str, ...]] = {
        "M": (*(board for _, board, _ in vocabulary.machines), "help"),
        "cpu": (*vocabulary.processors, "help"),
        "smp": ("1",),
        "accel": ("tcg",),
        "rtc": ("base=utc", "base=localtime", "base="),
        "icount": ("shift=auto", "shift=auto,rr=record,rrfile=", "shift=auto,rr=replay,rrfile="),
        "serial": _DEVICES,
        "monitor": _DEVICES,
        "qmp": ("unix:", "tcp:", "chardev:", "stdio"),
        "qmp-pretty": ("unix:", "tcp:", "chardev:", "stdio"),
        "gdb": ("tcp::1234", "tcp:", "unix:", "chardev:"),
        "chardev": tuple(f"{name},id=" for name in BACKENDS),
        "mon": ("chardev=",),
        "device": (*vocabulary.devices, "help"),
        "drive": ("file=", "driver=blkreplay,if=none,image="),
        "blockdev": ("driver=",),
        "object": ("rng-builtin,id=", "rng-random,id=", "filter-replay,id=", "help"),
        "netdev": ("user,id=", "help"),
        "net": ("user", "nic", "none"),
        "nic": ("user", "none"),
        "display": ("none",),
        "vga": ("none",),
        "action": ("reboot=reset", "reboot=shutdown", "shutdown=poweroff", "shutdown=pause"),
        "d": (*LOG_ITEMS, *sorted(EMPTY_LOG_ITEMS), "help"),
    }
    if vocabulary.firmware_words:
        found["bios"] = tuple(vocabulary.firmware_words)
    return {
        alias: found[option.name]
        for option in OPTIONS
        if option.name in found
        for alias in (option.name, *option.aliases)
    }


def completion(shell: str) -> str:
    """``shell``: bash, zsh or fish."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell]()


def _names() -> list[str]:
    return [name for option in OPTIONS for name in (option.name, *option.aliases)]


def _bash() -> str:
    lines = [
        "# timevm's completion for bash",
        "_timevm_system() {",
        "  local word=$1 previous=$2 architecture=$3 words=",
        "  previous=${previous#-}; previous=${previous#-}",
        "  case $architecture:$previous in",
    ]
    for architecture, vocabulary in VOCABULARIES.items():
        for option, words in values(vocabulary).items():
            or_file = " compopt -o default;" if option in FILES else ""
            lines.append(f"    {architecture}:{option}){or_file} words='{' '.join(words)}' ;;")
    files = "|".join(f"*:{name}" for name in FILES)
    options = " ".join(f"-{name}" for name in _names())
    lines += [
        f"    {files}) compopt -o default; COMPREPLY=(); return ;;",
        "    *)",
        "      if [[ $word == *=* || $word == *:* ]]; then compopt -o default; COMPREPLY=(); return; fi",
        f"      words='{options}' ;;",
        "  esac",
        "  compopt -o nospace",
        '  COMPREPLY=($(compgen -W "$words" -- "$word"))',
        "  [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} != *[=:] ]] && compopt +o nospace",
        "}",
        "_timevm() {",
        "  local word previous",
        "  word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}",
        "  if declare -F _get_comp_words_by_ref >/dev/null; then",
        "    _get_comp_words_by_ref -n =: -c word -p previous",
        "  fi",
        "  local program=${COMP_WORDS[0]##*/}",
        "  if [[ $program == timevm-system-* ]]; then",
        '    _timevm_system "$word" "$previous" "${program#timevm-system-}"',
        "  elif ((COMP_CWORD == 1)); then",
        f"    COMPREPLY=($(compgen -W '{' '.join(_subcommands())}' -- \"$word\"))",
        "  elif [[ ${COMP_WORDS[1]} == system-* ]]; then",
        '    _timevm_system "$word" "$previous" "${COMP_WORDS[1]#system-}"',
        *(
            line
            for name, words in _ACTIONS.items()
            for line in (
                f"  elif ((COMP_CWORD == 2)) && [[ ${{COMP_WORDS[1]}} == {name} ]]; then",
                f"    COMPREPLY=($(compgen -W '{words}' -- \"$word\"))",
            )
        ),
        "  else",
        "    compopt -o default",
        "  fi",
        "}",
        f"complete -F _timevm timevm {' '.join(f'timevm-system-{name}' for name in VOCABULARIES)}",
    ]
    return "\n".join(lines) + "\n"


def _subcommands() -> list[str]:
    return [*(f"system-{name}" for name in VOCABULARIES), *(name for name, _ in _COMMANDS)]


def _quoted(text: str) -> str:
    return text.replace("'", "'\\''")


def _zsh() -> str:
    lines = [
        f"#compdef timevm {' '.join(f'timevm-system-{name}' for name in VOCABULARIES)}",
        "# timevm's completion for zsh",
    ]
    for architecture, vocabulary in VOCABULARIES.items():
        known = values(vocabulary)
        lines += [f"_timevm_system_{architecture}() {{", "  _arguments \\"]
        specs = []
        for option in OPTIONS:
            help_text = _quoted(option.help).replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
            for name in (option.name, *option.aliases):
                spec = f"*-{name}[{help_text}]"
                if name in FILES and name in known:
                    words = " ".join(known[name])
                    spec += f':{name}:{{_alternative "words\\:word\\:({words})" "files\\:file\\:_files"}}'
                elif name in FILES:
                    spec += f":{name}:_files"
                elif name in known:
                    words = " ".join(word.replace(":", "\\:") for word in known[name])
                    spec += f":{name}:({words})"
                elif option.argument:
                    spec += f":{name}: "
                specs.append(f"    '{spec}'")
        lines += [" \\\n".join(specs), "}"]
    choices = " ".join(
        f"'{name}:{text}'" for name, text in (*((f"system-{a}", "the machine") for a in VOCABULARIES), *_COMMANDS)
    )
    lines += [
        "_timevm() {",
        "  local program=${words[1]:t}",
        "  if [[ $program == timevm-system-* ]]; then",
        "    _timevm_system_${program#timevm-system-}",
        "  elif (( CURRENT == 2 )); then",
        f"    local -a choices; choices=({choices})",
        "    _describe command choices",
        "  elif [[ ${words[2]} == system-* ]]; then",
        "    local architecture=${words[2]#system-}",
        "    shift words; (( CURRENT-- ))",
        "    _timevm_system_$architecture",
        *(
            line
            for name, words in _ACTIONS.items()
            for line in (
                f"  elif (( CURRENT == 3 )) && [[ ${{words[2]}} == {name} ]]; then",
                f"    _values word {words}",
            )
        ),
        "  else",
        "    _files",
        "  fi",
        "}",
        "# both ways: sourced, or a file of $fpath",
        'if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _timevm "$@"; else compdef _timevm '
        f"timevm {' '.join(f'timevm-system-{name}' for name in VOCABULARIES)}; fi",
    ]
    return "\n".join(lines) + "\n"


def _fish() -> str:
    lines = ["# timevm's completion for fish"]
    none = "__fish_use_subcommand"
    for name, text in (*((f"system-{a}", "the machine") for a in VOCABULARIES), *_COMMANDS):
        lines.append(f"complete -c timevm -f -n {none} -a {name} -d '{_quoted(text)}'")
    for name, words in _ACTIONS.items():
        seen = f"__fish_seen_subcommand_from {name}; and not __fish_seen_subcommand_from {words}"
        lines.append(f"complete -c timevm -f -n '{seen}' -a '{words}'")
    for architecture, vocabulary in VOCABULARIES.items():
        known = values(vocabulary)
        places = (
            f"-c timevm-system-{architecture}",
            f"-c timevm -n '__fish_seen_subcommand_from system-{architecture}'",
        )
        for place in places:
            for option in OPTIONS:
                for name in (option.name, *option.aliases):
                    line = f"complete {place} -o {name} -d '{_quoted(option.help)}'"
                    if name in FILES:
                        line += " -r -F" + (f" -a '{' '.join(known[name])}'" if name in known else "")
                    elif name in known:
                        line += f" -x -a '{' '.join(known[name])}'"
                    elif option.argument:
                        line += " -x"
                    lines.append(line)
    return "\n".join(lines) + "\n"
