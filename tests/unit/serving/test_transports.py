"""Which gRPC server is chosen, and where HTTP is answered."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvstore.api.call import MethodTable
from kvstore.serving.config import build_config
from kvstore.serving.exits import ExitCode, ServerStopError
from kvstore.serving.settings import read_settings
from kvstore.serving.transports import choose_transport, open_front


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The optional modules that seem to be there."""
    names: set[str] = set()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in names else None)
    return names


def test_auto_is_http2_where_hpack_is_installed_and_grpcio_elsewhere(installed: set[str]) -> None:
    assert choose_transport("auto") == "grpcio"
    installed.add("pygrpc_native")
    assert choose_transport("auto") == "grpcio"
    installed.add("hpack")
    assert choose_transport("auto") == "http2"


def test_a_wanted_transport_must_be_installed(installed: set[str]) -> None:
    assert choose_transport("grpcio") == "grpcio"
    for wanted, package in (("http2", "hpack"), ("native", "pygrpc-native")):
        with pytest.raises(ServerStopError, match=f"{package}: pip install") as caught:
            choose_transport(wanted)
        assert caught.value.code is ExitCode.USAGE
    installed.update(("hpack", "pygrpc_native"))
    assert choose_transport("http2") == "http2"
    assert choose_transport("native") == "native"


def test_http_leaves_the_client_port_when_it_has_urls_of_its_own() -> None:
    def config(*argv: str) -> Any:
        return build_config(read_settings(argv, {}))

    assert config().http_on_client_urls
    assert not config("--listen-client-http-urls=http://localhost:1").http_on_client_urls


@pytest.mark.parametrize("transport", ["http2", "native", "grpcio"])
def test_tcp_and_unix_together(transport: str, tmp_path: Path) -> None:
    pytest.importorskip({"http2": "hpack", "native": "pygrpc_native"}.get(transport, "grpc"))
    path = tmp_path / "s"
    argv = [
        f"--transport={transport}",
        f"--listen-client-urls=http://127.0.0.1:0,unix://{path}",
        "--advertise-client-urls=http://127.0.0.1:1",
    ]
    config = build_config(read_settings(argv, {}))
    table = MethodTable()
    table.unary("/t.T/Echo", lambda call: call.payload)

    async def run() -> None:
        front = await open_front(config.grpc, config.client_urls, table)
        assert front.kind == transport
        assert front.addresses[1] == f"unix:{path}"
        for address in front.addresses:
            async with grpc.aio.insecure_channel(address) as channel:
                assert await channel.unary_unary("/t.T/Echo")(b"x", timeout=5) == b"x"
        await front.stop(0)

    asyncio.run(run())
