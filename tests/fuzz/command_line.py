"""Targets: command lines, the text of transactions, golden scripts, and `kvstore check`."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn
from unittest.mock import patch

import click
from click.testing import CliRunner

from kvstore.cli.context import Session
from kvstore.cli.exits import CliError
from kvstore.cli.main import cli
from kvstore.cli.table import COMMANDS
from kvstore.cli.txntext import parse_compare, parse_operation, split_words
from kvstore.client.errors import ConnectError
from kvstore.client.txn import Txn
from kvstore.machine.machine import Machine
from kvstore.storage.check import check_data_dir
from kvstore.storage.disk import OsDisk
from kvstore.storage.layout import Layout, StoreMark, boot_id
from kvstore.storage.lmdb_store import LmdbStore
from kvstore.storage.wal import Wal, WalIdentity
from raft.types import Entry, EntryKind, HardState
from tests.fuzz.on_disk import TARGETS as ON_DISK
from tests.fuzz.operators import argv_of
from tests.fuzz.registry import Feed, Refused, Target, plain
from tests.golden import runner

__all__ = ("TARGETS",)

# ---- commands -----------------------------------------------------------------------------------

_NOT_RUN = ("serve", "local", "snapshot", "check", "make-mirror")
"""They start servers, write or read files that they are told, or wait: only read, not run."""
_UNREACHABLE = "nobody is there"


class _NoClient:
    """Stands in for the client: every call gets so far that its request is made, and fails."""

    def call(self, operation: Any, **_options: Any) -> NoReturn:
        operation.request.SerializeToString()
        raise ConnectError(_UNREACHABLE)

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        def fail(*_arguments: Any, **_options: Any) -> NoReturn:
            raise ConnectError(_UNREACHABLE)

        return fail


@contextmanager
def _commands() -> Iterator[Feed]:
    """A command line a line a word, an empty line, and standard input."""
    before = signal.getsignal(signal.SIGINT)
    terminal = CliRunner()
    with patch.object(Session, "connect", lambda *_a, **_k: _NoClient()):

        def feed(data: bytes) -> None:
            words, _, typed = data.partition(b"\n\n")
            argv = argv_of(words)
            if any(word in _NOT_RUN for word in argv):
                _only_read(argv)
                return
            result = terminal.invoke(cli, argv, input=typed, catch_exceptions=True)
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                raise result.exception
            assert "run with --debug for the details" not in result.output, result.output
            if _UNREACHABLE not in result.output and result.exit_code:
                raise Refused(f"exit code {result.exit_code}")

        yield feed
    signal.signal(signal.SIGINT, before)


def _only_read(argv: list[str]) -> None:
    """As far as the arguments go; a wrong one is a usage error."""
    with ExitStack() as stack:
        stack.enter_context(patch("sys.stdout", io.StringIO()))
        try:
            context = stack.enter_context(cli.make_context("kvstore", list(argv)))
            names = [name for name in (*context._protected_args, *context.args) if name in COMMANDS]
            if not names:
                raise Refused("no command")
            command = cli.get_command(context, names[0])
            rest = [*context._protected_args, *context.args]
            assert command is not None
            after = rest[rest.index(names[0]) + 1 :]
            stack.enter_context(command.make_context(names[0], after, parent=context))
        except click.exceptions.Exit as error:
            raise Refused(f"exit code {error.exit_code}") from error
        except click.UsageError as error:
            raise Refused(f"exit code {error.exit_code}") from error


_COMMAND_LINES = (
    "put\nk\nv\n--lease=7b\n--prev-kv",
    "put\n--\n-k\n\nvalue from input",
    "get\nk\n--prefix\n--order=DESCEND\n--sort-by=MODIFY\n--limit=5\n-w=json",
    "get\nk\nl\n--rev=3\n--keys-only\n--hex=true\n--consistency=s",
    "del\nk\n--from-key",
    "compaction\n--physical\n5",
    'txn\n\nmod("k") > "0"\nvalue("k") = "v"\n\nput k "a b"\nget k --prefix\n\ndel k\n',
    "lease\ngrant\n60",
    "lease\ntimetolive\n7b\n--keys",
    "lease\nrevoke\n0x7b",
    "member\nadd\nnew\n--peer-urls=http://a:1\n--learner",
    "member\nremove\n8e9e05c52164694d",
    "endpoint\nstatus\n--cluster\n-w\ntable",
    "alarm\nlist\n--endpoints=a:1,b:2",
    "move-leader\n8e9e05c52164694d",
    "elect\nname\nproposal",
    "lock\nname\n--ttl=5",
    "watch\n-i\n\nwatch k --prefix\nprogress\n",
    "version\n--command-timeout=1m30s",
    "snapshot\nstatus\n/nonexistent/file",
    "serve\n--name=x",
    "--help",
)
_COMMAND_WORDS = (
    *(
        b"\n",
        b"\n\n",
        b"\n--",
        b"\n-",
        b"=",
        b"\n--hex=false",
        b"\n--user=a:b",
        b"\n-w=fields",
        b"\xff",
    ),
    *(b"\n--write-out=xml", b"\n--debug", b"\n--endpoints=", b"\n--dial-timeout=-1s", b"9" * 5000),
    *(
        b"99999999999999999999",
        b"-1",
        b"0x",
        b"\n--cacert=/nonexistent",
        "é".encode(),
        b"1e9",
        b"\x00",
    ),
    *(f"\n{name}".encode() for name in COMMANDS),
)


# ---- the text of transactions -------------------------------------------------------------------


def _feed_txn_text(data: bytes) -> None:
    """Conditions, an empty line, operations: to the request that would be sent."""
    conditions, _, operations = os.fsdecode(data).partition("\n\n")
    request = Txn().when(*map(parse_compare, filter(None, conditions.split("\n"))))
    for line in operations.split("\n"):
        if line.strip():
            split_words(line)
            request.then(parse_operation(line.strip()))
    request.build().request.SerializeToString()


_TXN_TEXTS = (
    'value("k") = "v"\nmod("k") > "5"\n\nput k "a value"\nget k --prefix\ndel k l',
    'ver(`k`) != "0"\nlease("k") < "7"\ncreate("\\x6b\\n\\101") = "1"\n\nput k \'v\' --lease=7',
    "\n\nget k --rev=3 --limit=2 --order=ASCEND",
)
_TXN_WORDS = (
    *(
        b'"',
        b"'",
        b"`",
        b"\\",
        b'\\"',
        b"\\x6",
        b"\\ud800",
        b"\\U00110000",
        b"\\777",
        b"(",
        b")",
        b" ",
    ),
    *(
        b"=",
        b"!=",
        b">",
        b"value",
        b"\n",
        b"\n\n",
        b"put ",
        b"get ",
        b"del ",
        b"--prefix",
        b"--lease=x",
    ),
    *(
        b'"99999999999999999999"',
        b'"-1"',
        b'"1_0"',
        b"\xff",
        b"--rev=1e3",
        b"--",
        b"9" * 5000,
        b"\t",
    ),
)


# ---- golden scripts -----------------------------------------------------------------------------


def _feed_golden(data: bytes) -> None:
    """What was rendered is read again as it was, if it is what people write."""
    blocks = runner.parse(data.decode("utf-8", "replace"))
    lines = [line for block in blocks for line in block.comments + block.commands + block.expected]
    sound = all(block.commands for block in blocks) and all(map(str.strip, lines))
    if sound and all(map(str.isprintable, lines)):
        assert runner.parse(runner.render(blocks)) == blocks


# ---- kvstore check ------------------------------------------------------------------------------

_PARTS = (b"log", b"snapshot", b"mark", b"store")
_SEPARATOR = b"\nPART "


@contextmanager
def _checked_directory() -> Iterator[Feed]:
    """Files of a data directory; whatever they hold, the check says what is wrong with them."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        layout = Layout(directory)
        for each in (layout.wal, layout.snap, layout.db):
            each.mkdir(parents=True)
        files = {
            b"log": layout.wal / f"{1:016x}-{1:016x}.wal",
            b"snapshot": layout.snap / f"snap-{7:016x}-{2:016x}.kvs",
            b"mark": layout.store_mark,
            b"store": layout.store,
        }

        def feed(data: bytes) -> None:
            for path in files.values():
                path.unlink(missing_ok=True)
            for part in data.split(_SEPARATOR):
                kind, _, content = part.partition(b"\n")
                if kind in files:
                    files[kind].write_bytes(content)
            report = check_data_dir(directory)
            assert all(finding.where and finding.message for finding in report.findings)
            if not report.clean:
                raise Refused("damaged")

        yield feed


