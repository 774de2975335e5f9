"""All services of a member in one method table."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.api.call import MethodTable
from kvstore.api.counting import GrpcCollector
from kvstore.api.facade import Node
from kvstore.api.guard import Guard
from kvstore.api.keys import Keys
from kvstore.api.services.auth import AuthService
from kvstore.api.services.cluster import ClusterService
from kvstore.api.services.election import ElectionService
from kvstore.api.services.health import HealthService
from kvstore.api.services.kv import KVService
from kvstore.api.services.lease import LeaseService
from kvstore.api.services.lock import LockService
from kvstore.api.services.maintenance import MaintenanceService
from kvstore.api.services.reflection import ReflectionService
from kvstore.api.services.registry import RegistryApi
from kvstore.api.services.watch import WatchService
from kvstore.registry.service import RegistryService

__all__ = ("Api", "build_api")


@dataclass(frozen=True, slots=True)
class Api:
    """What the daemon needs of the front door."""

    table: MethodTable
    """For the transports."""
    health: HealthService
    """To be told when the member stops serving."""
    collector: GrpcCollector
    """For the metrics registry."""


def build_api(node: Node, registry: RegistryService | None = None) -> Api:
    """Every service over one node, and over its registry if there is one."""
    table = MethodTable()
    guard = Guard(node)
    keys = Keys(node)
    health = HealthService(guard)
    for service in (
        KVService(node, guard),
        WatchService(node, guard),
        LeaseService(node, guard),
        ClusterService(node, guard),
        MaintenanceService(node, guard),
        AuthService(node, guard),
        LockService(keys, guard),
        ElectionService(keys, guard),
        health,
        *(() if registry is None else (RegistryApi(registry, guard),)),
        ReflectionService(),
    ):
        service.register(table)
    return Api(table, health, GrpcCollector(table, guard))
