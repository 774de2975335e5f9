"""`kvstore serve`: reads the settings, starts the log, runs the server, exits with its code."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

import click

from kvstore import faults
from kvstore.serving.config import ServerConfig, build_config
from kvstore.serving.exits import ExitCode
from kvstore.serving.flagdoc import help_text
from kvstore.serving.logging import start_logging
from kvstore.serving.settings import UsageError, read_settings
from kvstore.serving.versions import version_text

__all__ = ("serve",)


class _FlagsAreOurs(click.Command):
    """Leaves the command line to the flag table, which reads it by Go's rules."""

    def get_help(self, ctx: click.Context) -> str:
        return help_text()


@click.command(
    cls=_FlagsAreOurs,
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def serve(flags: tuple[str, ...]) -> None:
    """Run one member of a cluster."""
    if any(flag in ("-h", "-help", "--help") for flag in flags):
        click.echo(help_text())
        return
    if sys.flags.optimize:
        _refuse(
            "python -O leaves out the checks that keep damaged data from spreading; run without"
        )
    try:
        settings = read_settings(flags, os.environ)
        if settings.flag("version"):
            click.echo(version_text())
            return
        config = build_config(settings)
        armed = os.environ.get(faults.VARIABLE)
        wanted = faults.parse(armed) if armed else ()
    except (UsageError, faults.FaultsError) as error:
        _refuse(str(error))
    _exit(_run(config, wanted))


def _refuse(sentence: str) -> NoReturn:
    click.echo(f"kvstore serve: {sentence}", err=True)
    sys.exit(ExitCode.USAGE)


def _run(config: ServerConfig, wanted: Sequence[faults.Fault]) -> int:
    # Imported here, so that a wrong flag is answered before all of the server is loaded.
    from kvstore.daemon import run

    try:
        log = start_logging(config.log)
    except OSError as error:
        _refuse(f"cannot write the log to {error.filename}: {error.strerror}")
    faults.arm(wanted)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(run(config, log))
    finally:
        log.stop()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop where it is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _exit(code: int) -> NoReturn:
    """Ends the process even when a thread hangs in a disk that no longer answers."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
