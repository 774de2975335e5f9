"""Asks once: HTTP, TCP, gRPC health, a command, a TTL file. Every outcome is a Finding."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from kvstore.checks import limits
from kvstore.checks.command import run_command
from kvstore.checks.reach import Reach, Unreachable
from kvstore.checks.spec import (
    Check,
    CommandProbe,
    GrpcProbe,
    HttpProbe,
    TcpProbe,
    TtlProbe,
    host_and_port,
    split_url,
)
from kvstore.checks.tally import Finding, Verdict, shortened

__all__ = ("Prober", "Target", "one_line", "ttl_finding")

T = TypeVar("T")
_USER_AGENT = "kvstore-check"
_TOO_MANY_REQUESTS = 429


class Target(NamedTuple):
    """What a check that names no host is about: the instance's address and main port."""

    address: str
    port: int


class Prober:
    """Asks; shared by all checks of a process. Close it."""

    def __init__(self, reach: Reach | None = None) -> None:
        """`reach`: where connections may go to; anywhere if None."""
        self._reach = reach or Reach()
        self._session: Any = None

    async def close(self) -> None:
        """Gives back what was opened."""
        self._reach.close()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def probe(self, check: Check, target: Target) -> Finding:
        """Asks once, for at most the check's timeout. Never raises."""
        try:
            async with asyncio.timeout(check.timeout_s):
                return await self._ask(check, target)
        except TimeoutError:
            return _critical(f"no answer within {check.timeout_s:g} s")
        except Unreachable as error:
            return _critical(str(error))
        except OSError as error:
            return _critical(_os_words(error))

    async def _ask(self, check: Check, target: Target) -> Finding:
        match check.probe:
            case HttpProbe() as http:
                return await self._http(http, target)
            case TcpProbe(text):
                return await self._tcp(text, target)
            case GrpcProbe() as grpc:
                return await self._grpc(grpc, target)
            case CommandProbe(argv):
                return _of_exit(*await run_command(argv))
            case TtlProbe(path, ttl_s):
                return _ttl(path, ttl_s)

    # ---- HTTP ------------------------------------------------------------------------------

    async def _http(self, probe: HttpProbe, target: Target) -> Finding:
        import aiohttp
        from yarl import URL

        parts = split_url(probe.url)
        scheme = parts.scheme or "http"
        host = parts.hostname or target.address
        port = parts.port or (443 if scheme == "https" else 80)
        if not parts.scheme:
            port = target.port
        query = f"?{parts.query}" if parts.query else ""
        path = f"{parts.path or '/'}{query}"
        shown = f"[{host}]" if ":" in host else host
        headers = {
            "Host": shown if port == (443 if scheme == "https" else 80) else f"{shown}:{port}",
            "User-Agent": _USER_AGENT,
            **probe.headers,
        }

        async def ask(address: str) -> Finding:
            literal = f"[{address}]" if ":" in address else address
            async with self._http_session().request(
                probe.method,
                URL(f"{scheme}://{literal}:{port}{path}", encoded=True),
                headers=headers,
                allow_redirects=False,
                server_hostname=host if scheme == "https" else None,
            ) as answer:
                body = await _beginning(answer.content)
                return _of_status(answer.status, answer.reason or "", body, probe.expected)

        try:
            return await self._any_of(host, port, ask)
        except aiohttp.ClientConnectorCertificateError as error:
            return _critical(f"the certificate of {host} is not accepted: {error}")
        except aiohttp.ClientError as error:
            if isinstance(error, OSError):
                raise
            return _critical(f"not answered as HTTP: {error}")

    def _http_session(self) -> Any:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(
                # A connection for each probe: that one can be made is part of the question.
                connector=aiohttp.TCPConnector(force_close=True, limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(),
                auto_decompress=False,
                read_bufsize=limits.OUTPUT_BYTES_MAX,
                trust_env=False,
            )
        return self._session

    # ---- TCP -------------------------------------------------------------------------------

    async def _tcp(self, text: str, target: Target) -> Finding:
        host, port = host_and_port(text) if text else target

        async def ask(address: str) -> Finding:
            _, writer = await asyncio.open_connection(address, port)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            return Finding(Verdict.PASSING, f"{host}:{port} accepts connections")

        return await self._any_of(host, port, ask)

    # ---- gRPC ------------------------------------------------------------------------------

    async def _grpc(self, probe: GrpcProbe, target: Target) -> Finding:
        host, port = host_and_port(probe.target) if probe.target else target

        async def ask(address: str) -> Finding:
            return await _ask_health(address, host, port, probe.service)

        return await self._any_of(host, port, ask)

    async def _any_of(
        self, host: str, port: int, ask: Callable[[str], Awaitable[Finding]]
    ) -> Finding:
        """Tries the addresses of a host in turn, until somebody is there."""
        addresses = await self._reach.addresses(host, port)
        for address in addresses[:-1]:
            with contextlib.suppress(OSError):
                return await ask(address)
        return await ask(addresses[-1])


async def _ask_health(address: str, host: str, port: int, service: str) -> Finding:
    """grpc.health.v1.Health/Check at an address. Raises OSError if nobody is there."""
    import grpc

    from kvstore.pb import health_pb2 as health

    literal = f"ipv6:[{address}]:{port}" if ":" in address else f"ipv4:{address}:{port}"
    options = (
        ("grpc.default_authority", f"{host}:{port}"),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.max_receive_message_length", limits.OUTPUT_BYTES_MAX),
        ("grpc.primary_user_agent", _USER_AGENT),
    )
    async with grpc.aio.insecure_channel(literal, options) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health.HealthCheckRequest.SerializeToString,
            response_deserializer=health.HealthCheckResponse.FromString,
        )
        try:
            answer = await check(health.HealthCheckRequest(service=service))
        except grpc.RpcError as error:
            code, details = error.code(), one_line(error.details() or "")
            if code is grpc.StatusCode.UNAVAILABLE:
                raise ConnectionError(errno.ECONNREFUSED, f"no gRPC server: {details}") from None
            return _critical(f"gRPC {code.name}: {details}")
    word = health.HealthCheckResponse.ServingStatus.Name(answer.status)
    verdict = Verdict.PASSING if word == "SERVING" else Verdict.CRITICAL
    return Finding(verdict, f"gRPC health: {word}")


