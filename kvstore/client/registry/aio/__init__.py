"""The registry of the asyncio client."""

from kvstore.client.registry.aio.registration import AsyncRegistration
from kvstore.client.registry.aio.registry import AsyncRegistry
from kvstore.client.registry.aio.resolver import AsyncResolver
from kvstore.client.registry.aio.watch import AsyncRegistryWatch

__all__ = ("AsyncRegistration", "AsyncRegistry", "AsyncRegistryWatch", "AsyncResolver")
