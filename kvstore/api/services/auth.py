"""The Auth service of a cluster that runs without authentication."""

from __future__ import annotations

from kvstore.api import validation
from kvstore.api.call import Call, MethodTable
from kvstore.api.encoding import encoded
from kvstore.api.facade import Node
from kvstore.api.guard import Guard
from kvstore.errors import AUTH_NOT_ENABLED, Code, EtcdError
from kvstore.pb import rpc_pb2

__all__ = ("AuthService",)

_SERVICE = "/etcdserverpb.Auth/"
_INITIAL_AUTH_REVISION = 1
_NOT_OFFERED = (
    "AuthEnable",
    "UserAdd",
    "UserGet",
    "UserList",
    "UserDelete",
    "UserChangePassword",
    "UserGrantRole",
    "UserRevokeRole",
    "RoleAdd",
    "RoleGet",
    "RoleList",
    "RoleDelete",
    "RoleGrantPermission",
    "RoleRevokePermission",
)


class AuthService:
    """Says that authentication is off, and refuses whatever would need users and roles."""

    def __init__(self, node: Node, guard: Guard) -> None:
        self._node = node
        self._guard = guard

    def register(self, table: MethodTable) -> None:
        """Adds the service's methods."""
        guard = self._guard
        table.unary(_SERVICE + "AuthStatus", guard.unary(self.status))
        table.unary(_SERVICE + "AuthDisable", guard.unary(self.disable))
        table.unary(_SERVICE + "Authenticate", guard.unary(self.authenticate))
        for name in _NOT_OFFERED:
            table.unary(_SERVICE + name, guard.unary(self.refuse))

    def _header(self) -> bytes:
        return self._node.header(self._node.revision)

    def status(self, call: Call) -> bytes:
        """Off, at the revision of a cluster that never had users."""
        validation.parse(rpc_pb2.AuthStatusRequest, call.payload)
        response = rpc_pb2.AuthStatusResponse(enabled=False, authRevision=_INITIAL_AUTH_REVISION)
        return encoded(response, self._header())

    def disable(self, call: Call) -> bytes:
        """Turning off what is off succeeds."""
        validation.parse(rpc_pb2.AuthDisableRequest, call.payload)
        return self._header()

    def authenticate(self, call: Call) -> bytes:
        """Clients that were given a password ask for a token first, and take this for an answer."""
        validation.parse(rpc_pb2.AuthenticateRequest, call.payload)
        raise AUTH_NOT_ENABLED

    def refuse(self, call: Call) -> bytes:
        """Never pretends to protect anything."""
        raise EtcdError(
            Code.UNIMPLEMENTED,
            "kvstore: users and roles are not supported; authentication stays off",
        )
