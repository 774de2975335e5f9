"""`service`: services and their instances; each module adds some of the commands to the group."""

from kvstore.cli.commands.service import change, govern, look, register, top, watch
from kvstore.cli.commands.service.group import service

__all__ = ("change", "govern", "look", "register", "service", "top", "watch")
