"""Exit codes of the client commands (etcdctl's), and how a failure becomes one sentence."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

import click

__all__ = (
    "BAD_ARGS",
    "BAD_CONNECTION",
    "BAD_FEATURE",
    "ERROR",
    "INTERRUPTED",
    "INVALID_INPUT",
    "IO",
    "CliError",
    "bad_args",
    "complain",
    "explained",
    "guarded",
)

ERROR: Final = 1
BAD_CONNECTION: Final = 2
INVALID_INPUT: Final = 3
BAD_FEATURE: Final = 4
INTERRUPTED: Final = 5
IO: Final = 6
BAD_ARGS: Final = 128

_ADVICE: Final = {
    "etcdserver: mvcc: database space exceeded": "delete keys, then `kvstore compaction`,"
    " `kvstore defrag` and `kvstore alarm disarm`",
    "etcdserver: no leader": "the member knows no leader: is a majority of the members running?"
    " see `kvstore endpoint status --cluster`",
    "etcdserver: request timed out": "is a majority of the members running? see"
    " `kvstore endpoint status --cluster`",
    "etcdserver: user name is empty": "the server wants --user",
}
"""What to do about a server's refusal that does not say so itself."""


class CliError(Exception):
    """A command failed: a sentence for stderr and an exit code."""

    def __init__(self, message: str, code: int = ERROR) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def bad_args(message: str) -> CliError:
    """The command line is wrong."""
    return CliError(message, BAD_ARGS)


def complain(message: str) -> None:
    """`Error: …` on stderr, as etcdctl writes it."""
    click.echo(f"Error: {message}", err=True)


@contextmanager
def guarded(*, debug: bool = False) -> Iterator[None]:
    """Turns every failure inside into a sentence on stderr and an exit code.

    With `debug` the traceback goes out, too. A reader of our output who has gone away ends the
    command without a word, as it ends any program in a pipe.
    """
    try:
        yield
        sys.stdout.flush()
    except (SystemExit, click.exceptions.Exit, click.ClickException):
        raise
    except KeyboardInterrupt:
        _leave(INTERRUPTED)
    except BrokenPipeError:
        _reader_left()
    except Exception as failure:
        if debug:
            import traceback

            traceback.print_exc()
        message, code = _described(failure)
        complain(message)
        _leave(code)


def _leave(code: int) -> NoReturn:
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _reader_left()
    sys.exit(code)


def _reader_left() -> NoReturn:
    """Nothing more can be written; the interpreter's own flush at exit must not try."""
    ours = sys.__stdout__
    if ours is not None and sys.stdout is ours:
        os.dup2(os.open(os.devnull, os.O_WRONLY), ours.fileno())
    sys.exit(128 + 13)


def _described(failure: Exception) -> tuple[str, int]:
    if isinstance(failure, CliError):
        return failure.message, failure.code
    if isinstance(failure, OSError):
        name = f" {failure.filename}" if failure.filename else ""
        code = errno.errorcode.get(failure.errno or 0, "")
        return f"{failure.strerror or code or failure}:{name}".rstrip(":"), IO
    from kvstore.errors import EtcdError

    if isinstance(failure, EtcdError):
        return _described_call(failure)
    if isinstance(failure, ValueError):
        return str(failure), BAD_ARGS
    return f"{type(failure).__name__}: {failure} (run with --debug for the details)", ERROR


def _described_call(failure: Exception) -> tuple[str, int]:
    from kvstore.client import (
        ConnectError,
        DeadlineError,
        KvError,
        NotSupportedError,
        Outcome,
        UnavailableError,
    )

    if not isinstance(failure, KvError):
        return str(failure), ERROR
    where = failure.endpoint or "the server"
    unsure = ""
    if failure.outcome is Outcome.UNKNOWN:
        unsure = "; whether the change was made is not known"
    if isinstance(failure, ConnectError):
        reason = _reason(failure.message)
        advice = "start a server there or name another one with --endpoints"
        return f"cannot connect to {where} ({reason}); {advice}", BAD_CONNECTION
    if isinstance(failure, DeadlineError) and not failure.message.startswith("etcdserver:"):
        late = f"context deadline exceeded: {where} gave no answer in time{unsure}"
        return f"{late}; a larger --command-timeout waits longer", ERROR
    if isinstance(failure, NotSupportedError):
        return f"{failure.message or 'not supported'} (by {where})", BAD_FEATURE
    if isinstance(failure, UnavailableError) and not failure.message.startswith("etcdserver:"):
        return f"lost the connection to {where} ({_reason(failure.message)}){unsure}", ERROR
    hint = _ADVICE.get(failure.message)
    return failure.message + (f"\n  {hint}" if hint else ""), ERROR


def explained(failure: Exception, *, short: bool = False) -> str:
    """The sentence about a failed call; `short`: what happened, without advice."""
    if not short:
        return _described(failure)[0]
    message = getattr(failure, "message", str(failure))
    return message if message.startswith("etcdserver:") else _reason(message)


def _reason(message: str) -> str:
    """The end of gRPC's chain of reasons, which is the one that says something."""
    for sign in ("Connection refused", "Name or service not known", "No route to host"):
        if sign.lower() in message.lower():
            return sign.lower()
    return message.rpartition(": ")[2] or message
