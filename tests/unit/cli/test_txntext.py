"""The text of transactions: what is read, and what is said about what cannot be."""

from __future__ import annotations

import pytest

from kvstore.cli.exits import INVALID_INPUT, CliError
from kvstore.cli.txntext import parse_compare, parse_operation, split_words, unquoted
from kvstore.pb import rpc_pb2 as pb


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            'value("k") = "v"',
            pb.Compare(target=pb.Compare.VALUE, result=pb.Compare.EQUAL, key=b"k", value=b"v"),
        ),
        (
            ' mod( "k\\n" )  >  "7" ',
            pb.Compare(
                target=pb.Compare.MOD, result=pb.Compare.GREATER, key=b"k\n", mod_revision=7
            ),
        ),
        (
            'c("k") < "3"',
            pb.Compare(
                target=pb.Compare.CREATE, result=pb.Compare.LESS, key=b"k", create_revision=3
            ),
        ),
        (
            'ver("k") != "0"',
            pb.Compare(target=pb.Compare.VERSION, result=pb.Compare.NOT_EQUAL, key=b"k", version=0),
        ),
        (
            'lease("k") = "5"',
            pb.Compare(target=pb.Compare.LEASE, result=pb.Compare.EQUAL, key=b"k", lease=5),
        ),
    ],
)
def test_conditions(line: str, expected: pb.Compare) -> None:
    assert parse_compare(line).message == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("k = v", 'expected like mod("key") > "0"'),
        ('value("k")', "malformed comparison"),
        ('size("k") = "1"', "unknown target size"),
        ('mod("k") = "x"', "is no number"),
        ('mod("k") <> "1"', "use =, !=, < or >"),
        ('value("\\q") = "1"', "there is no escape"),
    ],
)
def test_wrong_conditions_are_explained(line: str, said: str) -> None:
    with pytest.raises(CliError) as caught:
        parse_compare(line)
    assert said in caught.value.message
    assert caught.value.code == INVALID_INPUT


def test_operations_take_the_options_of_their_commands() -> None:
    put = parse_operation(r"""put "a key" 'it"s' --lease=1f --prev-kv""").message.request_put
    assert put == pb.PutRequest(key=b"a key", value=b'it"s', lease=0x1F, prev_kv=True)
    found = parse_operation("get a --prefix --limit=3 --order=DESCEND --sort-by=MODIFY")
    assert found.message.request_range == pb.RangeRequest(
        key=b"a",
        range_end=b"b",
        limit=3,
        sort_order=pb.RangeRequest.DESCEND,
        sort_target=pb.RangeRequest.MOD,
    )
    gone = parse_operation("del a c --prev-kv").message.request_delete_range
    assert gone == pb.DeleteRangeRequest(key=b"a", range_end=b"c", prev_kv=True)


@pytest.mark.parametrize("line", ["post a b", "put a", "get a --nothing", "del", "get a b c"])
def test_wrong_operations_are_explained(line: str) -> None:
    with pytest.raises(CliError) as caught:
        parse_operation(line)
    assert caught.value.message.startswith(f"invalid txn request: {line}")
    assert caught.value.code == INVALID_INPUT


def test_words_and_strings() -> None:
    assert split_words(r"""put "a \"b\"" 'c "d"' e'f""") == ["put", 'a "b"', 'c "d"', "e'f"]
    assert unquoted(r'"\x00\xff\101\u00e9\\"') == b"\x00\xffA\xc3\xa9\\"
    assert unquoted("`raw \\n`") == b"raw \\n"
