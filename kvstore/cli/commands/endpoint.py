"""`endpoint`, `defrag`: questions and orders to single members; `alarm`, `move-leader`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from kvstore.cli.context import Session, parse_member
from kvstore.cli.exits import ERROR, CliError, bad_args, explained
from kvstore.cli.options import ClientCommand, ClientGroup

__all__ = (
    "alarm",
    "defrag",
    "disarm",
    "endpoint",
    "hashkv",
    "health",
    "list_",
    "move_leader",
    "status",
)

T = TypeVar("T")

_PARALLEL = 16
"""Endpoints asked at the same time."""

_cluster = click.option("--cluster", is_flag=True, help="All members, from the member list.")


@click.group(
    cls=ClientGroup,
    examples=("kvstore endpoint health --cluster", "kvstore endpoint status -w table"),
)
def endpoint() -> None:
    """How single members are doing."""


@endpoint.command(examples=("kvstore endpoint health", "kvstore endpoint health --cluster"))
@_cluster
@click.pass_obj
def health(session: Session, /, cluster: bool) -> None:
    """Check that members serve linearizable reads and have no alarm."""
    from kvstore.client.errors import KvError

    def ask(where: str) -> Any:
        found = session.client.health(where, timeout=session.timeout_s)
        if found.error:
            found = type(found)(
                where, False, found.took_s, explained(KvError(found.error), short=True)
            )
        return found

    found = _each(session, cluster, ask)
    session.printer.show("health", found)
    sick = [each for each in found if not each.healthy]
    if session.form == "simple":
        for each in sick:
            click.echo(
                f"{each.endpoint} is unhealthy: failed to commit proposal: {each.error}", err=True
            )
    if sick:
        raise CliError("unhealthy cluster")


@endpoint.command(examples=("kvstore endpoint status --cluster -w table",))
@_cluster
@click.pass_obj
def status(session: Session, /, cluster: bool) -> None:
    """Show version, size and place in the log of members."""
    from kvstore.client import operations

    _ask_and_show(
        session,
        cluster,
        "status",
        "Failed to get the status of endpoint",
        lambda where: session.call(operations.status(endpoint=where)),
    )


@endpoint.command(examples=("kvstore endpoint hashkv --cluster", "kvstore endpoint hashkv --rev 9"))
@_cluster
@click.option("--rev", default=0, help="Of the history up to this revision (0: all of it).")
@click.pass_obj
def hashkv(session: Session, /, cluster: bool, rev: int) -> None:
    """Show the hash of members' histories; equal histories have equal hashes."""
    from kvstore.client import operations

    _ask_and_show(
        session,
        cluster,
        "hash",
        "Failed to get the hash of endpoint",
        lambda where: session.call(operations.hash_kv(revision=rev, endpoint=where)),
    )


def _ask_and_show(
    session: Session, cluster: bool, kind: str, trouble: str, ask: Callable[[str], Any]
) -> None:
    """Shows what could be asked; the others are named on stderr and end with an error."""
    from kvstore.errors import EtcdError

    def attempt(where: str) -> Any:
        try:
            return where, ask(where), None
        except EtcdError as error:
            return where, None, error

    answers = _each(session, cluster, attempt)
    for where, _, error in answers:
        if error is not None:
            click.echo(f"{trouble} {where} ({explained(error, short=True)})", err=True)
    session.printer.show(kind, [(where, found) for where, found, error in answers if not error])
    errors = [error for _, _, error in answers if error is not None]
    if errors:
        raise CliError(explained(errors[-1], short=True))


def _each(session: Session, cluster: bool, ask: Callable[[str], T]) -> list[T]:
    from concurrent.futures import ThreadPoolExecutor

    endpoints = session.member_endpoints() if cluster else session.endpoints
    if not endpoints:
        raise CliError("no member has a client URL")
    if len(endpoints) == 1:
        return [ask(endpoints[0])]
    session.client  # noqa: B018 - made here, before threads would each make one
    with ThreadPoolExecutor(min(len(endpoints), _PARALLEL)) as pool:
        return list(pool.map(ask, endpoints))


@click.command(cls=ClientCommand, examples=("kvstore defrag", "kvstore defrag --cluster"))
@_cluster
@click.pass_obj
def defrag(session: Session, /, cluster: bool) -> None:
    """Give space that the database no longer needs back to the file system.

    A member serves nothing meanwhile, so members are done one after the other.
    """
    from kvstore.client import operations
    from kvstore.errors import EtcdError

    failed = False
    for where in session.member_endpoints() if cluster else session.endpoints:
        try:
            session.call(operations.defragment(endpoint=where))
        except EtcdError as error:
            failed = True
            reason = explained(error, short=True)
            click.echo(f"Failed to defragment etcd member[{where}] ({reason})", err=True)
        else:
            click.echo(f"Finished defragmenting etcd member[{where}]")
    if failed:
        raise SystemExit(ERROR)


@click.group(cls=ClientGroup, examples=("kvstore alarm list", "kvstore alarm disarm"))
def alarm() -> None:
    """Alarms: reasons for the cluster to refuse writes."""


@alarm.command("list", examples=("kvstore alarm list",))
@click.pass_obj
def list_(session: Session, /) -> None:
    """List the alarms that are raised."""
    from kvstore.client import operations

    session.printer.check_table()
    session.printer.show("alarms", session.call(operations.alarms()))


@alarm.command(examples=("kvstore alarm disarm",))
@click.pass_obj
def disarm(session: Session, /) -> None:
    """Clear all alarms; shows those that were raised."""
    from kvstore.client import operations
    from kvstore.client.values import AlarmType
    from kvstore.pb import rpc_pb2 as pb

    session.printer.check_table()
    cleared = pb.AlarmResponse()
    for each in session.call(operations.alarms()).alarms:
        answer = session.call(operations.alarm(each.memberID, AlarmType(each.alarm), active=False))
        cleared.alarms.extend(answer.alarms)
    session.printer.show("alarms", cleared)


@click.command("move-leader", cls=ClientCommand, examples=("kvstore move-leader 8211f1d0f64f3269",))
@click.argument("args", nargs=-1, metavar="MEMBER_ID", type=click.UNPROCESSED)
@click.pass_obj
def move_leader(session: Session, /, args: tuple[str, ...]) -> None:
    """Have the leader hand over to another member; --endpoints must include the leader."""
    from kvstore.client import operations
    from kvstore.errors import EtcdError

    if len(args) != 1:
        raise bad_args("move-leader command needs 1 argument")
    target = parse_member(args[0])
    trouble: EtcdError | None = None
    for where in session.endpoints:
        try:
            found = session.call(operations.status(endpoint=where))
        except EtcdError as error:
            trouble = error
            continue
        if found.leader == found.header.member_id:
            session.call(operations.move_leader_at(where, target))
            session.show_moved(found.leader, target)
            return
    if trouble is not None:
        raise trouble
    raise bad_args(f"no leader endpoint given at [{' '.join(session.endpoints)}]")
