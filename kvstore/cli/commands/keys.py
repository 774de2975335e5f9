"""`put`, `get`, `del`, `compaction`: keys and their history."""

from __future__ import annotations

from typing import Any

import click

from kvstore.cli.context import Session, as_bytes, parse_int, parse_lease, read_input
from kvstore.cli.exits import BAD_FEATURE, CliError, bad_args
from kvstore.cli.options import ClientCommand

__all__ = ("compaction", "delete", "delete_span", "get", "get_arguments", "put", "put_arguments")

_ONE_OF = "`--prefix` and `--from-key` cannot be set at the same time, choose one"
_TOO_MANY = "too many arguments, only accept one argument when `--prefix` or `--from-key` is set"


@click.command(
    cls=ClientCommand,
    examples=(
        "kvstore put greeting hello",
        "echo hello | kvstore put greeting",
        "kvstore put session/7 alice --lease=694d5765fc71500b",
        "kvstore put -- key -value-with-dash",
    ),
)
@click.option("--lease", default="", metavar="ID", help="Lease (hexadecimal) to attach the key to.")
@click.option("--prev-kv", is_flag=True, help="Also show what the key held before.")
@click.option("--ignore-value", is_flag=True, help="Keep the value that the key has.")
@click.option("--ignore-lease", is_flag=True, help="Keep the lease that the key has.")
@click.argument("args", nargs=-1, metavar="KEY [VALUE]", type=click.UNPROCESSED)
@click.pass_obj
def put(session: Session, /, args: tuple[str, ...], **options: Any) -> None:
    """Write a key; without VALUE, what standard input gives is its value."""
    from kvstore.client import operations

    session.printer.check_table()
    key, arguments = put_arguments(args, options)
    if "value" not in arguments:
        arguments["value"] = b"" if options["ignore_value"] else read_input()
    session.printer.show("put", session.call(operations.put(key, **arguments)))


