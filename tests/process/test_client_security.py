"""Both clients against a real server that asks for TLS, or for a user's token."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.client import (
    AsyncClient,
    Client,
    ConnectError,
    InvalidRequestError,
    KvError,
    UnauthenticatedError,
)
from tests.process.client_cluster import ETCD, START_S, Cluster, cluster_fixture
from tests.support.tools import require

pytestmark = pytest.mark.process
cluster = cluster_fixture(1, server=ETCD)


@pytest.fixture
def guarded(cluster: Cluster) -> Iterator[Cluster]:
    etcdctl = [require("etcdctl"), "--endpoints", cluster.endpoints[0]]

    def run(*words: str) -> None:
        subprocess.run([*etcdctl, *words], check=True, capture_output=True)

    run("user", "add", "root:secret")
    run("user", "grant-role", "root", "root")
    run("auth", "enable")
    yield cluster
    run("--user", "root:secret", "auth", "disable")


def test_a_token_is_fetched_when_asked_for_and_renewed_when_it_has_ended(
    guarded: Cluster,
) -> None:
    with Client(guarded.endpoints) as stranger, pytest.raises(UnauthenticatedError):
        stranger.put("k", "v")
    with Client(guarded.endpoints, user="root", password="secret") as client:
        client.put("k", "v")
        with client.watch("k") as watch:
            client.put("k", "w")
            assert watch.get(5) is not None
        client._set_token("ended.1")
        assert client.get("k") is not None
        client._set_token("ended.2")
        with client.watch("k") as watch:
            client.put("k", "x")
            assert watch.get(5) is not None
        assert client.health().healthy
    with (
        Client(guarded.endpoints, user="root", password="wrong") as client,
        pytest.raises(InvalidRequestError, match="authentication failed"),
    ):
        client.get("k")

    async def main() -> None:
        async with AsyncClient(guarded.endpoints, user="root", password="secret") as client:
            await client.put("k", "v")
            client._set_token("ended.3")
            async with client.watch("k") as watch:
                await client.put("k", "w")
                assert await watch.get(5) is not None

    asyncio.run(main())


def test_tls_with_certificates_on_both_sides(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    # One certificate that signed itself plays the authority, the server and the client.
    request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    subprocess.run(
        [
            *(require("openssl"), *request.split(), "-subj", "/CN=kv"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    secure = Cluster(
        tmp_path,
        1,
        f"--cert-file={certificate}",
        f"--key-file={key}",
        f"--trusted-ca-file={certificate}",
        "--client-cert-auth",
        scheme="https",
        server=ETCD,
    )
    endpoint = f"https://{secure.endpoints[0]}"
    try:
        secure.servers[0].start()
        with Client(
            secure.endpoints, ca=certificate, cert=certificate, key=key, timeout=START_S
        ) as client:
            client.put("k", "v")
        pem = certificate.read_bytes()
        with Client(endpoint, ca=pem, cert=pem, key=key.read_bytes()) as client:
            assert client.get("k") is not None
        # Without the authority the server's certificate is not trusted: nothing is ever sent.
        with Client(endpoint, timeout=0.5) as client, pytest.raises(ConnectError):
            client.put("k", "v")
        # Without a certificate of its own a client is turned away.
        with Client(endpoint, ca=pem, timeout=0.5) as client, pytest.raises(KvError):
            client.put("k", "v")
    finally:
        secure.stop()
