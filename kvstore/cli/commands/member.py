"""`member`: who belongs to the cluster."""

from __future__ import annotations

import click

from kvstore.cli.context import Session, parse_member
from kvstore.cli.exits import CliError, bad_args
from kvstore.cli.gotext import quoted
from kvstore.cli.options import ClientGroup
from kvstore.cli.printers import emit

__all__ = (
    "add",
    "list_",
    "member",
    "promote",
    "remove",
    "update",
)

_SCHEMES = ("http://", "https://", "unix://", "unixs://")


@click.group(
    cls=ClientGroup,
    examples=(
        "kvstore member list -w table",
        "kvstore member add node4 --peer-urls=http://10.0.0.4:2380 --learner",
    ),
)
def member() -> None:
    """The members of the cluster."""


@member.command("list", examples=("kvstore member list", "kvstore member list -w table"))
@click.option(
    "--consistency", default="l", show_default=True, help="l: linearizable; s: one member's view."
)
@click.pass_obj
def list_(session: Session, /, consistency: str) -> None:
    """List the members."""
    from kvstore.client import operations

    if consistency not in ("l", "s"):
        raise bad_args(f'unknown consistency flag "{consistency}"')
    answer = session.call(operations.member_list(linearizable=consistency == "l"))
    session.printer.show("members", answer)


@member.command(
    examples=(
        "kvstore member add node4 --peer-urls=http://10.0.0.4:2380",
        "kvstore member add node4 --peer-urls=http://10.0.0.4:2380 --learner",
    )
)
@click.option("--peer-urls", default="", metavar="URLS", help="Where it will listen for members.")
@click.option("--learner", is_flag=True, help="Without a vote until it is promoted.")
@click.argument("args", nargs=-1, metavar="NAME", type=click.UNPROCESSED)
@click.pass_obj
def add(session: Session, /, args: tuple[str, ...], peer_urls: str, learner: bool) -> None:
    """Add a member, and print what to start it with."""
    from kvstore.client import operations

    if not args:
        raise bad_args("member name not provided")
    if len(args) > 1:
        raise bad_args("too many arguments")
    urls = _urls(peer_urls)
    answer = session.call(operations.member_add(urls, is_learner=learner))
    session.printer.show("member_add", answer)
    if session.form != "simple":
        return
    name = args[0]
    cluster = ",".join(
        f"{name if each.ID == answer.member.ID else each.name}={url}"
        for each in answer.members
        for url in each.peerURLs
    )
    emit(
        (
            "",
            f"ETCD_NAME={quoted(name)}",
            f"ETCD_INITIAL_CLUSTER={quoted(cluster)}",
            f"ETCD_INITIAL_ADVERTISE_PEER_URLS={quoted(peer_urls)}",
            'ETCD_INITIAL_CLUSTER_STATE="existing"',
        )
    )
    if session.on_terminal:
        click.echo(
            f"\nStart it with: kvstore serve --name={name} --initial-cluster={cluster}"
            f" --initial-advertise-peer-urls={peer_urls} --listen-peer-urls={peer_urls}"
            " --initial-cluster-state=existing",
            err=True,
        )


def _urls(text: str) -> list[str]:
    if not text:
        raise bad_args("member peer urls not provided")
    urls = text.split(",")
    for url in urls:
        if not url.startswith(_SCHEMES):
            raise CliError(f"URL scheme must be http, https, unix, or unixs: {url}")
    return urls


@member.command(examples=("kvstore member remove 8211f1d0f64f3269",))
@click.argument("args", nargs=-1, metavar="ID", type=click.UNPROCESSED)
@click.pass_obj
def remove(session: Session, /, args: tuple[str, ...]) -> None:
    """Remove a member for good."""
    from kvstore.client import operations

    member_id = _only_id(args)
    answer = session.call(operations.member_remove(member_id))
    session.printer.show("member_remove", answer, **session.in_words(member_id=member_id))


@member.command(
    examples=("kvstore member update 8211f1d0f64f3269 --peer-urls=http://10.0.0.9:2380",)
)
@click.option("--peer-urls", default="", metavar="URLS", help="Where it listens from now on.")
@click.argument("args", nargs=-1, metavar="ID", type=click.UNPROCESSED)
@click.pass_obj
def update(session: Session, /, args: tuple[str, ...], peer_urls: str) -> None:
    """Change the peer URLs of a member."""
    from kvstore.client import operations

    member_id = _only_id(args)
    answer = session.call(operations.member_update(member_id, _urls(peer_urls)))
    session.printer.show("member_update", answer, **session.in_words(member_id=member_id))


@member.command(examples=("kvstore member promote 8211f1d0f64f3269",))
@click.argument("args", nargs=-1, metavar="ID", type=click.UNPROCESSED)
@click.pass_obj
def promote(session: Session, /, args: tuple[str, ...]) -> None:
    """Give a learner that has caught up a vote."""
    from kvstore.client import operations

    member_id = _only_id(args)
    answer = session.call(operations.member_promote(member_id))
    session.printer.show("member_promote", answer, **session.in_words(member_id=member_id))


def _only_id(args: tuple[str, ...]) -> int:
    if len(args) != 1:
        raise bad_args("member ID is not provided")
    return parse_member(args[0])
