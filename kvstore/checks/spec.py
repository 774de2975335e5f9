"""What a check is: what is asked, how often, and how many answers decide. Pure values.

As JSON, in an instance's field `checks` (the protobuf message `Check`, in its JSON form):

    {"name": "ready", "http": {"url": "/healthz", "method": "GET", "headers": {},
     "expected_statuses": []}, "interval_ms": 10000, "timeout_ms": 2000,
     "healthy_after": 1, "unhealthy_after": 3}

with one of `http`, `tcp` {"target"} and `grpc` {"target", "service"}. Commands and TTL files
have no such form on purpose: they run on a machine, so they come from its own command line or
file, never from what somebody wrote into the registry.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias
from urllib.parse import SplitResult, urlsplit

from kvstore.checks import limits

__all__ = (
    "BadCheck",
    "Check",
    "CommandProbe",
    "GrpcProbe",
    "HttpProbe",
    "Probe",
    "TcpProbe",
    "TtlProbe",
    "check_of_json",
    "distinct",
    "host_and_port",
    "split_url",
    "to_json",
    "validate",
)


class BadCheck(ValueError):  # noqa: N818 - what it says of a value
    """A check is not as it must be; the text is a sentence for whoever wrote it."""


def _no_headers() -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """A request; its status decides. Redirects are not followed, they are an answer."""

    url: str
    """Without a host: a path on the instance's address and main port."""
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=_no_headers)
    expected: tuple[int, ...] = ()
    """Empty: 200 to 299 pass, 429 warns."""


@dataclass(frozen=True, slots=True)
class TcpProbe:
    """A connection that is accepted."""

    target: str = ""
    """host:port; empty: the instance's address and main port."""


@dataclass(frozen=True, slots=True)
class GrpcProbe:
    """grpc.health.v1.Health/Check, without TLS."""

    target: str = ""
    """host:port; empty: the instance's address and main port."""
    service: str = ""


@dataclass(frozen=True, slots=True)
class CommandProbe:
    """A program whose exit code decides: 0 passes, 1 warns, everything else is critical."""

    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TtlProbe:
    """A file that the program touches, or writes its state into, at least every `ttl_s`."""

    path: str
    ttl_s: float


