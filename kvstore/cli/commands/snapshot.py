"""`snapshot`: backups of the whole state, and new clusters made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from kvstore.cli.context import Session
from kvstore.cli.exits import ERROR, IO, CliError, bad_args
from kvstore.cli.options import ClientCommand, ClientGroup

__all__ = (
    "restore",
    "save",
    "snapshot",
    "status",
)


@click.group(
    cls=ClientGroup,
    examples=("kvstore snapshot save backup.db", "kvstore snapshot status backup.db -w table"),
)
def snapshot() -> None:
    """Backups of the whole state."""


class _CleansUp(ClientCommand):
    """Ctrl-C leaves no half a file behind."""

    cleans_up = True


@snapshot.command(
    cls=_CleansUp, examples=("kvstore --endpoints=10.0.0.1:2379 snapshot save backup.db",)
)
@click.argument("args", nargs=-1, metavar="FILE", type=click.UNPROCESSED)
@click.pass_obj
def save(session: Session, /, args: tuple[str, ...]) -> None:
    """Save one member's state to a file, checked; the member serves on meanwhile."""
    from kvstore.cli.progress import progress_bar

    if len(args) != 1:
        raise bad_args("snapshot save expects one argument")
    if len(session.endpoints) != 1:
        named = " ".join(session.endpoints)
        raise bad_args(f"snapshot must be requested to one selected node, not multiple [{named}]")
    target = Path(args[0])
    if not target.parent.is_dir():
        raise CliError(f"could not open {target}.part: {target.parent} is not a directory", IO)
    with progress_bar("Saving", sizes=True) as move:
        session.client.snapshot(
            target,
            endpoint=session.endpoints[0],
            progress=lambda received, remaining: move(received, received + remaining),
        )
    click.echo(f"Snapshot saved at {args[0]}")


@snapshot.command(examples=("kvstore snapshot status backup.db -w table",))
@click.argument("args", nargs=-1, metavar="FILE", type=click.UNPROCESSED)
@click.pass_obj
def status(session: Session, /, args: tuple[str, ...]) -> None:
    """Check a backup, and show its hash, revision, number of versions and size."""
    # Imported here, as are all parts of the server: the other commands do without.
    from kvstore.serving.backups import RestoreError, snapshot_status

    if len(args) != 1:
        raise bad_args("snapshot status requires exactly one argument")
    try:
        session.printer.show("snapshot_status", snapshot_status(_existing(args[0])))
    except RestoreError as error:
        raise CliError(str(error), ERROR) from None


@snapshot.command(
    cls=_CleansUp,
    examples=(
        "kvstore snapshot restore backup.db --data-dir=new.etcd",
        "kvstore snapshot restore backup.db --name=n1 --data-dir=n1.etcd \\",
        "    --initial-cluster=n1=http://10.0.0.1:2380,n2=http://10.0.0.2:2380 \\",
        "    --initial-advertise-peer-urls=http://10.0.0.1:2380",
    ),
)
@click.option("--name", default="default", show_default=True, help="Name of the new member.")
@click.option("--data-dir", default="", metavar="DIR", help="Where to make it [NAME.etcd].")
@click.option("--wal-dir", default="", metavar="DIR", help="Where its log goes [in the data dir].")
@click.option(
    "--initial-cluster",
    default="",
    metavar="NAME=URL,...",
    help="All members of the new cluster [this one alone].",
)
@click.option(
    "--initial-cluster-token",
    default="etcd-cluster",
    show_default=True,
    help="Makes clusters from one backup different; the same for all members.",
)
@click.option(
    "--initial-advertise-peer-urls",
    default="http://localhost:2380",
    show_default=True,
    metavar="URLS",
    help="Where the other members reach this one.",
)
@click.option(
    "--skip-hash-check",
    is_flag=True,
    help="FILE is a snapshot from a data directory, which has no SHA-256 at its end.",
)
@click.argument("args", nargs=-1, metavar="FILE", type=click.UNPROCESSED)
@click.pass_obj
def restore(_session: Session, /, args: tuple[str, ...], **options: Any) -> None:
    """Make the data directory of a member of a new cluster from a backup.

    Keys and leases are those of the backup, the revision goes on, the members are new. Make
    every member's directory from the same file with the same --initial-cluster, then start
    each with `kvstore serve` and the same flags.
    """
    from kvstore.serving.backups import RestoreError
    from kvstore.serving.backups import restore as make

    if len(args) != 1:
        raise bad_args("snapshot restore requires exactly one argument")
    name = options["name"]
    urls = _list(options["initial_advertise_peer_urls"])
    cluster = _cluster(options["initial_cluster"]) or {name: urls}
    data_dir = Path(options["data_dir"] or f"{name}.etcd")
    try:
        made = make(
            _existing(args[0]),
            name=name,
            data_dir=data_dir,
            wal_dir=Path(options["wal_dir"]) if options["wal_dir"] else None,
            initial_cluster=cluster,
            token=options["initial_cluster_token"],
            advertise_peer_urls=urls,
            check_hash=not options["skip_hash_check"],
        )
    except RestoreError as error:
        raise CliError(str(error)) from None
    click.echo(
        f"Restored revision {made.revision} to {made.data_dir}"
        f" as member {made.member_id:x} of the new cluster {made.cluster_id:x}"
    )


def _existing(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise CliError(f"there is no file {name}", IO)
    return path


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _cluster(text: str) -> dict[str, tuple[str, ...]]:
    members: dict[str, tuple[str, ...]] = {}
    for part in _list(text):
        name, mark, url = part.partition("=")
        if not (name and mark and url):
            raise bad_args(f"--initial-cluster: {part!r} is not NAME=URL")
        members[name] = (*members.get(name, ()), url)
    return members
