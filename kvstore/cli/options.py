"""Global flags of the client commands, and the click classes that read them as etcdctl does.

A global flag may stand before the subcommand or after it. Flags that are switches also take
`=true` and `=false`, and `-w=json` is read like `-wjson`, as users of etcdctl write them.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import Any

import click

from kvstore.cli.exits import BAD_ARGS, guarded
from kvstore.serving.values import BadValueError, parse_duration

__all__ = (
    "ClientCommand",
    "ClientGroup",
    "DURATION",
    "GLOBAL_OPTIONS",
    "GlobalOption",
    "global_values",
    "typed_globals",
)

_META = "kvstore.cli.globals"
_GLOBAL_SECTION = "Global options"


class _Duration(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    """Go's durations: 5s, 1m30s, 300ms."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, float):
            return value
        try:
            if value.startswith(("+", "-")):
                raise BadValueError("a sign")
            return parse_duration(value)
        except BadValueError:
            self.fail(f"{value!r:.100} is not a duration like 5s, 300ms or 1m30s", param, ctx)


DURATION = _Duration()


class _BadUsage(click.UsageError):
    """A command line that cannot be read, with an exit code of our own."""

    def __init__(self, error: click.UsageError, exit_code: int) -> None:
        super().__init__(error.format_message(), error.ctx)
        self.exit_code = exit_code  # type: ignore[misc]  # a class variable without need


class GlobalOption(click.Option):
    """An option whose value is kept for the session, wherever on the line it stands."""

    def __init__(self, *declarations: str, **attributes: Any) -> None:
        super().__init__(declarations, expose_value=False, callback=_remember, **attributes)


def _remember(ctx: click.Context, option: click.Parameter, value: Any) -> None:
    values: dict[str, Any] = ctx.meta.setdefault(_META, {})
    assert option.name is not None
    if _is_typed(ctx, option.name):
        values[option.name] = value
        ctx.meta.setdefault(_META + ".typed", set()).add(option.name)
    elif option.name not in values:
        values[option.name] = value


def _is_typed(ctx: click.Context, name: str) -> bool:
    return ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def global_values(ctx: click.Context) -> dict[str, Any]:
    """The values of the global flags by name."""
    values: dict[str, Any] = ctx.meta.get(_META, {})
    return values


def typed_globals(ctx: click.Context) -> set[str]:
    """Names of the global flags that stand on the command line."""
    typed: set[str] = ctx.meta.get(_META + ".typed", set())
    return typed


def _option(flag: str, help: str, **attributes: Any) -> GlobalOption:
    variable = "KVSTORE_" + flag.lstrip("-").replace("-", "_").upper()
    declarations = attributes.pop("short", ()), flag
    names = (*declarations[0], declarations[1])
    return GlobalOption(*names, help=help, envvar=variable, **attributes)


GLOBAL_OPTIONS: tuple[GlobalOption, ...] = (
    _option(
        "--endpoints",
        "Members to talk to, separated by commas.",
        default="127.0.0.1:2379",
        show_default=True,
    ),
    _option(
        "--write-out",
        "Form of the output: simple, json, table, fields or protobuf.",
        short=("-w",),
        default="simple",
        show_default=True,
        metavar="FORM",
    ),
    _option("--hex", "Print keys and values as hexadecimal escapes.", is_flag=True),
    _option(
        "--command-timeout",
        "How long a command may take.",
        type=DURATION,
        default="5s",
        show_default=True,
    ),
    _option(
        "--dial-timeout",
        "How long an attempt to connect may take.",
        type=DURATION,
        default="2s",
        show_default=True,
    ),
    _option(
        "--keepalive-time",
        "Pause between pings on a connection with calls under way.",
        type=DURATION,
        default="10s",
        show_default=True,
    ),
    _option(
        "--keepalive-timeout",
        "How long a ping may go unanswered.",
        type=DURATION,
        default="6s",
        show_default=True,
    ),
    _option("--cacert", "PEM file of the authorities that vouch for the servers.", metavar="FILE"),
    _option("--cert", "PEM file of our certificate.", metavar="FILE"),
    _option("--key", "PEM file of our certificate's key.", metavar="FILE"),
    _option(
        "--insecure-transport",
        "Talk without TLS where an endpoint does not say https:// (true by default).",
        type=click.BOOL,
        default=True,
        is_flag=False,
        flag_value="true",
        metavar="BOOL",
    ),
    _option(
        "--insecure-skip-tls-verify",
        "Not supported: the servers' certificates are always verified.",
        is_flag=True,
    ),
    _option("--user", "NAME[:PASSWORD]; asks for the password if none is given.", metavar="USER"),
    _option("--password", "Password of --user.", metavar="TEXT"),
    _option("--debug", "Show what goes on underneath, and tracebacks.", is_flag=True),
)
"""etcdctl's global flags."""