Probe: TypeAlias = HttpProbe | TcpProbe | GrpcProbe | CommandProbe | TtlProbe
_KINDS: Final[Mapping[type, str]] = {
    HttpProbe: "http",
    TcpProbe: "tcp",
    GrpcProbe: "grpc",
    CommandProbe: "cmd",
    TtlProbe: "ttl",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One check of one instance."""

    probe: Probe
    name: str = ""
    """The kind if empty."""
    interval_s: float = limits.DEFAULT_INTERVAL_S
    """From one start to the next."""
    timeout_s: float = limits.DEFAULT_TIMEOUT_S
    healthy_after: int = limits.DEFAULT_HEALTHY_AFTER
    """So many successes in a row until it passes."""
    unhealthy_after: int = limits.DEFAULT_UNHEALTHY_AFTER
    """So many failures in a row until it fails."""

    @property
    def kind(self) -> str:
        """http, tcp, grpc, cmd or ttl."""
        return _KINDS[type(self.probe)]

    @property
    def title(self) -> str:
        """What it is called among the checks of its instance."""
        return self.name or self.kind


# ---- what may be ---------------------------------------------------------------------------

_TOKEN: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
"""A method or a header's name, as HTTP has it."""
_RESERVED_HEADERS: Final = frozenset(("content-length", "transfer-encoding", "connection"))


def validate(check: Check, *, interval_min_s: float = limits.INTERVAL_MIN_S) -> Check:
    """Returns a check that can be run, or raises BadCheck with what is wrong."""
    try:
        _validate_times(check, interval_min_s)
        match check.probe:
            case HttpProbe() as http:
                _validate_http(http)
            case TcpProbe(target) | GrpcProbe(target):
                if target:
                    host_and_port(target)
                if isinstance(check.probe, GrpcProbe):
                    _printable("service", check.probe.service)
            case CommandProbe(argv):
                if not argv or not argv[0]:
                    raise BadCheck("no command is given")
                if len(argv) > limits.ARGUMENTS_MAX or any("\0" in each for each in argv):
                    raise BadCheck("the command has too many arguments, or a NUL byte in one")
            case TtlProbe(path, ttl_s):
                if not path or "\0" in path or ttl_s <= 0:
                    raise BadCheck("a TTL check needs a file and a time above 0")
    except BadCheck as error:
        raise BadCheck(f"check {check.title!r:.80}: {error}") from None
    return check


def distinct(checks: Iterable[Check]) -> tuple[Check, ...]:
    """The same checks, each with a title of its own: http, http-2. Raises BadCheck."""
    found: list[Check] = []
    titles: set[str] = set()
    for check in checks:
        number = 1
        named = check
        while not check.name and named.title in titles:
            number += 1
            named = replace(check, name=f"{check.kind}-{number}")
        if named.title in titles:
            raise BadCheck(f"there are two checks called {named.title!r:.80}")
        titles.add(named.title)
        found.append(named)
    return tuple(found)


def _validate_times(check: Check, interval_min_s: float) -> None:
    if len(check.name) > limits.NAME_CHARS_MAX or not check.title.isprintable():
        raise BadCheck(f"a name has at most {limits.NAME_CHARS_MAX} printable characters")
    if not interval_min_s <= check.interval_s <= limits.INTERVAL_MAX_S:
        raise BadCheck(
            f"the interval is {check.interval_s:g} s; {interval_min_s:g} s to "
            f"{limits.INTERVAL_MAX_S:g} s are allowed"
        )
    if not limits.TIMEOUT_MIN_S <= check.timeout_s <= check.interval_s:
        raise BadCheck(
            f"the timeout is {check.timeout_s:g} s; {limits.TIMEOUT_MIN_S:g} s to the interval "
            f"of {check.interval_s:g} s are allowed"
        )
    for what, number in (
        ("healthy_after", check.healthy_after),
        ("unhealthy_after", check.unhealthy_after),
    ):
        if not 1 <= number <= limits.THRESHOLD_MAX:
            raise BadCheck(f"{what} is {number}; 1 to {limits.THRESHOLD_MAX} are allowed")


def _validate_http(probe: HttpProbe) -> None:
    _printable("URL", probe.url)
    if " " in probe.url or not probe.url.isascii():
        raise BadCheck(f"the URL {probe.url!r:.80} has a space or a letter that must be escaped")
    parts = split_url(probe.url)
    if parts.scheme and not parts.hostname:
        raise BadCheck(f"the URL {probe.url!r:.80} has no host")
    if parts.username is not None or parts.password is not None:
        raise BadCheck("a URL with a password in it is not taken; use a header")
    if not _TOKEN.fullmatch(probe.method):
        raise BadCheck(f"the method {probe.method!r:.40} is none of HTTP's")
    size = sum(len(name) + len(value) for name, value in probe.headers.items())
    if len(probe.headers) > limits.HEADERS_MAX or size > limits.HEADERS_BYTES_MAX:
        raise BadCheck(
            f"at most {limits.HEADERS_MAX} headers and {limits.HEADERS_BYTES_MAX} bytes are allowed"
        )
    for name, value in probe.headers.items():
        if not _TOKEN.fullmatch(name) or name.lower() in _RESERVED_HEADERS:
            raise BadCheck(f"the header {name!r:.40} cannot be set")
        _printable(f"header {name}", value)
    for status in probe.expected:
        if not 100 <= status <= 599:
            raise BadCheck(f"the expected status {status} is none: 100 to 599 are")


def split_url(url: str) -> SplitResult:
    """The parts of an HTTP check's URL. Raises BadCheck."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadCheck(f"the URL {url!r:.80} cannot be read: {error}") from None
    if port == 0:
        raise BadCheck(f"the URL {url!r:.80} has the port 0")
    if parts.scheme not in ("http", "https") and not (
        url.startswith("/") and not parts.scheme and not parts.netloc
    ):
        raise BadCheck(f"{url!r:.80} is neither an http or https URL nor a path such as /healthz")
    return parts


def _printable(what: str, text: str) -> None:
    if len(text) > limits.TEXT_CHARS_MAX or not text.isprintable():
        raise BadCheck(
            f"the {what} is longer than {limits.TEXT_CHARS_MAX} characters, or not printable"
        )


def host_and_port(target: str) -> tuple[str, int]:
    """`host:port`, `[v6]:port`. Raises BadCheck."""
    host, colon, port = target.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise BadCheck(f"{target!r:.80} is not host:port; write an IPv6 address as [address]:port")
    if not colon or not host or not re.fullmatch(r"[!-~]+", host) or set(host) & set("/@[]"):
        raise BadCheck(f"{target!r:.80} is not host:port")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65_535:
        raise BadCheck(f"the port of {target!r:.80} is none: 1 to 65535 are")
    return host, int(port)


# ---- JSON ----------------------------------------------------------------------------------


def to_json(check: Check) -> dict[str, Any]:
    """The JSON form of a check that the cluster can run. Raises BadCheck for the others."""
    match check.probe:
        case HttpProbe(url, method, headers, expected):
            probe: dict[str, Any] = {
                "url": url,
                "method": method,
                "headers": dict(headers),
                "expected_statuses": list(expected),
            }
        case TcpProbe(target):
            probe = {"target": target}
        case GrpcProbe(target, service):
            probe = {"target": target, "service": service}
        case _:
            raise BadCheck(f"a check of the kind {check.kind} runs in an agent alone")
    return {
        "name": check.name,
        check.kind: probe,
        "interval_ms": round(check.interval_s * 1000),
        "timeout_ms": round(check.timeout_s * 1000),
        "healthy_after": check.healthy_after,
        "unhealthy_after": check.unhealthy_after,
    }


def check_of_json(told: Any) -> Check:
    """Reads what `to_json` gives; 0 or nothing is the default. Raises BadCheck."""
    if not isinstance(told, dict):
        raise BadCheck("a check is an object")
    kinds = [kind for kind in ("http", "tcp", "grpc") if told.get(kind) is not None]
    if len(kinds) != 1:
        raise BadCheck("a check needs exactly one of http, tcp and grpc")
    probe = told[kinds[0]]
    if not isinstance(probe, dict):
        raise BadCheck(f"{kinds[0]} is an object")
    interval_s = _number(told, "interval_ms") / 1000 or limits.DEFAULT_INTERVAL_S
    timeout_s = _number(told, "timeout_ms") / 1000
    return validate(
        Check(
            probe=_probe_of_json(kinds[0], probe),
            name=_text(told, "name"),
            interval_s=interval_s,
            timeout_s=timeout_s or min(limits.DEFAULT_TIMEOUT_S, interval_s),
            healthy_after=_number(told, "healthy_after") or limits.DEFAULT_HEALTHY_AFTER,
            unhealthy_after=_number(told, "unhealthy_after") or limits.DEFAULT_UNHEALTHY_AFTER,
        )
    )


def _probe_of_json(kind: str, told: dict[str, Any]) -> Probe:
    if kind == "tcp":
        return TcpProbe(_text(told, "target"))
    if kind == "grpc":
        return GrpcProbe(_text(told, "target"), _text(told, "service"))
    headers = told.get("headers") or {}
    expected = told.get("expected_statuses") or []
    if not isinstance(headers, dict) or not all(isinstance(v, str) for v in headers.values()):
        raise BadCheck("headers is an object of texts")
    if not isinstance(expected, list) or not all(type(status) is int for status in expected):
        raise BadCheck("expected_statuses is a list of numbers")
    return HttpProbe(_text(told, "url"), _text(told, "method") or "GET", headers, tuple(expected))


def _text(told: dict[str, Any], name: str) -> str:
    text = told.get(name) or ""
    if not isinstance(text, str):
        raise BadCheck(f"{name} is a text")
    return text


def _number(told: dict[str, Any], name: str) -> int:
    number = told.get(name) or 0
    if type(number) is not int:
        raise BadCheck(f"{name} is a whole number")
    return number
