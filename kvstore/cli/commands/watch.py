"""`watch`: changes as they happen, one watch or (interactive) many, and commands run on them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from kvstore.cli.context import Session, as_bytes
from kvstore.cli.exits import INTERRUPTED, INVALID_INPUT, CliError, bad_args, complain
from kvstore.cli.gotext import quoted
from kvstore.cli.options import ClientCommand

if TYPE_CHECKING:
    from kvstore.client.blocking import Watch
    from kvstore.client.values import KeyValue, WatchResponse

__all__ = ("watch",)

_SEPARATOR = "kvstore.cli.watch.command"
_ARGUMENTS = "bad number of arguments"


class _Wanted(NamedTuple):
    """One watch as asked for."""

    key: bytes
    options: dict[str, Any]
    """Keyword arguments of `Client.watch`."""
    command: list[str]
    """Run on each event; empty for none."""


class _WatchCommand(ClientCommand):
    """Keeps what stands behind `--` apart from the keys."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            place = args.index("--")
            ctx.meta[_SEPARATOR] = args[place + 1 :]
            args = args[:place]
        return super().parse_args(ctx, args)


_OPTIONS = (
    click.Option(["--prefix"], is_flag=True, help="All keys that begin with KEY."),
    click.Option(["--rev"], default=0, help="From this revision on (0: from now on)."),
    click.Option(["--prev-kv"], is_flag=True, help="Also show what each key held before."),
    click.Option(
        ["--progress-notify"], is_flag=True, help="Say now and then how far the watch has come."
    ),
)
_LINE = click.Command(
    "watch",
    params=[*_OPTIONS, click.Argument(["args"], nargs=-1, type=click.UNPROCESSED)],
    add_help_option=False,
)
"""A watch as it is typed in interactive mode."""


@click.command(
    cls=_WatchCommand,
    examples=(
        "kvstore watch greeting",
        "kvstore watch services/ --prefix --prev-kv",
        "kvstore watch jobs/ --prefix -- sh -c 'echo $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY'",
        "kvstore watch -i                      # then lines like: watch KEY --rev=5",
    ),
)
@click.option("-i", "--interactive", is_flag=True, help="Read watches from standard input.")
@click.option("--exec", "shell", metavar="CMD", help="Run CMD on each event, as after `--`.")
@click.argument("args", nargs=-1, metavar="KEY [RANGE_END] [-- COMMAND...]", type=click.UNPROCESSED)
@click.pass_context
def watch(
    ctx: click.Context,
    /,
    args: tuple[str, ...],
    interactive: bool,
    shell: str | None,
    **options: Any,
) -> None:
    """Show the changes of a key or range until interrupted.

    A command after `--` runs once per event with ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE,
    ETCD_WATCH_KEY and ETCD_WATCH_VALUE (quoted as in Go) in its environment, and the same as
    KVSTORE_WATCH_....
    """
    session: Session = ctx.obj
    session.printer.check_table()
    command = ctx.meta.get(_SEPARATOR) or (shlex.split(shell) if shell else [])
    if interactive:
        _read_watches(session, command)
        return
    wanted = _wanted(args, options, command, os.environ)
    show = _Show(session)
    show.run(wanted)


watch.params = [*_OPTIONS, *watch.params]


def _wanted(
    args: tuple[str, ...],
    options: Mapping[str, Any],
    command: list[str],
    environment: Mapping[str, str],
) -> _Wanted:
    if not args:
        typed = environment.get("KVSTORE_WATCH_KEY", environment.get("ETCDCTL_WATCH_KEY"))
        if typed is not None:
            end = environment.get("KVSTORE_WATCH_RANGE_END") or environment.get(
                "ETCDCTL_WATCH_RANGE_END"
            )
            args = (typed, end) if end else (typed,)
    if not 1 <= len(args) <= 2:
        raise bad_args(_ARGUMENTS)
    found: dict[str, Any] = {
        "start_revision": options["rev"],
        "prev_kv": options["prev_kv"],
        "progress_notify": options["progress_notify"],
    }
    if len(args) == 2:
        if options["prefix"]:
            raise bad_args("`range_end` and `--prefix` are mutually exclusive")
        found["range_end"] = as_bytes(args[1])
    else:
        found["prefix"] = options["prefix"]
    return _Wanted(as_bytes(args[0]), found, command)


