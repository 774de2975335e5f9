"""Request headers become a method to call, or the right refusal."""

from __future__ import annotations

import base64

import pytest
from hpack import Decoder

from kvstore.api.call import Method, UnaryMethod
from kvstore.api.http2 import limits
from kvstore.api.http2.headers import Field
from kvstore.api.http2.requests import MALFORMED, RequestReader, parse_timeout, trailers_are_sound
from kvstore.api.http2.responses import refusal, trailers
from kvstore.errors import Code
from tests.unit.api.http2.raw import PATH, Headers, request_headers

METHOD = UnaryMethod(PATH + "Echo", lambda call: b"")


def find(path: str) -> Method | None:
    return METHOD if path == METHOD.path else None


def raw(fields: Headers) -> tuple[Field, ...]:
    return tuple((name.encode(), value.encode("latin-1")) for name, value in fields)


def reader() -> RequestReader:
    return RequestReader(find, lambda service: service == "test.Service")


def refused(fields: Headers) -> dict[str, str]:
    request, _ = reader().read(raw(fields))
    assert request.method is None
    assert request.refusal
    return dict(Decoder().decode(request.refusal))


def test_metadata_is_what_the_program_sent() -> None:
    secret = base64.b64encode(bytes(range(7))).decode()
    request, timeout = reader().read(
        raw(
            request_headers(
                "Echo",
                ("token", "first"),
                ("token", "last"),
                ("some-bin", secret.rstrip("=")),
                ("two-bin", f"AAAA,{secret}"),
                ("bad-bin", "!!"),
                ("odd", "gr\xfc\xdfe"),
                user_agent="x",
                grpc_timeout="5S",
                grpc_accept_encoding="gzip",
                grpc_encoding="identity",
                content_length="7",
            )
        )
    )
    assert request.method is METHOD
    assert timeout == 5.0
    assert request.content_length == 7
    assert dict(request.metadata) == {
        "user-agent": "x",
        "token": "last",
        "some-bin": bytes(range(7)),
        "two-bin": bytes(range(7)),
        "odd": "gr\xfc\xdfe",
    }


def test_the_same_headers_are_interpreted_once_whatever_their_deadline() -> None:
    requests = reader()
    one, first = requests.read(raw(request_headers(grpc_timeout="100m")))
    two, second = requests.read(raw(request_headers(grpc_timeout="7u")))
    three, third = requests.read(raw(request_headers()))
    assert one is two is three
    assert (first, second, third) == (0.1, 7e-6, None)


@pytest.mark.parametrize(
    "authority", ["http://127.0.0.1:2379", "", "#initially=[http://a:1;http://b:2]", "ünï", None]
)
def test_authority_is_not_judged(authority: str | None) -> None:
    assert reader().read(raw(request_headers(authority=authority)))[0].method is METHOD


@pytest.mark.parametrize(
    "kind", ["application/grpc", "application/grpc+proto", "application/grpc;x"]
)
def test_content_types_of_grpc(kind: str) -> None:
    assert reader().read(raw(request_headers(content_type=kind)))[0].method is METHOD


@pytest.mark.parametrize("kind", ["application/json", "application/grpcx", "", None])
def test_other_content_types_are_http_415(kind: str | None) -> None:
    assert refused(request_headers(content_type=kind))[":status"] == "415"


def test_other_methods_are_http_405() -> None:
    got = refused(request_headers(method="GET"))
    assert (got[":status"], got["grpc-status"]) == ("405", "13")


def test_compression_is_refused_with_what_we_accept() -> None:
    got = refused(request_headers(grpc_encoding="gzip"))
    assert got["grpc-status"] == "12"
    assert got["grpc-accept-encoding"] == "identity"
    assert "gzip" in got["grpc-message"]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/test.Service/Nope", "unknown method Nope for service test.Service"),
        ("/no.Such/Nope", "unknown service no.Such"),
        ("nonsense", 'malformed method name: "nonsense"'),
        ("/", 'malformed method name: "/"'),
    ],
)
def test_unknown_methods_are_named(path: str, text: str) -> None:
    got = refused(request_headers(path=path))
    assert (got["grpc-status"], got["grpc-message"]) == ("12", text)


