"""Flat flow parameters from a pydantic model, so that command and flow cannot disagree.

A deployment's parameters merge one level deep: with a single ``config`` parameter, overriding one field
would drop the defaults of all others.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined


def take(model: type[BaseModel]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that gives a function of ``**parameters`` the fields of `model` as its signature.

    Prefect reads types, bounds and defaults from the signature, and descriptions from the docstring.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        fields = model.model_fields
        signature = inspect.Signature([_parameter(name, fields[name]) for name in fields])
        function.__signature__ = signature  # type: ignore[attr-defined]
        function.__annotations__ = {name: field.annotation for name, field in signature.parameters.items()}
        described = "\n".join(f"    {name}: {fields[name].description}" for name in fields)
        function.__doc__ = f"{function.__doc__}\n\nArgs:\n{described}\n"
        return function

    return decorate


def _parameter(name: str, field: Any) -> inspect.Parameter:
    default = inspect.Parameter.empty if field.default is PydanticUndefined else field.default
    annotation = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
