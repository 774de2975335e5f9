"""Turns operations into methods: the same name, signature and documentation, plus `self`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__ = ("adopt",)


def adopt(method: Any, build: Callable[..., Any]) -> None:
    """Give `method` the face of the operation `build`, as `help` and editors show it."""
    signature = inspect.signature(build)
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__signature__ = signature.replace(
        parameters=[own, *signature.parameters.values()],
        return_annotation=_unwrapped(signature.return_annotation),
    )
    method.__name__ = build.__name__
    method.__doc__ = build.__doc__


def _unwrapped(annotation: Any) -> Any:
    """`Unary[T]` as text becomes `T`."""
    text = str(annotation)
    return text.removeprefix("Unary[").removesuffix("]") if text.startswith("Unary[") else text
