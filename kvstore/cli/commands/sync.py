"""`lock` and `elect`: one holder at a time, as long as the command runs."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import click

from kvstore.cli.context import Session, as_bytes
from kvstore.cli.exits import CliError, bad_args
from kvstore.cli.options import ClientCommand
from kvstore.cli.signals import termination_interrupts

__all__ = ("elect", "lock")

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


class _CleansUp(ClientCommand):
    """Ctrl-C and SIGTERM end the waiting; what is held is given back."""

    cleans_up = True


@click.command(
    cls=_CleansUp,
    examples=(
        "kvstore lock nightly-job                 # until Ctrl-C",
        "kvstore lock nightly-job -- ./backup.sh  # exit code is the command's",
        "kvstore lock --ttl=30 nightly-job -- ./backup.sh",
    ),
)
@click.option("--ttl", default=10, show_default=True, help="Seconds until a lost holder is out.")
@click.argument("args", nargs=-1, metavar="LOCKNAME [COMMAND...]", type=click.UNPROCESSED)
@click.pass_obj
def lock(session: Session, /, args: tuple[str, ...], ttl: int) -> None:
    """Wait for a lock and hold it until interrupted, or while COMMAND runs.

    COMMAND finds the lock's key and revision in ETCD_LOCK_KEY and ETCD_LOCK_REV (and
    KVSTORE_LOCK_KEY, KVSTORE_LOCK_REV); KVSTORE_LOCK_TOKEN is a number that grows from holder to
    holder.
    """
    if not args:
        raise bad_args("lock takes a lock name argument and an optional command to execute")
    name, *command = args
    session.printer.check_table()
    code = 0
    with termination_interrupts():
        held = session.client.lock(as_bytes(name), ttl=ttl).acquire()
        try:
            answer = _own_key(session, held.key, "lock lost on init")
            if command:
                code = _run(command, held.key, answer.header.revision, held.token)
            else:
                session.printer.show("get", answer)
                held.lease.wait_lost()
                raise CliError("session expired")
        except KeyboardInterrupt:
            return
        finally:
            held.release()
    if code:
        raise CliError(f"exit status {code}", code)


def _own_key(session: Session, key: bytes, complaint: str) -> Any:
    from kvstore.client import operations

    answer = session.call(operations.range(key))
    if not answer.kvs:
        raise CliError(complaint)
    return answer


def _run(command: list[str], key: bytes, revision: int, token: int) -> int:
    """The command's exit code. Signals are for the command; the lock is held until it ends."""
    environment = {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items()}
    for prefix in (b"ETCD_LOCK_", b"KVSTORE_LOCK_"):
        environment[prefix + b"KEY"] = key
        environment[prefix + b"REV"] = b"%d" % revision
    environment[b"KVSTORE_LOCK_TOKEN"] = b"%d" % token
    sys.stdout.flush()
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise CliError(
            f"cannot run {command[0]}: {error.strerror}",
            _NOT_FOUND if missing else _NOT_EXECUTABLE,
        ) from None
    while True:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            continue
        return code if code >= 0 else 128 - code


@click.command(
    cls=_CleansUp,
    examples=(
        "kvstore elect leader node-1            # campaign until elected, lead until Ctrl-C",
        "kvstore elect leader -l                # show every leader",
    ),
)
@click.option("-l", "--listen", is_flag=True, help="Only watch who leads.")
@click.option("--ttl", default=60, show_default=True, help="Seconds until a lost leader is out.")
@click.argument("args", nargs=-1, metavar="ELECTION [PROPOSAL]", type=click.UNPROCESSED)
@click.pass_obj
def elect(session: Session, /, args: tuple[str, ...], listen: bool, ttl: int) -> None:
    """Campaign with PROPOSAL and lead until interrupted; or watch the leaders."""
    if not 1 <= len(args) <= 2:
        raise bad_args("elect takes one election name argument and an optional proposal argument")
    session.printer.check_table()
    name = as_bytes(args[0])
    with termination_interrupts():
        if listen:
            _observe(session, name)
            return
        if len(args) == 1:
            raise bad_args("no proposal argument but -l not set")
        leadership = session.client.election(name).campaign(as_bytes(args[1]), ttl=ttl)
        try:
            session.printer.show(
                "get", _own_key(session, leadership.key, "leadership lost on init")
            )
            leadership.lease.wait_lost()
            raise CliError("elect: session expired")
        except KeyboardInterrupt:
            return
        finally:
            leadership.resign()


def _observe(session: Session, name: bytes) -> None:
    from kvstore.pb import rpc_pb2 as pb

    try:
        for leader in session.client.election(name).observe():
            answer = pb.RangeResponse(count=1)
            answer.kvs.add(
                key=leader.key,
                value=leader.value,
                create_revision=leader.create_revision,
                mod_revision=leader.mod_revision,
                version=leader.version,
                lease=leader.lease,
            )
            session.printer.show("get", answer)
    except KeyboardInterrupt:
        return
    raise CliError("elect: observer lost")
