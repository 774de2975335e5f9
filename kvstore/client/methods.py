"""Turns operations into methods: the same name, signature and documentation, plus `self`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ("adopt",)


def adopt(method: Any, build: Callable[..., Any]) -> None:
    """Give `method` the face of the operation or program `build`, as `help` and editors show it."""
    signature = inspect.signature(build)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [each for each in signature.parameters.values() if each.name != "self"]
    method.__signature__ = signature.replace(
        parameters=[own, *parameters],
        return_annotation=_unwrapped(signature.return_annotation),
    )
    method.__name__ = build.__name__
    method.__doc__ = build.__doc__


def _unwrapped(annotation: Any) -> Any:
    """`Unary[T]` and `Program[T]` as text become `T`."""
    text = str(annotation)
    for kind in ("Unary[", "Program["):
        if text.startswith(kind):
            return text.removeprefix(kind).removesuffix("]")
    return text
