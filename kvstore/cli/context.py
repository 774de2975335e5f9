"""What a client command works with: the settings of its flags, the client, and its output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, TypeVar

from kvstore.cli.exits import BAD_FEATURE, CliError, bad_args
from kvstore.cli.printers import FORMS, Printer

if TYPE_CHECKING:
    from kvstore.client.aio import AsyncClient
    from kvstore.client.blocking import Client
    from kvstore.client.call import Unary

__all__ = (
    "Session",
    "as_bytes",
    "naming",
    "parse_int",
    "parse_lease",
    "parse_member",
    "read_input",
)

T = TypeVar("T")


class Session:
    """One run of a client command. Connects when the first call is made."""

    def __init__(self, values: dict[str, Any]) -> None:
        """`values`: the global flags by name."""
        self._values = values
        self._client: Client | None = None
        form = values["write_out"]
        if form not in FORMS:
            raise CliError(
                f"unsupported output format {form!r}: use {', '.join(FORMS)}", BAD_FEATURE
            )
        if values["insecure_skip_tls_verify"]:
            raise CliError(
                "--insecure-skip-tls-verify is not supported; name the server's authority with"
                " --cacert",
                BAD_FEATURE,
            )
        self.form: str = form
        self.hex: bool = values["hex"]
        self.timeout_s: float = values["command_timeout"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        if self._client is not None:
            self._client.close()

    @cached_property
    def endpoints(self) -> tuple[str, ...]:
        """The endpoints as given."""
        found = tuple(each.strip() for each in self._values["endpoints"].split(",") if each.strip())
        if not found:
            raise bad_args("--endpoints names no endpoint")
        if not self._values["insecure_transport"]:
            return tuple(each if "://" in each else f"https://{each}" for each in found)
        return found

    @property
    def client(self) -> Client:
        """The client of all endpoints."""
        if self._client is None:
            self._client = self.connect(self.endpoints)
        return self._client

    def connect(self, endpoints: tuple[str, ...], **changes: Any) -> Client:
        """Another client with the same settings but for `changes` of the client's arguments."""
        from kvstore.client.blocking import Client

        return Client(endpoints, **{**self._arguments(), **changes})

    def connect_async(self) -> AsyncClient:
        """A client for asyncio with the same settings; close it."""
        from kvstore.client.aio import AsyncClient

        return AsyncClient(self.endpoints, **self._arguments())

    def _arguments(self) -> dict[str, Any]:
        """What the flags say, as arguments of a client."""
        values = self._values
        user, password = self._identity()
        return {
            "timeout": self.timeout_s,
            "connect_timeout": values["dial_timeout"],
            "ca": values["cacert"],
            "cert": values["cert"],
            "key": values["key"],
            "user": user,
            "password": password,
            "shuffle": False,
            "channel_options": (
                ("grpc.keepalive_time_ms", int(values["keepalive_time"] * 1000)),
                ("grpc.keepalive_timeout_ms", int(values["keepalive_timeout"] * 1000)),
            ),
        }

    def _identity(self) -> tuple[str, str]:
        user: str = self._values["user"] or ""
        password: str | None = self._values["password"]
        if not user:
            return "", ""
        if password is None:
            user, mark, password = user.partition(":")
            if not mark:
                import click

                password = click.prompt("Password", hide_input=True, err=True)
        return user, password or ""

    def call(self, operation: Unary[Any], *, timeout_s: float | None = None) -> Any:
        """Make a call; returns the protobuf answer as it came, for the printers."""
        return self.client.call(
            operation._replace(
                convert=_unchanged,
                timeout_s=self.timeout_s if timeout_s is None else timeout_s,
            )
        )

    @cached_property
    def printer(self) -> Printer:
        """Writes answers in the form that --write-out asks for."""
        return self.printer_with()

    def printer_with(self, *, values_only: bool = False) -> Printer:
        """A printer whose simple form may leave out keys."""
        return Printer(self.form, hex=self.hex, values_only=values_only)

    def in_words(self, **details: Any) -> dict[str, Any]:
        """What the simple form says besides the answer; the other forms know nothing of it."""
        return details if self.form == "simple" else {}

    def show_moved(self, before: int, after: int) -> None:
        """The leader has changed."""
        from kvstore.pb import rpc_pb2 as pb

        if self.form == "simple":
            self.printer.show("move_leader", (before, after))
        else:
            self.printer.show("move_leader", pb.MoveLeaderResponse())

    @property
    def on_terminal(self) -> bool:
        """A person sees what goes to stderr."""
        return sys.stderr.isatty()

    def member_endpoints(self) -> tuple[str, ...]:
        """The client URLs that the cluster's members advertise."""
        from kvstore.client import operations

        members = self.call(operations.member_list(linearizable=False)).members
        return tuple(url for member in members for url in member.clientURLs)


def _unchanged(message: T) -> T:
    return message


@contextmanager
def naming(what: str) -> Iterator[None]:
    """Puts a server's refusal inside into etcdctl's sentence for the command."""
    from kvstore.errors import CATALOGUE, EtcdError

    try:
        yield
    except EtcdError as error:
        if error.message not in CATALOGUE:
            raise
        raise CliError(f"{what} ({error.message})") from None


def as_bytes(text: str) -> bytes:
    """An argument as the bytes that were typed."""
    return os.fsencode(text)


def read_input() -> bytes:
    """All of standard input."""
    stream = getattr(sys.stdin, "buffer", None)
    return stream.read() if stream is not None else sys.stdin.read().encode()


def parse_int(text: str, what: str) -> int:
    """A decimal number, or a complaint about `what`."""
    try:
        return int(text)
    except ValueError:
        raise bad_args(f"bad {what} ({text!r} is not a number)") from None


def parse_lease(text: str, what: str = "lease ID arg") -> int:
    """A lease id in hexadecimal."""
    return _parse_hex(text, what, 63)


def parse_member(text: str) -> int:
    """A member id in hexadecimal."""
    return _parse_hex(text, "member ID arg", 64)


def _parse_hex(text: str, what: str, bits: int) -> int:
    try:
        number = int(text, 16)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << bits:
        raise bad_args(f"bad {what} ({text!r}), expecting ID in Hex")
    return number
