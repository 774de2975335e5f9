"""etcdctl's text for transactions: lines of conditions, then two lists of operations.

value("key") = "expected"        targets: value, version, create, mod, lease (and val, ver,
mod("key") > "5"                 c, m); operators: = != < >
(empty line)
put key "a value"                if all hold; get, put and del with their usual options
(empty line)
get key --prefix                 otherwise
(empty line, or the end of input)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import click

from kvstore.cli.exits import INVALID_INPUT, CliError
from kvstore.client.txn import (
    Compare,
    CreateRevision,
    Delete,
    Get,
    LeaseOf,
    ModRevision,
    Op,
    Put,
    Value,
    Version,
)

__all__ = ("parse_compare", "parse_operation", "split_words", "unquoted")

_TARGETS: dict[str, type[Any]] = {
    "ver": Version,
    "version": Version,
    "c": CreateRevision,
    "create": CreateRevision,
    "m": ModRevision,
    "mod": ModRevision,
    "val": Value,
    "value": Value,
    "lease": LeaseOf,
}
_NAMES = "value, version, create, mod or lease"
_QUOTED = r'"(?:[^"\\]|\\.)*"|`[^`]*`'
_COMPARE = re.compile(
    rf"\s*(?P<target>\w+)\s*\(\s*(?P<key>{_QUOTED})\s*\)\s*(?P<sign>\S+?)\s*(?P<value>{_QUOTED})\s*"
)
_WORD = re.compile(r""""(?:[^"\\]|\\.)*"|'[^']*'|[^'"\s]\S*""")
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|([0-7]{3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([abfnrtv\\\"']))"
)
_SIMPLE = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}


def _wrong(message: str) -> CliError:
    return CliError(message, INVALID_INPUT)


def unquoted(text: str) -> bytes:
    """What a Go string literal stands for; raises CliError for an escape that does not exist."""
    if text.startswith("`"):
        return text[1:-1].encode("utf-8", "surrogateescape")
    body, found, place = text[1:-1], bytearray(), 0
    while place < len(body):
        if body[place] != "\\":
            found += body[place].encode("utf-8", "surrogateescape")
            place += 1
            continue
        match = _ESCAPE.match(body, place)
        if match is None:
            raise _wrong(f"{text}: there is no escape {body[place : place + 2]}")
        found += _escaped(match, text)
        place = match.end()
    return bytes(found)


def _escaped(match: re.Match[str], text: str) -> bytes:
    hexadecimal, octal, short, long, sign = match.groups()
    if sign:
        return bytes((_SIMPLE.get(sign, ord(sign)),))
    number = int(octal, 8) if octal else int(hexadecimal or short or long, 16)
    try:
        return bytes((number,)) if hexadecimal or octal else chr(number).encode()
    except ValueError:
        raise _wrong(f"{text}: {match[0]} is out of range") from None


def parse_compare(line: str) -> Compare:
    """One condition; raises CliError that says what is expected."""
    match = _COMPARE.fullmatch(line)
    if match is None:
        raise _wrong(f'malformed comparison: {line}; expected like mod("key") > "0"')
    subject = _TARGETS.get(match["target"])
    if subject is None:
        raise _wrong(
            f"malformed comparison: {line} (unknown target {match['target']}; use {_NAMES})"
        )
    operand: Any = unquoted(match["value"])
    if subject is not Value:
        try:
            operand = int(operand)
        except ValueError:
            raise _wrong(f"malformed comparison: {line} ({match['value']} is no number)") from None
        if not -(2**63) <= operand < 2**63:
            raise _wrong(f"malformed comparison: {line} (a number has 64 bits)")
    left = subject(unquoted(match["key"]))
    tests: dict[str, Callable[[], Compare]] = {
        "=": lambda: left == operand,
        "!=": lambda: left != operand,
        ">": lambda: left > operand,
        "<": lambda: left < operand,
    }
    if match["sign"] not in tests:
        raise _wrong(f"malformed comparison: {line} (operator {match['sign']}; use =, !=, < or >)")
    return tests[match["sign"]]()


def split_words(line: str) -> list[str]:
    """The words of a line; "…" is a Go string, '…' is taken as it is."""
    words = []
    for word in _WORD.findall(line):
        if word[0] == '"':
            word = unquoted(word).decode("utf-8", "surrogateescape")
        elif word[0] == "'":
            word = word[1:-1]
        words.append(word)
    return words


def parse_operation(line: str) -> Op:
    """One `get`, `put` or `del` with its options."""
    from kvstore.cli.commands import keys

    words = split_words(line)
    if not words or words[0] not in ("get", "put", "del"):
        raise _wrong(f"invalid txn request: {line}; expected get, put or del")
    try:
        if words[0] == "get":
            key, options = keys.get_arguments(*_parsed(keys.get, words[1:]))
            return Get(key, **options)
        if words[0] == "del":
            key, options = keys.delete_span(*_parsed(keys.delete, words[1:]))
            return Delete(key, **options)
        key, options = keys.put_arguments(*_parsed(keys.put, words[1:]))
        if "value" not in options and not options["ignore_value"]:
            raise _wrong("put needs a value")
        return Put(key, **options)
    except click.UsageError as error:
        raise _wrong(f"invalid txn request: {line} ({error.format_message()})") from None
    except CliError as error:
        raise _wrong(f"invalid txn request: {line} ({error.message})") from None
    except ValueError as error:
        # Protobuf's, of a number that is too large for its field.
        raise _wrong(f"invalid txn request: {line} ({error})") from None


def _parsed(command: click.Command, words: Iterable[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Arguments and options as the command itself would read them."""
    reader = click.Command(
        command.name,
        params=[each for each in command.params if each.expose_value],
        add_help_option=False,
    )
    options = reader.make_context(command.name, list(words)).params
    return options.pop("args"), options
