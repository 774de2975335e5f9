"""The registry of the blocking client."""

from kvstore.client.registry.blocking.registration import Registration
from kvstore.client.registry.blocking.registry import Registry
from kvstore.client.registry.blocking.resolver import Resolver
from kvstore.client.registry.blocking.watch import RegistryWatch

__all__ = ("Registration", "Registry", "RegistryWatch", "Resolver")