@pytest.mark.parametrize("value", ["", "5", "S", "123456789S", "5s", "-1S", "1.5S", "5 S"])
def test_malformed_timeouts_are_refused(value: str) -> None:
    got = refused(request_headers(grpc_timeout=value))
    assert got["grpc-status"] == "13"


def test_timeouts_in_all_units() -> None:
    units = {
        b"2H": 7200,
        b"2M": 120,
        b"2S": 2,
        b"2m": 0.002,
        b"2u": 2e-6,
        b"99999999n": 0.099999999,
    }
    for value, seconds in units.items():
        assert parse_timeout(value) == pytest.approx(seconds)


def test_a_large_header_list_is_refused() -> None:
    request, _ = reader().read(None)
    assert dict(Decoder().decode(request.refusal))["grpc-status"] == "8"


GOOD = request_headers()
MALFORMED_LISTS: dict[str, Headers] = {
    "upper case": [*GOOD, ("Token", "x")],
    "empty name": [*GOOD, ("", "x")],
    "a blank in a name": [*GOOD, ("a b", "x")],
    "line feed in a value": [*GOOD, ("a", "x\ny")],
    "nul in a value": [*GOOD, ("a", "x\0y")],
    "pseudo-header after a field": [*GOOD, (":path", "/")],
    "unknown pseudo-header": [(":what", "x"), *GOOD],
    "pseudo-header of responses": [(":status", "200"), *GOOD],
    "twice the same pseudo-header": [(":method", "POST"), *GOOD],
    "no method": request_headers(method=None),
    "no scheme": request_headers(scheme=None),
    "no path": request_headers(path=None),
    "empty path": request_headers(path=""),
    "connection": [*GOOD, ("connection", "close")],
    "transfer-encoding": [*GOOD, ("transfer-encoding", "chunked")],
    "upgrade": [*GOOD, ("upgrade", "h2c")],
    "te": request_headers(te="gzip"),
    "content-length": request_headers(content_length="seven"),
    "nothing": [],
}


@pytest.mark.parametrize("fields", MALFORMED_LISTS.values(), ids=MALFORMED_LISTS)
def test_malformed_lists(fields: Headers) -> None:
    assert reader().read(raw(fields))[0] is MALFORMED


def test_trailers_of_requests() -> None:
    assert trailers_are_sound(((b"a", b"b"), (b"x-bin", b"")))
    assert not trailers_are_sound(((b":path", b"/"),))
    assert not trailers_are_sound(((b"A", b"b"),))


def test_what_is_remembered_is_bounded() -> None:
    requests = reader()
    for number in range(limits.REQUEST_CACHE_ENTRIES + 10):
        requests.read(raw(request_headers("Echo", ("id", str(number)))))
        requests.read(raw(request_headers("Echo", ("id", "x" * limits.REQUEST_CACHE_BYTES))))
    assert len(requests._known) <= limits.REQUEST_CACHE_ENTRIES


def test_messages_are_percent_encoded_and_cut() -> None:
    block = dict(Decoder().decode(trailers(Code.UNKNOWN, "grüße %\n")))
    assert block["grpc-message"] == "gr%C3%BC%C3%9Fe %25%0A"
    for padding in range(3):
        text = "x" * padding + "%" * 5000
        cut = dict(Decoder().decode(refusal(Code.UNKNOWN, text)))["grpc-message"]
        assert limits.MESSAGE_TEXT_BYTES - 2 <= len(cut) <= limits.MESSAGE_TEXT_BYTES
        assert cut == "x" * padding + "%25" * ((len(cut) - padding) // 3)
    assert "grpc-message" not in dict(Decoder().decode(refusal(Code.OK, "")))
