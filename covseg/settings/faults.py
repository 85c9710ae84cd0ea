"""What is wrong with a file, a setting or a record that pydantic did not take, in one line.

In: a `pydantic.ValidationError`. Out: the key and what was wanted; the caller says of which file, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from pydantic import ValidationError
from pydantic_core import ErrorDetails

# By pydantic's name of the fault; what stands in braces is its context.
WANTED = {
    "bool_parsing": "wanted true or false",
    "extra_forbidden": "no such setting",
    "float_parsing": "wanted a number",
    "float_type": "wanted a number",
    "greater_than": "wanted more than {gt:g}",
    "greater_than_equal": "wanted {ge:g} or more",
    "int_from_float": "wanted a whole number",
    "int_parsing": "wanted a whole number",
    "int_type": "wanted a whole number",
    "less_than": "wanted less than {lt:g}",
    "less_than_equal": "wanted {le:g} or less",
    "literal_error": "wanted {expected}",
    "missing": "is missing",
    "path_type": "wanted a path",
    "string_too_short": "wanted at least {min_length} character",
    "string_type": "wanted text",
}


def first_fault(error: ValidationError, whole: str = "") -> str:
    """Return ``key: what is wrong`` of the first fault; `whole` stands for the key where all of it is meant."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"])) or whole
    return f"{where}: {wanted(first)}" if where else wanted(first)


def wanted(fault: ErrorDetails) -> str:
    """Say what was wanted in the place of what one fault was found with."""
    words = WANTED.get(fault["type"])
    return words.format(**fault.get("ctx", {})) if words else fault["msg"].removeprefix("Value error, ")


def meant(name: str, known: Iterable[str]) -> str:
    """Return ``, did you mean X?`` for a name that is none of `known` and near one of them; else nothing."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f", did you mean {near[0]!r}?" if near else ""
