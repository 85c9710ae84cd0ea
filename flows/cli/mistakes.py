"""What a person reads of an error that ended a command: what was found, what was wanted and what to do, in one line.

In: the error, the words that were typed and the ``--config`` file. Out: the line and the exit code.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from cyclopts import ArgumentOrderError, CycloptsError, MissingArgumentError, UnknownOptionError
from pydantic import BaseModel
from pydantic import ValidationError as PydanticError

from covseg.errors import CovsegError, UsageError
from covseg.settings.faults import meant, wanted
from flows.cli.examples import EXAMPLES

# Which extra brings a package that the core does without.
EXTRAS = {
    **dict.fromkeys(("albumentations", "segmentation_models_pytorch", "scipy", "tensorboard"), "train"),
    **dict.fromkeys(("onnx", "onnx_ir", "onnxscript", "timm", "torch", "torchvision"), "train"),
    "highdicom": "dicom",
    "matplotlib": "evaluate",
    "openvino": "openvino",
    "nncf": "quantise",
    "obstore": "gs",
    "opentelemetry": "otel",
    "optuna": "search",
    **dict.fromkeys(("httpx", "prefect", "sqlalchemy"), "flow"),
    "psycopg": "search-postgresql",
    **dict.fromkeys(("ray", "requests"), "ray"),
    **dict.fromkeys(("aiohttp", "botocore", "fsspec", "s3fs"), "s3"),
}


def explain(error: BaseException, words: Sequence[str] = (), config: Path | None = None) -> tuple[str, int]:
    """Return what a person reads of an error that ended a command, and the exit code."""
    match error:
        case CycloptsError():
            return _usage(error, words, config), UsageError.exit_code
        case CovsegError():
            return str(error), error.exit_code
        case KeyboardInterrupt():
            return "interrupted; what was written is whole, run the same command again", 130
        case ModuleNotFoundError(name=str(name)) if extra := EXTRAS.get(name.partition(".")[0]):
            return f"this needs {name}, which is not installed: pip install 'covseg[{extra}]'", UsageError.exit_code
        case OSError():
            return f"{error.strerror or error}: {error.filename or 'no file named'}", 4
    return f"internal error: {type(error).__name__}: {error}; run again with --debug and report it", 1


def read_config(path: Path, commands: Sequence[str]) -> None:
    """Refuse a ``--config`` file that is not there, is no TOML, or speaks of no command.

    Raises
    ------
    UsageError
        With the file, and the line where it is known.
    """
    if not path.is_file():
        raise UsageError(f"--config {path}: no such file; wanted a TOML file")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise UsageError(f"--config {path}: not text in UTF-8 at byte {error.start}; wanted a TOML file") from None
    except tomllib.TOMLDecodeError as error:
        found = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(error))
        message, line = found.groups() if found else (str(error), None)
        place = f", line {line}" if line else ", at its end" if found else ""
        raise UsageError(f"--config {path}{place}: no TOML: {message}") from None
    for name, table in content.items():
        if name not in commands or not isinstance(table, dict):
            line = _line(path, (), name) or _line(path, (name,), "")
            near = meant(name, commands) or f"; wanted tables named after commands, such as [{commands[0]}]"
            raise UsageError(f"--config {path}{line}: no command {name!r}{near}")


def _usage(error: CycloptsError, words: Sequence[str], config: Path | None) -> str:
    """Say what is wrong with the words of a command or with its ``--config`` file."""
    command = " ".join(error.command_chain or ())
    if command not in EXAMPLES:
        return str(error)
    advice = f"covseg {command} --help says more"
    fields = _fields(error.target)
    match error:
        case MissingArgumentError(__cause__=cause) if _lacking(error, fields):
            given = cause.errors()[0]["input"] if isinstance(cause, PydanticError) else {}
            needed = [name.upper() for name, field in fields.items() if field.is_required() and name not in given]
            return f"{command} wants {' and '.join(needed)}, for example: {EXAMPLES[command]}"
        case MissingArgumentError(argument=argument) if argument:
            return f"{argument.name} wants a value; {advice}"
        case ArgumentOrderError(token=str(token)):
            return f"{token!r} is one word too many, for example: {EXAMPLES[command]}; {advice}"
        case UnknownOptionError(token=token) if config and token and Path(token.source) == config.absolute():
            key = token.keyword.strip("[]").rpartition(".")[2] if token.keyword else ""
            near = meant(key.replace("_", "-"), [_option(name)[2:] for name in fields])
            return f"{config}{_line(config, error.command_chain, key)}: no setting {key!r}{near}; {advice}"
        case CycloptsError(__cause__=PydanticError() as cause):
            fault = cause.errors(include_url=False)[0]
            if not fault["loc"]:
                return f"{wanted(fault)}; {advice}"
            name = str(fault["loc"][0])
            found, place = fault["input"], _option(name)
            if config and not any(word.partition("=")[0] == place for word in words):
                place = f"{config}{line}: {place[2:]}" if (line := _line(config, error.command_chain, name)) else place
            return f"{place} {found}: {wanted(fault)}; {advice}"
    return f"{error} {advice}"


def _fields(target: Callable[..., Any] | None) -> dict[str, Any]:
    """Return the fields of a command's options by name."""
    models = [hint for hint in get_type_hints(target).values() if isinstance(hint, type)] if target else []
    return next((dict(model.model_fields) for model in models if issubclass(model, BaseModel)), {})


def _lacking(error: MissingArgumentError, fields: dict[str, Any]) -> bool:
    """Tell an argument that was left out from an option that stands there without its value."""
    names = error.argument.field_info.names if error.argument else ()
    return any(name in fields and fields[name].is_required() for name in names)


def _option(name: str) -> str:
    return f"--{name.strip('_').replace('_', '-')}"


def _line(path: Path, table: Sequence[str] | None, key: str) -> str:
    """Return ``, line N`` of a key in a table, or of its heading for no key; nothing where it is not seen."""
    heading, here = "", ".".join(table or ())
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if found := re.match(r"\s*\[\s*([^\]]*?)\s*\]", text):
            heading = found[1]
            if not key and heading == here:
                return f", line {number}"
        elif key and heading == here and re.match(rf"\s*[\"']?{_loose(key)}[\"']?\s*=", text):
            return f", line {number}"
    return ""


def _loose(key: str) -> str:
    return "[-_]".join(map(re.escape, re.split("[-_]", key.strip("_"))))