def _directory_seeds() -> list[bytes]:
    """A whole member's directory, and parts of it."""
    with TemporaryDirectory() as name:
        layout = Layout(Path(name))
        disk = OsDisk(sync=False)
        layout.create(disk)
        wal = Wal.create(disk, layout.wal, WalIdentity(1, 2), segment_bytes=4096)
        wal.write(wal.encode(HardState(1, 2, 1), [Entry(1, 1, EntryKind.NORMAL, b"data")]), True)
        wal.close()
        store = LmdbStore(layout.store, Machine.TABLES, map_bytes=1 << 20)
        txn = store.write()
        for number in range(40):
            txn.put("keys", b"%d" % number * 20, b"value" * 20)
        txn.commit()
        store.close()
        StoreMark(disk, layout.store_mark, boot_id()).set_clean()
        log = next(layout.wal.iterdir()).read_bytes()
        mark, content = layout.store_mark.read_bytes(), layout.store.read_bytes()
    snapshot = next(each for each in ON_DISK if each.name == "snapshot file").seeds()[1]
    parts = {b"log": log, b"snapshot": snapshot, b"mark": mark, b"store": content}
    return [
        _SEPARATOR + _SEPARATOR.join(name + b"\n" + parts[name] for name in chosen)
        for chosen in ((b"log",), (b"log", b"mark", b"store"), (b"snapshot", b"log"), (b"mark",))
    ]


def _label(error: Exception) -> str:
    return str(error) if isinstance(error, Refused) else type(error).__name__


TARGETS = (
    Target(
        "command line",
        _commands,
        (Refused,),
        lambda: [line.encode() for line in _COMMAND_LINES],
        _COMMAND_WORDS,
        label=_label,
        cost=20,
    ),
    Target(
        "text of a transaction",
        plain(_feed_txn_text),
        (CliError,),
        lambda: [text.encode() for text in _TXN_TEXTS],
        _TXN_WORDS,
        label=_label,
        time_s=5.0,  # thousands of lines, and click takes 0.15 ms for each
        cost=4,
    ),
    Target(
        "golden script",
        plain(_feed_golden),
        (ValueError,),
        lambda: [b"# why\nput k v\n----\nOK\n\nget k\n----\nv\n", b"----\nx", b"# only words\n"],
        (b"----\n", b"\n\n", b"#", b"\n", b"\xff", b"\x0b", b"\x1c", b"\r"),
        label=_label,
        cost=2,
    ),
    Target(
        "check",
        _checked_directory,
        (Refused,),
        _directory_seeds,
        (_SEPARATOR, b"log\n", b"store\n", bytes(512)),
        label=_label,
        cost=20,
    ),
)
