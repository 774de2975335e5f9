"""Other people's resolvers ask our DNS: dig, glibc (getent, and Python through it), dnspython."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dns.resolver
import dns.reversename
import pytest

from tests.support.rpc import Rpc
from tests.support.servers import free_ports, make_cluster

pytestmark = [pytest.mark.compat, pytest.mark.process, pytest.mark.timeout(120)]

HOST = "127.0.0.153"
"""An address of the loopback network that nobody else uses for DNS."""
NAME = "payment.default.svc.kv.local"
MANY = 500


@dataclass
class Served:
    port: int
    on_53: bool
    directory: Path


def value(address: str, **fields: object) -> str:
    return json.dumps({"address": address, "ports": {"http": 8080}, "port": 8080, **fields})


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("dns")
    (port,) = free_ports(1)
    on_53 = can_have_53()
    listen = f"127.0.0.1:{port}" + (f",{HOST}:53" if on_53 else "")
    with (
        make_cluster(directory, extra=[f"--listen-dns={listen}"]) as cluster,
        Rpc(cluster.servers[0].endpoint) as rpc,
    ):
        key = "/kvstore/services/default/"
        rpc.put(key + "payment/payment-1", value("10.0.1.6", weight=3, tags=["blue"]))
        rpc.put(key + "payment/payment-2", value("10.0.1.7"))
        rpc.put(key + "six/six-1", value("fd00::6"))
        for number in range(MANY):
            address = f"10.1.{number // 250}.{number % 250 + 1}"
            rpc.put(f"{key}big/big-{number}", value(address))
        yield Served(port, on_53, directory)


def can_have_53() -> bool:
    """Whether we may listen at port 53, and give a process a resolv.conf of its own."""
    if shutil.which("unshare") is None:
        return False
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    if tried.returncode:
        return False
    code = f"import socket; s = socket.socket(type=2); s.bind(('{HOST}', 53))"
    return not subprocess.run([sys.executable, "-c", code], capture_output=True).returncode


def dig(served: Served, *words: str) -> list[str]:
    """The lines that dig prints."""
    if shutil.which("dig") is None:
        pytest.skip("dig is not installed (Debian's bind9-dnsutils)")
    done = subprocess.run(
        ["dig", "@127.0.0.1", "-p", str(served.port), *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert "Warning" not in done.stdout, done.stdout
    return done.stdout.strip().split("\n")


def test_dig_short(served: Served) -> None:
    assert sorted(dig(served, NAME, "+short")) == ["10.0.1.6", "10.0.1.7"]
    assert dig(served, "AAAA", "six.default.svc.kv.local", "+short") == ["fd00::6"]
    assert dig(served, "-x", "10.0.1.6", "+short") == [f"payment-1.{NAME}."]
    assert dig(served, "-x", "fd00::6", "+short") == ["six-1.six.default.svc.kv.local."]
    assert sorted(dig(served, "SRV", f"_http._tcp.{NAME}", "+short")) == [
        f"1 1 8080 10-0-1-7.{NAME}.",
        f"1 3 8080 10-0-1-6.{NAME}.",
    ]
    assert dig(served, "blue.payment.service.consul", "+short") == ["10.0.1.6"]
    assert dig(served, "+short", "TXT", "dns-version.kv.local") == ['"1.1.0"']
    assert dig(served, "+short", "NS", "kv.local") == ["ns.kv.local."]
    assert "127.0.0.1" in dig(served, "+short", "ns.kv.local")


@pytest.mark.parametrize(
    ("words", "status", "flags"),
    [
        ((NAME,), "NOERROR", "qr aa rd"),
        ((NAME, "AAAA"), "NOERROR", "qr aa rd"),
        (("nobody.default.svc.kv.local",), "NXDOMAIN", "qr aa rd"),
        (("example.org",), "REFUSED", "qr rd"),
        ((NAME, "+norecurse", "+cdflag"), "NOERROR", "qr aa cd"),
        ((NAME, "+edns=7", "+noednsnegotiation"), "BADVERS", "qr rd"),
        ((NAME, "+ednsopt=65001:abcd", "+nsid", "+subnet=10.0.0.0/8"), "NOERROR", "qr aa rd"),
        ((NAME, "+noedns"), "NOERROR", "qr aa rd"),
        ((NAME, "+tcp"), "NOERROR", "qr aa rd"),
        ((NAME, "+opcode=notify"), "NOTIMP", "qr rd"),
        ((NAME, "-c", "CH"), "REFUSED", "qr rd"),
        (("kv.local", "ANY"), "NOERROR", "qr aa rd"),
    ],
)
def test_dig_reads_status_and_flags(
    served: Served, words: Sequence[str], status: str, flags: str
) -> None:
    lines = dig(served, *words)
    assert any(f"status: {status}," in line for line in lines), lines
    assert any(line.startswith(f";; flags: {flags};") for line in lines), lines


def test_dig_gets_500_instances_over_tcp_after_the_hint(served: Served) -> None:
    for kind in ("A", "SRV"):
        lines = dig(served, "big.default.svc.kv.local", kind)
        assert lines[0] == ";; Truncated, retrying in TCP mode."
        assert any(f"ANSWER: {MANY}," in line for line in lines)
    cut = dig(served, "big.default.svc.kv.local", "+ignore", "+bufsize=512")
    assert any(line.startswith(";; flags: qr aa tc rd;") for line in cut)
    size = next(line for line in cut if "MSG SIZE" in line)
    assert 450 < int(size.split()[-1]) <= 512


def test_dig_refuses_to_be_given_the_zone(served: Served) -> None:
    assert "; Transfer failed." in dig(served, "AXFR", "kv.local")


def test_a_stub_resolver_of_dnspython(served: Served) -> None:
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = ["127.0.0.1"], served.port
    assert {each.address for each in resolver.resolve(NAME)} == {"10.0.1.6", "10.0.1.7"}
    assert len(resolver.resolve("big.default.svc.kv.local")) == MANY
    assert resolver.resolve_address("10.0.1.6")[0].target.to_text() == f"payment-1.{NAME}."
    services = resolver.resolve(f"_http._tcp.{NAME}", "SRV")
    assert {each.port for each in services} == {8080}
    with pytest.raises(dns.resolver.NXDOMAIN):
        resolver.resolve("nobody.default.svc.kv.local")
    with pytest.raises(dns.resolver.NoAnswer):
        resolver.resolve(NAME, "AAAA")


# ---- glibc: a process with a resolv.conf of its own ---------------------------------------------


def with_resolver(served: Served, *argv: str, search: str = "default.svc.kv.local") -> str:
    """What a program prints for which our server is the only one."""
    if not served.on_53:
        pytest.skip("port 53 and a mount namespace need root")
    conf = served.directory / "resolv.conf"
    conf.write_text(f"nameserver {HOST}\nsearch {search}\noptions timeout:2 attempts:2 ndots:5\n")
    hosts = served.directory / "nsswitch.conf"
    hosts.write_text("hosts: files dns\n")
    mounts = f"mount --bind {conf} /etc/resolv.conf && mount --bind {hosts} /etc/nsswitch.conf"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f'{mounts} && exec "$@"', "sh", *argv],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.stdout


def addresses_of(text: str) -> list[str]:
    return sorted({line.split()[0] for line in text.splitlines()})


def test_glibc_finds_addresses(served: Served) -> None:
    wanted = ["10.0.1.6", "10.0.1.7"]
    assert addresses_of(with_resolver(served, "getent", "ahostsv4", NAME)) == wanted
    assert addresses_of(with_resolver(served, "getent", "ahosts", f"{NAME}.")) == wanted
    assert addresses_of(with_resolver(served, "getent", "ahosts", "payment")) == wanted
    six = with_resolver(served, "getent", "ahosts", "six.default.svc.kv.local")
    assert addresses_of(six) == ["fd00::6"]
    assert with_resolver(served, "getent", "ahosts", "nobody.default.svc.kv.local") == ""
    assert with_resolver(served, "getent", "hosts", "10.0.1.6").split() == [
        "10.0.1.6",
        f"payment-1.{NAME}",
    ]


def test_glibc_goes_on_to_tcp(served: Served) -> None:
    found = with_resolver(served, "getent", "ahostsv4", "big.default.svc.kv.local")
    assert len(addresses_of(found)) == MANY


PROGRAM = """
import json, socket, sys
def find(name):
    try:
        return sorted({each[4][0] for each in socket.getaddrinfo(name, 80, type=1)})
    except socket.gaierror as error:
        return error.errno
print(json.dumps([find(name) for name in sys.argv[1:]] + [socket.gethostbyaddr("10.0.1.7")[0]]))
"""


def test_pythons_getaddrinfo(served: Served) -> None:
    import socket

    names = (NAME, "payment", "six", "nobody", "payment.service.consul")
    told = json.loads(with_resolver(served, sys.executable, "-c", PROGRAM, *names))
    wanted = ["10.0.1.6", "10.0.1.7"]
    nobody = socket.EAI_NONAME
    assert told[0] == told[1] == told[4] == wanted
    assert told[2] == ["fd00::6"]
    assert told[3] in (nobody, socket.EAI_AGAIN)
    assert told[5] == f"payment-2.{NAME}"
