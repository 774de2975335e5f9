"""Texts as Go's standard library writes them: quoted strings, durations, sizes, JSON."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from typing import Any

__all__ = ("duration", "escaped_hex", "message_fields", "quoted", "size", "to_json")

_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    "\\": "\\\\",
    '"': '\\"',
}
_HTML = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def quoted(data: bytes | str) -> str:
    """As `%q`: bytes that are no UTF-8 become \\x.., what cannot be seen \\u...."""
    text = data.decode("utf-8", "surrogateescape") if isinstance(data, bytes) else data
    return '"' + "".join(map(_quoted_sign, text)) + '"'


def _quoted_sign(sign: str) -> str:
    if sign in _ESCAPES:
        return _ESCAPES[sign]
    code = ord(sign)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if sign.isprintable():
        return sign
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def escaped_hex(data: bytes) -> bytes:
    """As --hex shows bytes: \\x66\\x6f\\x6f."""
    return "".join(f"\\x{byte:02x}" for byte in data).encode()


def duration(seconds: float) -> str:
    """As a time.Duration prints itself: 1.5ms, 2m3s."""
    nanoseconds = round(seconds * 1e9)
    if nanoseconds == 0:
        return "0s"
    for unit, size_ns in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if nanoseconds < size_ns * 1000:
            return _fraction(nanoseconds, size_ns) + unit
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if hours or minutes else ""
    return text + _fraction(rest, 10**9) + "s"


def _fraction(number: int, unit: int) -> str:
    whole, rest = divmod(number, unit)
    digits = f"{rest:0{len(str(unit)) - 1}d}".rstrip("0") if rest else ""
    return f"{whole}.{digits}" if digits else str(whole)


def size(size_bytes: int) -> str:
    """A size in decimal units: 20 kB, 1.5 MB."""
    if size_bytes < 10:
        return f"{size_bytes} B"
    exponent = min(int(math.log(size_bytes, 1000) + 1e-9), 6)
    value = math.floor(size_bytes / 1000**exponent * 10 + 0.5) / 10
    unit = ("B", "kB", "MB", "GB", "TB", "PB", "EB")[exponent]
    return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"


def to_json(value: Any) -> str:
    """Compact JSON as encoding/json writes it: bytes in base64, signs of HTML escaped."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, default=_base64)
    return text.translate(_HTML)


def _base64(value: Any) -> str:
    assert isinstance(value, bytes), value
    return base64.b64encode(value).decode()


def message_fields(message: Any) -> dict[str, Any]:
    """A protobuf message as etcd's Go structs appear in JSON: names as in the .proto file, in its
    order, without zero values; a oneof as {"Response": {"ResponseRange": …}}.
    """
    found: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        nested: Callable[[Any], Any] = message_fields if field.message_type else _plain
        if field.containing_oneof is not None:
            if message.WhichOneof(field.containing_oneof.name) == field.name:
                found[field.containing_oneof.name.title()] = {_camel(field.name): nested(value)}
        elif _is_repeated(field):
            if value:
                found[field.name] = [nested(each) for each in value]
        elif field.message_type:
            if message.HasField(field.name):
                found[field.name] = nested(value)
        elif value:
            found[field.name] = value
    return found


def _is_repeated(field: Any) -> bool:
    # Newer protobuf has is_repeated and no label any more, older the reverse.
    found = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if found is None else found)


def _plain(value: Any) -> Any:
    return value


def _camel(name: str) -> str:
    return "".join(part.title() for part in name.split("_"))