class _GoFlags(click.Command):
    """Reads the command line as Go's pflag does."""

    examples: tuple[str, ...] = ()

    def __init__(
        self,
        *arguments: Any,
        examples: Sequence[str] = (),
        usage_exit_code: int = BAD_ARGS,
        **attributes: Any,
    ) -> None:
        super().__init__(*arguments, **attributes)
        self.examples = tuple(examples)
        self._usage_exit_code = usage_exit_code
        self.params = [*self.params, *GLOBAL_OPTIONS]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, self._normalised(args))
        except click.UsageError as error:
            raise _BadUsage(error, self._usage_exit_code) from None

    def _normalised(self, args: list[str]) -> list[str]:
        switches = {
            name
            for option in self.params
            if isinstance(option, click.Option) and option.is_flag
            for name in option.opts
        }
        found: list[str] = []
        for position, arg in enumerate(args):
            if arg == "--":
                return found + args[position:]
            name, mark, value = arg.partition("=")
            if mark and name in switches and value.lower() in ("true", "1", "t"):
                found.append(name)
            elif mark and name in switches and value.lower() in ("false", "0", "f"):
                continue
            elif arg.startswith("-w="):
                found.append("-w" + arg[3:])
            else:
                found.append(arg)
        return found

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Those of the command first, then the global ones."""
        own: list[tuple[str, str]] = []
        shared: list[tuple[str, str]] = []
        for option in self.get_params(ctx):
            record = option.get_help_record(ctx) if isinstance(option, click.Option) else None
            if record is not None:
                (shared if isinstance(option, GlobalOption) else own).append(record)
        for title, rows in (("Options", own), (_GLOBAL_SECTION, shared)):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.examples:
            with formatter.section("Examples"):
                for line in self.examples:
                    formatter.write(f"  {line}\n")


class ClientCommand(_GoFlags):
    """A command that talks to a cluster; its function is given the Session (`pass_obj`)."""

    cleans_up = False
    """Ctrl-C raises KeyboardInterrupt; otherwise it ends the process, as etcdctl's."""

    def invoke(self, ctx: click.Context) -> Any:
        from kvstore.cli.context import Session

        if threading.current_thread() is threading.main_thread():
            self._arrange_interrupts(ctx)

        values = global_values(ctx)
        with guarded(debug=bool(values.get("debug"))), Session(values) as session:
            ctx.obj = session
            return super().invoke(ctx)

    def _arrange_interrupts(self, ctx: click.Context) -> None:
        before = signal.getsignal(signal.SIGINT)
        if self.cleans_up:
            # Also where we were started with the signal ignored, as scripts do with `&`.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        elif before is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        ctx.call_on_close(lambda: signal.signal(signal.SIGINT, before))


class ClientGroup(_GoFlags, click.Group):
    """A command that has subcommands."""

    command_class = ClientCommand

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self.format_commands(ctx, formatter)
        _GoFlags.format_options(self, ctx, formatter)
