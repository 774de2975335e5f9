"""Server reflection: tells tools like grpcurl which services there are and what they take.

etcd itself does not offer it. The descriptors come from our private pool.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from kvstore.api import limits, validation
from kvstore.api.call import MethodTable, Outlet
from kvstore.api.encoding import encoded
from kvstore.errors import Code
from kvstore.pb import pool, reflection_pb2

__all__ = ("ReflectionService",)

_Response = reflection_pb2.ServerReflectionResponse


class ReflectionService:
    """Served under the v1 and the v1alpha name; the messages are the same."""

    def __init__(self) -> None:
        self._services: list[str] = []

    def register(self, table: MethodTable) -> None:
        """Adds the service's methods; call it last, it lists what the table holds by then."""
        names = {method.service for method in table}
        for version in ("v1", "v1alpha"):
            service = f"grpc.reflection.{version}.ServerReflection"
            table.session(f"/{service}/ServerReflectionInfo", self.info)
        self._services = sorted({*names, "grpc.reflection.v1.ServerReflection"})

    def info(self, outlet: Outlet) -> _ReflectionSession:
        """One stream of questions."""
        return _ReflectionSession(self._services, outlet)


class _ReflectionSession:
    def __init__(self, services: list[str], outlet: Outlet) -> None:
        self._services = services
        self._outlet = outlet
        self._answers: deque[bytes] = deque()
        self._half_closed = False

    @property
    def accepting(self) -> bool:
        return len(self._answers) < limits.TAKE_MESSAGES

    def received(self, payload: bytes) -> None:
        request = validation.parse_streamed(reflection_pb2.ServerReflectionRequest, payload)
        response = _Response(valid_host=request.host, original_request=request)
        self._answer(request, response)
        self._answers.append(encoded(response))
        self._outlet.wake()

    def half_closed(self) -> None:
        self._half_closed = True
        if not self._answers:
            self._outlet.finish(None)

    def take(self, max_messages: int, max_bytes: int) -> list[bytes]:
        taken = [self._answers.popleft() for _ in range(min(max_messages, len(self._answers)))]
        if self._half_closed and not self._answers:
            self._outlet.finish(None)
        return taken

    def closed(self) -> None:
        self._answers.clear()

    def _answer(self, request: Any, response: Any) -> None:
        which = request.WhichOneof("message_request")
        descriptors = pool.Default()
        try:
            if which == "list_services":
                for name in self._services:
                    response.list_services_response.service.add(name=name)
            elif which == "file_by_filename":
                _add_file(response, descriptors.FindFileByName(request.file_by_filename))
            elif which == "file_containing_symbol":
                symbol = request.file_containing_symbol
                _add_file(response, descriptors.FindFileContainingSymbol(symbol))
            elif which == "all_extension_numbers_of_type":
                name = request.all_extension_numbers_of_type
                descriptors.FindMessageTypeByName(name)  # KeyError when there is no such type
                response.all_extension_numbers_response.base_type_name = name
            elif which == "file_containing_extension":
                raise KeyError(request.file_containing_extension.containing_type)  # we have none
            else:
                response.error_response.error_code = Code.INVALID_ARGUMENT
                response.error_response.error_message = "the request asks for nothing"
        except KeyError as error:
            response.error_response.error_code = Code.NOT_FOUND
            response.error_response.error_message = f"not found: {error}"


def _add_file(response: Any, file: Any) -> None:
    """The file and, before it, all that it imports: a client must not have to ask again."""
    done: set[str] = set()

    def add(one: Any) -> None:
        if one.name in done:
            return
        done.add(one.name)
        for imported in one.dependencies:
            add(imported)
        response.file_descriptor_response.file_descriptor_proto.append(one.serialized_pb)

    add(file)
