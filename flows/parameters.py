"""Flat flow parameters from a pydantic model, so that command and flow cannot disagree.

A deployment's parameters merge one level deep: with a single ``config`` parameter, overriding one field
would drop the defaults of all others.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel


def take(model: type[BaseModel]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that gives a function of ``**parameters`` the fields of `model` as its signature.

    Prefect reads types, bounds and defaults from the signature, and descriptions from the docstring.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        fields = model.model_fields
        signature = inspect.signature(model).replace(return_annotation=inspect.Signature.empty)
        function.__signature__ = signature  # type: ignore[attr-defined]
        function.__annotations__ = {name: field.annotation for name, field in signature.parameters.items()}
        described = "\n".join(f"    {name}: {fields[name].description}" for name in fields)
        function.__doc__ = f"{function.__doc__}\n\nArgs:\n{described}\n"
        return function

    return decorate
