"""What is wrong with a file, a setting or a record that pydantic did not take, in one line.

In: a `pydantic.ValidationError`. Out: the key and what was wanted; the caller says of which file, and what to do.
"""

from __future__ import annotations

from pydantic import ValidationError


def first_fault(error: ValidationError, whole: str = "") -> str:
    """Return ``key: what is wrong`` of the first fault; `whole` stands for the key where all of it is meant."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"])) or whole
    words = first["msg"].removeprefix("Value error, ")
    return f"{where}: {words}" if where else words
