"""From a request's header list to the method it calls, or to the reason why it cannot."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from kvstore.api.call import Method
from kvstore.api.http2 import limits
from kvstore.api.http2.headers import Field
from kvstore.api.http2.responses import refusal
from kvstore.errors import Code

__all__ = (
    "MALFORMED",
    "Opening",
    "Request",
    "RequestReader",
    "parse_timeout",
    "trailers_are_sound",
)

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_VALUE = re.compile(rb"[\x00\r\n]")
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}

_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_OF_ONE_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
)
_NOT_METADATA = frozenset(
    (
        b"te",
        b"content-type",
        b"content-length",
        b"grpc-timeout",
        b"grpc-encoding",
        b"grpc-accept-encoding",
        b"grpc-message-type",
        b"grpc-status",
        b"grpc-message",
    )
)
_GRPC = b"application/grpc"


class Request:
    """What a header list without its deadline asks for; shared by all calls that ask the same."""

    __slots__ = ("content_length", "metadata", "method", "refusal")

    def __init__(
        self,
        method: Method | None,
        *,
        metadata: Mapping[str, str | bytes] = MappingProxyType({}),
        content_length: int = -1,
        refusal: bytes = b"",
    ) -> None:
        self.method = method
        """What to call; None for a request that is refused."""
        self.metadata = metadata
        self.content_length = content_length
        """Bytes of DATA that the client says will come; -1 when it says nothing."""
        self.refusal = refusal
        """The header block that answers a refused request; empty for a malformed one, which is no
        request at all and ends in a stream error."""


Opening = tuple[Request, float | None]
"""(request, seconds until its deadline or None)"""

MALFORMED = Request(None)


def parse_timeout(value: bytes) -> float | None:
    """Seconds of a `grpc-timeout`; None when it is not one."""
    match = _TIMEOUT.fullmatch(value)
    return int(match[1]) * _UNITS_S[match[2]] if match else None


def trailers_are_sound(fields: tuple[Field, ...]) -> bool:
    """Whether header fields may follow a body: well-formed, and none that belong in front."""
    return all(_is_sound(name, value) for name, value in fields)


def _is_sound(name: bytes, value: bytes) -> bool:
    return (
        _NAME.fullmatch(name) is not None
        and _BAD_VALUE.search(value) is None
        and name not in _OF_ONE_HOP
        and (name != b"te" or value == b"trailers")
    )


class RequestReader:
    """Interprets header lists; remembers what it made of them, since clients repeat themselves."""

    def __init__(
        self, find: Callable[[str], Method | None], knows_service: Callable[[str], bool]
    ) -> None:
        self._find = find
        self._knows_service = knows_service
        self._known: dict[tuple[Field, ...], Request] = {}

    def read(self, fields: tuple[Field, ...] | None) -> Opening:
        """The request and its deadline; None stands for a list that was too large."""
        if fields is None:
            text = f"grpc: received header list larger than max ({limits.HEADER_LIST_BYTES} bytes)"
            return Request(None, refusal=refusal(Code.RESOURCE_EXHAUSTED, text)), None
        timeout_s: float | None = None
        for position, (name, value) in enumerate(fields):
            if name == b"grpc-timeout":
                timeout_s = parse_timeout(value)
                if timeout_s is None:
                    return _refused(Code.INTERNAL, f"malformed grpc-timeout: {_shown(value)}"), None
                fields = fields[:position] + fields[position + 1 :]
                break
        request = self._known.get(fields)
        if request is None:
            request = self._interpret(fields)
            if sum(len(name) + len(value) for name, value in fields) <= limits.REQUEST_CACHE_BYTES:
                if len(self._known) >= limits.REQUEST_CACHE_ENTRIES:
                    self._known.clear()
                self._known[fields] = request
        return request, timeout_s

    def _interpret(self, fields: tuple[Field, ...]) -> Request:
        pseudo: dict[bytes, bytes] = {}
        plain: dict[bytes, bytes] = {}
        for name, value in fields:
            if name[:1] == b":":
                if plain or name in pseudo or name not in _PSEUDO or _BAD_VALUE.search(value):
                    return MALFORMED
                pseudo[name] = value
            elif not _is_sound(name, value):
                return MALFORMED
            else:
                plain[name] = value
        length = plain.get(b"content-length", b"")
        if (length and not (length.isdigit() and len(length) < 16)) or not (
            pseudo.get(b":method") and pseudo.get(b":scheme") and pseudo.get(b":path")
        ):
            return MALFORMED
        refused = self._refuse(pseudo, plain)
        if refused is not None:
            return refused
        path = pseudo[b":path"].decode("latin-1")
        method = self._find(path)
        if method is None:
            return self._unknown(path)
        return Request(
            method, metadata=_metadata(plain), content_length=int(length) if length else -1
        )

    def _refuse(self, pseudo: dict[bytes, bytes], plain: dict[bytes, bytes]) -> Request | None:
        """An answer to what is sound HTTP/2 but not a gRPC call that we serve."""
        method = pseudo[b":method"]
        if method != b"POST":
            text = f"received a HEADERS frame with :method {_shown(method)} which should be POST"
            return _refused(Code.INTERNAL, text, 405)
        kind = plain.get(b"content-type", b"")
        if not kind.startswith(_GRPC) or kind[len(_GRPC) :][:1] not in (b"", b"+", b";"):
            text = f"invalid gRPC request content-type {_shown(kind)}"
            return _refused(Code.INVALID_ARGUMENT, text, 415)
        encoding = plain.get(b"grpc-encoding", b"identity")
        if encoding != b"identity":
            text = f"grpc: Decompressor is not installed for grpc-encoding {_shown(encoding)}"
            accepted = ((b"grpc-accept-encoding", b"identity"),)
            return _refused(Code.UNIMPLEMENTED, text, extra=accepted)
        return None

    def _unknown(self, path: str) -> Request:
        """Worded as grpc-go does, which names what is missing."""
        service, slash, name = path[1:].rpartition("/")
        if path[:1] != "/" or not slash:
            text = f"malformed method name: {_shown(path.encode('latin-1'))}"
        elif self._knows_service(service):
            text = f"unknown method {name} for service {service}"
        else:
            text = f"unknown service {service}"
        return _refused(Code.UNIMPLEMENTED, text)


def _refused(
    code: Code, text: str, http_status: int = 200, extra: tuple[Field, ...] = ()
) -> Request:
    return Request(None, refusal=refusal(code, text, http_status, extra))


def _shown(value: bytes) -> str:
    text = value[:100].decode("latin-1")
    return f'"{text}"'


def _metadata(plain: dict[bytes, bytes]) -> Mapping[str, str | bytes]:
    """What the client's program sent along. A `-bin` value that is no base64 is left out."""
    metadata: dict[str, str | bytes] = {}
    for name, value in plain.items():
        if name in _NOT_METADATA:
            continue
        if name.endswith(b"-bin"):
            # Several values of a name may be joined by commas; the last one counts here.
            encoded = value.rpartition(b",")[2].strip()
            try:
                decoded = base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
            except binascii.Error:
                continue
            metadata[name.decode()] = decoded
        else:
            metadata[name.decode()] = value.decode("latin-1")
    return MappingProxyType(metadata)