def put_arguments(args: tuple[str, ...], options: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """Key and keyword arguments of a put; no `value` among them if none was typed."""
    lease = parse_lease(options["lease"], "lease ID") if options["lease"] else 0
    if not 1 <= len(args) <= 2:
        raise bad_args("put command needs 1 argument and input from stdin or 2 arguments")
    found: dict[str, Any] = {**options, "lease": lease}
    if len(args) == 2:
        if options["ignore_value"]:
            raise bad_args("put command needs only 1 argument when 'ignore-value' is set")
        found["value"] = as_bytes(args[1])
    return as_bytes(args[0]), found


@click.command(
    cls=ClientCommand,
    examples=(
        "kvstore get greeting",
        "kvstore get services/ --prefix --keys-only",
        "kvstore get a m                       # keys from a up to, not including, m",
        "kvstore get greeting --rev=42 -w json # as it was at revision 42",
        "kvstore get '' --prefix --count-only",
    ),
)
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY ('' is every key).")
@click.option("--from-key", is_flag=True, help="All keys from KEY on, in byte order.")
@click.option("--rev", default=0, help="As of this revision (0: now).")
@click.option("--limit", default=0, help="At most so many keys (0: all).")
@click.option("--order", default="", metavar="ORDER", help="ASCEND or DESCEND.")
@click.option(
    "--sort-by", default="", metavar="FIELD", help="CREATE, KEY, MODIFY, VALUE or VERSION."
)
@click.option("--keys-only", is_flag=True, help="Leave out the values.")
@click.option("--count-only", is_flag=True, help="Only how many keys there are.")
@click.option("--print-value-only", is_flag=True, help="Only the values, in the simple form.")
@click.option(
    "--consistency",
    default="l",
    show_default=True,
    help="l: linearizable; s: what one member has, possibly old, without asking the others.",
)
@click.option("--min-create-rev", default=0, help="Only keys created at this revision or later.")
@click.option("--max-create-rev", default=0, help="Only keys created at this revision or before.")
@click.option("--min-mod-rev", default=0, help="Only keys changed at this revision or later.")
@click.option("--max-mod-rev", default=0, help="Only keys changed at this revision or before.")
@click.argument("args", nargs=-1, metavar="KEY [RANGE_END]", type=click.UNPROCESSED)
@click.pass_obj
def get(session: Session, /, args: tuple[str, ...], **options: Any) -> None:
    """Read a key, or a range of keys."""
    from kvstore.client import operations

    if options["print_value_only"] and session.form != "simple":
        raise bad_args("print-value-only is only for `--write-out=simple`")
    session.printer.check_table()
    key, arguments = get_arguments(args, options)
    answer = session.call(operations.range(key, **arguments))
    printer = session.printer_with(values_only=options["print_value_only"])
    if options["count_only"] and session.form == "simple":
        printer.show("get", answer, count_only=True)
    else:
        printer.show("get", answer)


def get_arguments(args: tuple[str, ...], options: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """Key and keyword arguments of a range."""
    key, found = _span(args, "get", options)
    if options["consistency"] not in ("l", "s"):
        raise CliError(f'unknown consistency flag "{options["consistency"]}"', BAD_FEATURE)
    if options["print_value_only"] and options["keys_only"]:
        raise bad_args("`--keys-only` and `--print-value-only` leave nothing to print, choose one")
    found.update(
        revision=options["rev"],
        limit=options["limit"],
        serializable=options["consistency"] == "s",
        keys_only=options["keys_only"],
        count_only=options["count_only"],
        min_create_revision=options["min_create_rev"],
        max_create_revision=options["max_create_rev"],
        min_mod_revision=options["min_mod_rev"],
        max_mod_revision=options["max_mod_rev"],
        **_sorting(options["order"], options["sort_by"]),
    )
    return key, found


def _sorting(order: str, sort_by: str) -> dict[str, Any]:
    from kvstore.client.values import SortOrder, SortTarget

    orders = {"": SortOrder.NONE, "ASCEND": SortOrder.ASCEND, "DESCEND": SortOrder.DESCEND}
    targets = {
        "": SortTarget.KEY,
        "CREATE": SortTarget.CREATE,
        "KEY": SortTarget.KEY,
        "MODIFY": SortTarget.MOD,
        "VALUE": SortTarget.VALUE,
        "VERSION": SortTarget.VERSION,
    }
    if order.upper() not in orders:
        raise CliError(f"bad sort order {order}", BAD_FEATURE)
    if sort_by.upper() not in targets:
        raise CliError(f"bad sort target {sort_by}", BAD_FEATURE)
    return {"sort_order": orders[order.upper()], "sort_target": targets[sort_by.upper()]}


@click.command(
    "del",
    cls=ClientCommand,
    examples=(
        "kvstore del greeting",
        "kvstore del sessions/ --prefix --prev-kv",
        "kvstore del a m --range               # keys from a up to, not including, m",
    ),
)
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY ('' is every key).")
@click.option("--from-key", is_flag=True, help="All keys from KEY on, in byte order.")
@click.option("--range", "is_range", is_flag=True, help="RANGE_END is meant (it is without, too).")
@click.option("--prev-kv", is_flag=True, help="Also show what was deleted.")
@click.argument("args", nargs=-1, metavar="KEY [RANGE_END]", type=click.UNPROCESSED)
@click.pass_obj
def delete(session: Session, /, args: tuple[str, ...], **options: Any) -> None:
    """Delete a key, or a range of keys; prints how many there were."""
    from kvstore.client import operations

    session.printer.check_table()
    key, arguments = delete_span(args, options)
    session.printer.show("del", session.call(operations.delete(key, **arguments)))


def delete_span(args: tuple[str, ...], options: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """Key and keyword arguments of a deletion."""
    key, found = _span(args, "del", options)
    if options["is_range"] and len(args) != 2:
        raise bad_args("`--range` needs two arguments, the first key and the end of the range")
    return key, {**found, "prev_kv": options["prev_kv"]}


def _span(
    args: tuple[str, ...], command: str, options: dict[str, Any]
) -> tuple[bytes, dict[str, Any]]:
    prefix, from_key = options["prefix"], options["from_key"]
    if not 1 <= len(args) <= 2:
        raise bad_args(
            f"{command} command needs one argument as key and an optional argument as range_end"
        )
    if prefix and from_key:
        raise bad_args(_ONE_OF)
    if len(args) == 2:
        if prefix or from_key:
            raise bad_args(_TOO_MANY)
        return as_bytes(args[0]), {"range_end": as_bytes(args[1])}
    return as_bytes(args[0]), {"prefix": prefix, "from_key": from_key}


@click.command(
    cls=ClientCommand,
    examples=("kvstore compaction 1234", "kvstore compaction 1234 --physical"),
)
@click.option(
    "--physical", is_flag=True, help="Return only when the space is free inside the database."
)
@click.argument("args", nargs=-1, metavar="REVISION", type=click.UNPROCESSED)
@click.pass_obj
def compaction(session: Session, /, args: tuple[str, ...], physical: bool) -> None:
    """Forget the history of keys before a revision."""
    from kvstore.cli.printers import emit
    from kvstore.client import operations

    if len(args) != 1:
        raise bad_args("compaction command needs 1 argument")
    revision = parse_int(args[0], "revision")
    session.call(operations.compact(revision, physical=physical))
    emit((f"compacted revision {revision}",))
