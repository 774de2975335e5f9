"""`make-mirror`: another cluster gets every change of this one's keys."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from kvstore.cli.context import Session, as_bytes
from kvstore.cli.exits import INTERRUPTED, CliError, bad_args
from kvstore.cli.options import ClientCommand

if TYPE_CHECKING:
    from kvstore.client.blocking import Client
    from kvstore.client.txn import Op
    from kvstore.client.values import Event

__all__ = ("make_mirror",)

_COUNT_PAUSE_S = 30.0


class _CleansUp(ClientCommand):
    cleans_up = True


@click.command(
    "make-mirror",
    cls=_CleansUp,
    examples=(
        "kvstore make-mirror 10.1.0.1:2379",
        "kvstore make-mirror 10.1.0.1:2379 --prefix=app/ --dest-prefix=mirror/app/",
    ),
)
@click.option("--prefix", default="", help="Only keys that begin with this.")
@click.option("--dest-prefix", default="", help="What they begin with over there instead.")
@click.option("--no-dest-prefix", is_flag=True, help="Over there they lose the prefix.")
@click.option("--rev", default=0, help="Copy nothing; follow the changes from this revision on.")
@click.option("--max-txn-ops", default=128, show_default=True, help="Changes per transaction.")
@click.option("--dest-cacert", metavar="FILE", help="PEM file of the destination's authorities.")
@click.option("--dest-cert", metavar="FILE", help="PEM file of our certificate over there.")
@click.option("--dest-key", metavar="FILE", help="PEM file of that certificate's key.")
@click.option("--dest-user", default="", metavar="USER", help="NAME[:PASSWORD] over there.")
@click.option("--dest-password", default="", metavar="TEXT", help="Password of --dest-user.")
@click.option(
    "--dest-insecure-transport", default=True, type=click.BOOL, help="No TLS over there [true]."
)
@click.argument("args", nargs=-1, metavar="DESTINATION", type=click.UNPROCESSED)
@click.pass_obj
def make_mirror(session: Session, /, args: tuple[str, ...], **options: Any) -> None:
    """Copy all keys to another cluster, then follow every change until interrupted.

    The number of keys that were written over there is printed every 30 seconds.
    """
    if len(args) != 1:
        raise bad_args("make-mirror takes one destination argument")
    if options["dest_prefix"] and options["no_dest_prefix"]:
        raise bad_args("`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time")
    if options["max_txn_ops"] < 1:
        raise bad_args("--max-txn-ops must be at least 1")
    prefix = as_bytes(options["prefix"])
    there = as_bytes(options["dest_prefix"]) or (b"" if options["no_dest_prefix"] else prefix)
    with _destination(session, args[0], options) as destination:
        mirror = _Mirror(session, destination, prefix, there, options["max_txn_ops"])
        counter = threading.Thread(target=mirror.tell, daemon=True)
        counter.start()
        try:
            revision = options["rev"] or mirror.copy() + 1
            mirror.follow(revision)
        finally:
            mirror.stop.set()


def _destination(session: Session, endpoint: str, options: dict[str, Any]) -> Client:
    if not options["dest_insecure_transport"] and "://" not in endpoint:
        endpoint = f"https://{endpoint}"
    user, _, password = options["dest_user"].partition(":")
    return session.connect(
        (endpoint,),
        ca=options["dest_cacert"],
        cert=options["dest_cert"],
        key=options["dest_key"],
        user=user,
        password=options["dest_password"] or password,
    )


class _Mirror:
    """Copies, then follows, from one client to another."""

    def __init__(
        self, session: Session, destination: Client, prefix: bytes, there: bytes, max_ops: int
    ) -> None:
        self._source = session.client
        self._destination = destination
        self._prefix = prefix
        self._there = there
        self._max_ops = max_ops
        self._total = 0
        self.stop = threading.Event()

    def tell(self) -> None:
        """Prints the count every now and then until `stop`."""
        while not self.stop.wait(_COUNT_PAUSE_S):
            click.echo(str(self._total))

    def copy(self) -> int:
        """Every key as of one revision, which it returns."""
        from kvstore.client.keys import prefix_end
        from kvstore.client.limits import SCAN_PAGE
        from kvstore.client.txn import Put

        start, end = self._prefix or b"\0", prefix_end(self._prefix)
        revision = 0
        while True:
            found = self._source.range(start, range_end=end, revision=revision, limit=SCAN_PAGE)
            revision = revision or found.header.revision
            self._send([Put(self._renamed(kv.key), kv.value) for kv in found.kvs])
            if not found.more:
                return revision
            start = found.kvs[-1].key + b"\0"

    def follow(self, revision: int) -> None:
        """Every change from `revision` on; only an error ends it."""
        from kvstore.client.errors import WatchCompacted

        try:
            with self._source.watch(self._prefix, prefix=True, start_revision=revision) as changes:
                for response in changes:
                    self._send_events(response.events)
        except WatchCompacted as end:
            raise CliError(
                f"the history before revision {end.compact_revision} was compacted while the"
                " mirror was behind; start it anew",
                INTERRUPTED,
            ) from None

    def _send_events(self, events: Sequence[Event]) -> None:
        """In order; changes of one revision stay together as far as --max-txn-ops lets them."""
        from kvstore.client.txn import Delete, Put

        pending: list[Op] = []
        revision = 0
        for event in events:
            if event.kv.mod_revision != revision and pending:
                self._send(pending)
                pending = []
            revision = event.kv.mod_revision
            key = self._renamed(event.kv.key)
            pending.append(Delete(key) if event.is_delete else Put(key, event.kv.value))
        self._send(pending)

    def _renamed(self, key: bytes) -> bytes:
        return self._there + key.removeprefix(self._prefix)

    def _send(self, operations: Sequence[Op]) -> None:
        from kvstore.client.errors import UnavailableError

        for first in range(0, len(operations), self._max_ops):
            part = operations[first : first + self._max_ops]
            while True:
                try:
                    self._destination.txn().then(*part).commit()
                    break
                except UnavailableError:
                    # Writing the same again does no harm, and order is kept by waiting.
                    time.sleep(1.0)
            self._total += len(part)