class _Show:
    """Prints responses of any number of watches, one at a time."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._printing = threading.Lock()
        self.watches: list[Watch] = []

    def run(self, wanted: _Wanted) -> None:
        """Shows one watch until it ends; how it ended is raised."""
        from kvstore.client.errors import WatchCanceled, WatchCompacted

        try:
            stream = self._session.client.watch(wanted.key, **wanted.options)
            self.watches.append(stream)
            for response in stream:
                self._show(response, wanted.command)
        except (WatchCanceled, WatchCompacted) as end:
            self._show_end(end)
            raise CliError("watch is canceled by the server", INTERRUPTED) from None

    def _show(self, response: WatchResponse, command: list[str]) -> None:
        with self._printing:
            if response.is_progress:
                click.echo(f"progress notify: {response.revision}")
            self._session.printer.show("watch", _as_message(response))
            for event in response.events if command else ():
                _execute(command, response.header.revision, event.type.name, event.kv)

    def _show_end(self, end: Any) -> None:
        from kvstore.pb import rpc_pb2 as pb

        with self._printing:
            click.echo(f"watch was canceled ({end.message})", err=True)
            compacted = getattr(end, "compact_revision", 0)
            last = pb.WatchResponse(canceled=True, compact_revision=compacted)
            self._session.printer.show("watch", last)


def _as_message(response: WatchResponse) -> Any:
    from kvstore.pb import kv_pb2
    from kvstore.pb import rpc_pb2 as pb

    def pair(kv: KeyValue) -> Any:
        return kv_pb2.KeyValue(
            key=kv.key,
            value=kv.value,
            create_revision=kv.create_revision,
            mod_revision=kv.mod_revision,
            version=kv.version,
            lease=kv.lease,
        )

    header = response.header
    message = pb.WatchResponse(
        header=pb.ResponseHeader(
            cluster_id=header.cluster_id,
            member_id=header.member_id,
            revision=header.revision,
            raft_term=header.raft_term,
        )
    )
    for event in response.events:
        added = message.events.add(kv=pair(event.kv))
        if event.is_delete:
            added.type = kv_pb2.Event.DELETE
        if event.prev_kv is not None:
            added.prev_kv.CopyFrom(pair(event.prev_kv))
    return message


def _execute(command: list[str], revision: int, kind: str, kv: KeyValue) -> None:
    told = {
        "REVISION": str(revision),
        "EVENT_TYPE": quoted(kind),
        "KEY": quoted(kv.key),
        "VALUE": quoted(kv.value),
    }
    environment = dict(os.environ)
    for prefix in ("ETCD_WATCH_", "KVSTORE_WATCH_"):
        environment.update({prefix + name: value for name, value in told.items()})
    sys.stdout.flush()
    try:
        done = subprocess.run(command, env=environment, check=False)
    except OSError as error:
        raise CliError(f"command {command} error ({error.strerror})") from None
    if done.returncode:
        raise CliError(f"command {command} error (exit status {done.returncode})")


def _read_watches(session: Session, command: list[str]) -> None:
    """Starts a watch per line; a terminal's end of input ends all, a pipe's leaves them running."""
    show = _Show(session)
    failed: list[CliError] = []
    threads: list[threading.Thread] = []

    def follow(wanted: _Wanted) -> None:
        from kvstore.errors import EtcdError

        try:
            show.run(wanted)
        except CliError as error:
            failed.append(error)
            complain(error.message)
        except EtcdError as error:
            failed.append(CliError(error.message))
            complain(error.message)

    for line in sys.stdin:
        try:
            words = shlex.split(line)
        except ValueError as error:
            complain(f"{line.strip()!r}: {error}")
            continue
        if words == ["progress"]:
            for each in show.watches:
                each.request_progress()
        elif words:
            try:
                wanted = _from_line(words, command)
            except CliError as error:
                complain(error.message)
                continue
            thread = threading.Thread(target=follow, args=(wanted,), daemon=True)
            threads.append(thread)
            thread.start()
    if not sys.stdin.isatty():
        for thread in threads:
            thread.join()
    if failed:
        raise SystemExit(failed[-1].code)


def _from_line(words: list[str], command: list[str]) -> _Wanted:
    if words[0] != "watch":
        raise CliError(
            f"Invalid command {words[0]!r}: say `watch KEY [RANGE_END] [options]` or `progress`",
            INVALID_INPUT,
        )
    if "--" in words:
        place = words.index("--")
        words, command = words[:place], words[place + 1 :]
    try:
        parsed = _LINE.make_context("watch", words[1:])
    except click.UsageError as error:
        raise CliError(error.format_message(), INVALID_INPUT) from None
    args = parsed.params.pop("args")
    return _wanted(args, parsed.params, command, {})