# ---- what was found ------------------------------------------------------------------------


def one_line(text: str) -> str:
    """A text as one printable line of bounded length."""
    line = " ".join(text.split())
    line = "".join(each if each.isprintable() else "?" for each in line)
    if len(line) > limits.SUMMARY_CHARS_MAX:
        line = line[: limits.SUMMARY_CHARS_MAX - 1] + "…"
    return line


def _critical(summary: str, output: str = "") -> Finding:
    return Finding(Verdict.CRITICAL, one_line(summary), output)


def _os_words(error: OSError) -> str:
    if error.errno is not None and error.errno in errno.errorcode:
        plain = error.strerror or ""
        return plain if plain.startswith("no gRPC") else os.strerror(error.errno).lower()
    return str(error) or type(error).__name__


async def _beginning(content: Any) -> bytes:
    """The first bytes of a body; the rest is not read."""
    found = b""
    while len(found) < limits.OUTPUT_BYTES_MAX:
        more = await content.read(limits.OUTPUT_BYTES_MAX - len(found))
        if not more:
            break
        found += more
    return found


def _of_status(status: int, reason: str, body: bytes, expected: Sequence[int]) -> Finding:
    summary = one_line(f"HTTP {status} {reason}")
    if expected:
        verdict = Verdict.PASSING if status in expected else Verdict.CRITICAL
        if verdict is Verdict.CRITICAL:
            summary += f", expected {' or '.join(map(str, expected))}"
    elif 200 <= status <= 299:
        verdict = Verdict.PASSING
    else:
        verdict = Verdict.WARNING if status == _TOO_MANY_REQUESTS else Verdict.CRITICAL
    return Finding(verdict, one_line(summary), shortened(body))


def _of_exit(code: int, output: bytes) -> Finding:
    verdict = {0: Verdict.PASSING, 1: Verdict.WARNING}.get(code, Verdict.CRITICAL)
    text = shortened(output)
    ended = f"exit code {code}" if code >= 0 else f"ended by signal {-code}"
    first = one_line(text.strip().partition("\n")[0])
    return Finding(verdict, one_line(f"{ended}: {first}" if first else ended), text)


def _ttl(path: str, ttl_s: float) -> Finding:
    try:
        with open(path, "rb") as file:
            age_s = time.time() - os.fstat(file.fileno()).st_mtime
            content = file.read(limits.OUTPUT_BYTES_MAX)
    except FileNotFoundError:
        return _critical(f"{path} was never written")
    return ttl_finding(age_s, ttl_s, content)


def ttl_finding(age_s: float, ttl_s: float, content: bytes) -> Finding:
    """What a TTL file says that was written `age_s` ago.

    Its first word may be passing, warning or critical; anything else, or nothing, is passing.
    A file that is too old is critical, whatever it says.
    """
    text = shortened(content)
    if age_s > ttl_s:
        return _critical(f"nothing was written for {age_s:.1f} s, {ttl_s:g} s are allowed", text)
    words = text.split(None, 1)
    verdicts = {each.value: each for each in Verdict}
    verdict = verdicts.get(words[0].lower(), Verdict.PASSING) if words else Verdict.PASSING
    return Finding(verdict, one_line(text) or "written in time", text)
