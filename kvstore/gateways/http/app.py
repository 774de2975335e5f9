"""The HTTP endpoints: /health, /livez, /readyz, /version, /metrics, and who may call them."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Sequence
from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from kvstore.gateways.http.facade import Node
from kvstore.gateways.http.health import LIVE_CHECKS, READY_CHECKS, HealthChecks
from kvstore.metrics import Metrics

__all__ = ("make_app",)

_LOG = logging.getLogger(__name__)

_CORS_METHODS = "POST, GET, OPTIONS, PUT, DELETE"
_CORS_HEADERS = "accept, content-type, authorization"
_PLAIN_HEADERS = {"X-Content-Type-Options": "nosniff"}


def make_app(
    node: Node,
    metrics: Metrics,
    checks: HealthChecks,
    *,
    hosts: Sequence[str] = ("*",),
    origins: Sequence[str] = ("*",),
    with_version: bool = True,
) -> web.Application:
    """The application for one set of listeners.

    `hosts`: accepted Host names; `origins`: web pages that may call; for both, none or `*` is all.
    `with_version` is False on listeners that serve measurements only.
    """
    app = web.Application(middlewares=[_host_check(hosts), _cross_origin(origins)])
    endpoints = _Endpoints(node, metrics, checks)
    routes: list[tuple[str, Handler]] = [
        ("/health", endpoints.health),
        ("/metrics", endpoints.metrics),
        ("/livez", endpoints.check_all("livez", LIVE_CHECKS)),
        ("/readyz", endpoints.check_all("readyz", READY_CHECKS)),
        *(
            (f"/{kind}/{name}", endpoints.check_all(kind, (name,)))
            for kind, names in (("livez", LIVE_CHECKS), ("readyz", READY_CHECKS))
            for name in names
        ),
    ]
    if with_version:
        routes.append(("/version", endpoints.version))
    for path, handler in routes:
        # HEAD stays out: etcd answers it with 405, as everything but GET.
        app.router.add_get(path, handler, allow_head=False)
    return app


class _Endpoints:
    def __init__(self, node: Node, metrics: Metrics, checks: HealthChecks) -> None:
        self._node = node
        self._metrics = metrics
        self._checks = checks
        self._reported: dict[str, str] = {}

    def _report(self, kind: str, problem: str) -> None:
        """Logs a check's outcome when it changes: probes come often, and ills last."""
        before = self._reported.get(kind, "")
        self._reported[kind] = problem
        if problem and problem != before:
            _LOG.warning("the %s check fails: %s", kind, problem)
        elif before and not problem:
            _LOG.info("the %s check is well again", kind)

    async def health(self, request: web.Request) -> web.Response:
        exclude = frozenset(request.query.getall("exclude", []))
        serializable = request.query.get("serializable") == "true"
        health = await self._checks.health(exclude, serializable)
        self._report("health", health.reason)
        return web.Response(
            status=HTTPStatus.OK if health.ok else HTTPStatus.SERVICE_UNAVAILABLE,
            text=_json({"health": "true" if health.ok else "false", "reason": health.reason}),
            content_type="application/json",
        )

    def check_all(self, kind: str, names: Sequence[str]) -> Handler:
        """The handler of /livez or /readyz, or of one of their checks."""

        async def handle(request: web.Request) -> web.Response:
            exclude = frozenset(request.query.getall("exclude", []))
            results = await self._checks.run(kind, names, exclude)
            failed = [result for result in results if result.failure]
            lines = "".join(f"{result.line}\n" for result in results)
            self._report(kind, "; ".join(result.line for result in failed))
            if failed:
                return _plain(HTTPStatus.SERVICE_UNAVAILABLE, lines)
            return _plain(HTTPStatus.OK, (lines if "verbose" in request.query else "") + "ok\n")

        return handle

    async def version(self, _request: web.Request) -> web.Response:
        status = self._node.status()
        return web.Response(
            text=_json(
                {
                    "etcdserver": status.version,
                    "etcdcluster": self._node.cluster_version or "not_decided",
                    "storage": status.storage_version or "unknown",
                }
            ),
            content_type="application/json",
        )

    async def metrics(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._metrics.registry),
            headers={"Content-Type": CONTENT_TYPE_LATEST},
        )


def _json(value: dict[str, str]) -> str:
    return json.dumps(value, separators=(",", ":"))


def _plain(status: HTTPStatus, text: str) -> web.Response:
    return web.Response(status=status, text=text, headers=_PLAIN_HEADERS)


def _host_check(allowed: Collection[str]) -> Middleware:
    """Answers 421 to other Host names: a page that rebinds its own name to our address has one."""
    everyone = not allowed or "*" in allowed

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        if everyone or _host_name(request.headers.get("Host", "")) in allowed:
            return await handler(request)
        _LOG.warning("an HTTP request for an unlisted host was refused")
        return _plain(
            HTTPStatus.MISDIRECTED_REQUEST,
            "This server does not answer to that host name; see --host-whitelist.\n",
        )

    return check


def _host_name(header: str) -> str:
    """The Host header without its port; an IPv6 address without its brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def _cross_origin(allowed: Collection[str]) -> Middleware:
    """Tells browsers which pages may read our answers, and answers their OPTIONS questions."""
    everyone = not allowed or "*" in allowed

    @web.middleware
    async def add_headers(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = "*" if everyone else request.headers.get("Origin", "")
        headers = {}
        if everyone or origin in allowed:
            headers = {
                "Access-Control-Allow-Methods": _CORS_METHODS,
                "Access-Control-Allow-Origin": origin,
                "Access-Control-Allow-Headers": _CORS_HEADERS,
            }
        if request.method == "OPTIONS":
            return web.Response(headers=headers)
        try:
            response = await handler(request)
        except web.HTTPException as error:
            error.headers.update(headers)
            raise
        response.headers.update(headers)
        return response

    return add_headers
