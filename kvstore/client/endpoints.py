"""Endpoints: reading them as users write them, and which one to ask now."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kvstore.client.limits import DEFAULT_PORT

__all__ = ("Endpoint", "Rotation", "parse_endpoints")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One server address. `text` is as the user wrote it and names the endpoint in results."""

    text: str
    target: str
    """What gRPC connects to."""
    secure: bool

    @classmethod
    def parse(cls, text: str, *, secure: bool = False) -> Endpoint:
        """From `host`, `host:port`, `http(s)://host:port` or `unix(s)://path`.

        `secure` holds where no scheme says otherwise. Raises ValueError with the reason.
        """
        scheme, mark, rest = text.strip().rpartition("://")
        if mark and scheme not in ("http", "https", "unix", "unixs"):
            raise ValueError(f"endpoint {text!r}: scheme {scheme!r} is not http, https or unix")
        if scheme in ("unix", "unixs"):
            if not rest:
                raise ValueError(f"endpoint {text!r}: the path is missing")
            return cls(text.strip(), f"unix:{rest}", scheme == "unixs")
        rest = rest.rstrip("/")
        if not rest or "/" in rest or any(c.isspace() for c in rest):
            raise ValueError(f"endpoint {text!r}: expected host:port")
        return cls(text.strip(), _with_port(rest, text), scheme == "https" if mark else secure)


def _with_port(address: str, text: str) -> str:
    host, mark, port = address.rpartition(":")
    if not mark or address.endswith("]") or (host.count(":") and not host.endswith("]")):
        if address.count(":") and not address.startswith("["):
            address = f"[{address}]"
        return f"{address}:{DEFAULT_PORT}"
    if not port.isdigit() or not 0 < int(port) < 65536 or not host:
        raise ValueError(f"endpoint {text!r}: {port!r} is not a port")
    return address


def parse_endpoints(
    endpoints: str | Iterable[str], *, secure: bool = False
) -> tuple[Endpoint, ...]:
    """From a list or a comma-separated text; duplicates are dropped."""
    texts = endpoints.split(",") if isinstance(endpoints, str) else list(endpoints)
    parsed = dict.fromkeys(Endpoint.parse(text, secure=secure) for text in texts if text.strip())
    if not parsed:
        raise ValueError("no endpoint given")
    return tuple(parsed)


class Rotation:
    """The endpoint in use; a failure moves on to the next one, round and round.

    Staying at one endpoint keeps one connection warm and a client's reads in order. All callers
    share the choice, so one call's failure spares the others theirs. Safe in threads: each method
    reads and replaces one tuple.
    """

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._state: tuple[tuple[Endpoint, ...], int] = (tuple(endpoints), 0)

    @property
    def all(self) -> tuple[Endpoint, ...]:
        return self._state[0]

    @property
    def current(self) -> Endpoint:
        endpoints, index = self._state
        return endpoints[index]

    def failed(self, endpoint: Endpoint) -> None:
        """`endpoint` did not work; no effect if another one is in use already."""
        endpoints, index = self._state
        if endpoints[index] == endpoint:
            self._state = (endpoints, (index + 1) % len(endpoints))

    def replace(self, endpoints: Sequence[Endpoint]) -> None:
        """New list of endpoints; the one in use stays in use if it is among them."""
        current = self.current
        kept = tuple(endpoints)
        self._state = (kept, kept.index(current) if current in kept else 0)
