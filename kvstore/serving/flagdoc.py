"""Writes the flags down for people: docs/flags.md and `kvstore serve --help`, from the table.

`python -m kvstore.serving.flagdoc docs/flags.md` rewrites the document; a test compares the two.
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from kvstore.serving.exits import EXIT_MEANINGS
from kvstore.serving.flag import Flag, Kind
from kvstore.serving.flags import GROUPS
from kvstore.serving.gates import GATES

__all__ = ("help_text", "main", "markdown")

_INTRODUCTION = """\
# Flags of `kvstore serve`

The names and defaults are etcd's (3.6), so an etcd command line or unit file works as it stands.
This page is written from the table that the server itself reads
(`python -m kvstore.serving.flagdoc docs/flags.md`).

*implemented* does what etcd's manual says. *no effect* is accepted, and logged once when it is
given another value than its default, because what it tunes does not exist here. *refused* ends the
start with exit code 2 when it is given another value than its default: nothing that somebody asked
for, and security least of all, is left out without a word.

## How settings are read

* A flag: `--name=infra0`, `--name infra0`, or with one dash. A boolean flag takes its value after
  `=` only: `--pre-vote` and `--pre-vote=true` are the same, `--pre-vote=false` is the opposite.
* An environment variable: `KVSTORE_` and the flag's name in capitals, `-` written as `_`
  (`KVSTORE_DATA_DIR`). A flag beats its variable.
  One variable is no flag's: `KVSTORE_FAULTS` makes the server fail at chosen places, for tests only
  ([reliability.md](reliability.md#fault-points)).
* A YAML file, given by `--config-file` or `KVSTORE_CONFIG_FILE`, with etcd's keys: the flag names,
  and the sections `client-transport-security`, `peer-transport-security` and `socket-options`. The
  file beats flags and variables; those that it does not mention still count (etcd ignores them
  altogether). A key that does not exist is an error. An empty value means the default.
* Durations are written as in Go: `100ms`, `5s`, `1h30m`. In the file a bare number is nanoseconds,
  as etcd reads it.
* Several URLs are separated by commas. `localhost` is two addresses, 127.0.0.1 and ::1, where the
  machine has both.
* Plain HTTP has ports of its own: each client port + 2 (2381 beside 2379), unless
  `--listen-client-http-urls` says otherwise. Without that flag the client ports answer HTTP/1 too,
  as etcd's do, where the gRPC server is `http2`.
"""


def _default(flag: Flag) -> str:
    return f"`{flag.default}`" if flag.default else ""


def _effect(flag: Flag) -> str:
    match flag.kind:
        case Kind.IMPLEMENTED:
            return "implemented" + ("; ours, not etcd's" if flag.ours else "")
        case Kind.HARMLESS:
            return f"no effect: {flag.reason}"
        case Kind.REFUSED:
            return f"refused: {flag.reason}"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def markdown() -> str:
    """The whole of docs/flags.md."""
    lines = [_INTRODUCTION]
    for title, flags in GROUPS.items():
        lines += [f"## {title}", "", _row("flag", "default", "meaning", "here")]
        lines.append(_row(*["---"] * 4))
        for flag in flags:
            names = ", ".join(f"`--{name}`" for name in (flag.name, *flag.aliases))
            lines.append(_row(names, _default(flag), flag.help, _effect(flag)))
        lines.append("")
    lines += ["## Feature gates", "", _row("gate", "default", "here"), _row(*["---"] * 3)]
    for gate in GATES.values():
        effect = {
            Kind.IMPLEMENTED: "implemented: ",
            Kind.HARMLESS: "no effect: ",
            Kind.REFUSED: "refused: ",
        }[gate.kind]
        lines.append(_row(f"`{gate.name}`", str(gate.default).lower(), effect + gate.reason))
    lines += ["", "## Exit codes", "", _row("code", "meaning"), _row("---", "---")]
    lines += [_row(str(code.value), meaning) for code, meaning in EXIT_MEANINGS.items()]
    lines += [
        _row("128 + signal", "a second SIGTERM or SIGINT while stopping: ended at once"),
        "",
        "Before it ends the server says why, in one sentence of its log.",
        "",
    ]
    return "\n".join(lines)


def help_text(width: int = 100) -> str:
    """What `kvstore serve --help` prints."""
    lines = [
        "Usage: kvstore serve [FLAGS]",
        "",
        "  Runs one member of a cluster. Flags and defaults are etcd's.",
        "",
    ]
    for title, flags in GROUPS.items():
        shown = [flag for flag in flags if flag.kind is Kind.IMPLEMENTED]
        if not shown:
            continue
        lines.append(f"{title}:")
        for flag in shown:
            default = f" '{flag.default}'" if flag.default else ""
            lines.append(f"  --{flag.name}{default}")
            lines += textwrap.wrap(
                flag.help, width, initial_indent=" " * 6, subsequent_indent=" " * 6
            )
        lines.append("")
    lines.append("docs/flags.md has all flags of etcd, with those refused or without effect here,")
    lines.append("the environment variables, the configuration file and the exit codes.")
    return "\n".join(lines)


def main() -> None:
    """Rewrites the document named by the only argument."""
    Path(sys.argv[1]).write_text(markdown(), encoding="utf-8")


if __name__ == "__main__":
    main()
