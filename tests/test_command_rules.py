"""One set of rules for the command line, held by every command that a person can type."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from annotated_types import Ge
from cyclopts import App

from flows.cli import app as cli
from flows.cli.examples import EXAMPLES
from flows.cli.mistakes import EXTRAS

ROOT = Path(__file__).resolve().parents[1]
RAW = re.compile(r"Input should|unable to parse|validation error|Command \"|Traceback|internal error")


def commands() -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield the words, the function and the fields of every command."""

    def walk(app: App, words: tuple[str, ...]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
        for name in app:
            if name.startswith("-"):
                continue
            below = app[name]
            yield from walk(below, (*words, name))
            if below.default_command is not None:
                function = below.default_command
                yield " ".join((*words, name)), function, get_type_hints(function)["config"].model_fields

    yield from walk(cli.app, ())


EVERY = {words: fields for words, _, fields in commands()}


@pytest.fixture(params=sorted(EVERY))
def command(request: pytest.FixtureRequest) -> str:
    return request.param


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = cli.run(list(words))
    return code, capsys.readouterr().err


def number_of(fields: dict[str, Any]) -> str | None:
    """Name the first option that may be left out and is a number with a least value."""
    optional = {name: field.metadata for name, field in fields.items() if not field.is_required()}
    named = (name for name, rules in optional.items() if any(isinstance(rule, Ge) for rule in rules))
    return next(named, None)


def test_the_rules_see_every_command() -> None:
    assert set(EVERY) == set(EXAMPLES) and {"predict", "models fit-filter", "data check"} <= set(EVERY)


def test_every_command_answers_in_json_and_describes_each_option(command: str) -> None:
    assert "json_" in EVERY[command]
    assert [name for name, field in EVERY[command].items() if not field.description and name != "json_"] == []


def test_what_a_command_writes_has_one_name(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert not {"directory", "target", "folder_out", "destination"} & set(EVERY[command])
    if {"output", "out"} & set(EVERY[command]):
        assert cli.run([*command.split(), "--help"]) == 0
        assert re.search(r"--output\b.*-o\b", capsys.readouterr().out, re.DOTALL)


def test_the_help_ends_with_an_example_that_the_command_takes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*command.split(), "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.endswith(f"Example: {EXAMPLES[command]}")
    name, *words = shlex.split(EXAMPLES[command])
    function, *_ = cli.app.parse_args(words, exit_on_error=False, print_error=False)
    assert name == "covseg" and function is {words: function for words, function, _ in commands()}[command]


def test_what_is_lacking_is_named_all_at_once_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    needed = [name.upper() for name, field in EVERY[command].items() if field.is_required()]
    if not needed:
        return
    code, said = told(capsys, *command.split())
    assert code == 2
    assert said == f"covseg: {command} wants {' and '.join(needed)}, for example: {EXAMPLES[command]}\n"


def test_a_wrong_number_says_what_was_found_and_wanted_in_plain_words(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    name = number_of(EVERY[command])
    if name is None:
        return
    option = f"--{name.replace('_', '-')}"
    given = shlex.split(EXAMPLES[command])[1:]
    for value, wanted in (("three", "wanted a (whole )?number"), ("-3", "wanted [0-9.]+ or more")):
        code, said = told(capsys, *given, option, value)
        assert code == 2
        assert re.fullmatch(rf"covseg: {option} {value}: {wanted}; covseg {command} --help says more\n", said), said


def test_an_option_that_is_not_there_is_told_without_words_of_a_library(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = told(capsys, *command.split(), "--jsno")
    assert code == 2 and "--jsno" in said and "--json" in said
    assert not RAW.search(said)
    assert cli.run([*command.split(), "--jsno", "--json"]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["exit_code"] == 2 and "--jsno" in answer["error"]


def test_a_mistake_in_a_config_file_is_told_with_file_and_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "covseg.toml"
    path.write_text(f"# mine\n[{command.replace(' ', '.')}]\n\njsno = true\n")
    code, said = told(capsys, *shlex.split(EXAMPLES[command])[1:], "--config", str(path))
    assert code == 2
    assert said.startswith(f"covseg: {path}, line 4: no setting 'jsno', did you mean 'json'?"), said
    name = number_of(EVERY[command])
    if name is not None:
        path.write_text(f'[{command.replace(" ", ".")}]\n{name} = "three"\n')
        code, said = told(capsys, *shlex.split(EXAMPLES[command])[1:], "--config", str(path))
        assert code == 2
        assert f"{path}, line 2: {name.replace('_', '-')} three: wanted a" in said


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b'[predict]\nsource = "a\n', ", line 2: no TOML: "),
        (b"[predict", ", at its end: no TOML: |, line 1: no TOML: "),
        (b"\n[predcit]\n", ", line 2: no command 'predcit', did you mean 'predict'?"),
        (b'source = "a"\n', ", line 1: no command 'source'; wanted tables named after commands, such as "),
        (b"\xff\xfe", ": not text in UTF-8"),
    ],
)
def test_a_config_file_that_is_none_is_named_with_the_line(
    content: bytes, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "covseg.toml"
    path.write_bytes(content)
    code, said = told(capsys, "predict", "--config", str(path))
    assert code == 2
    assert any(f"{path}{words}" in said for words in wanted.split("|")), said


def test_a_word_too_many_and_an_option_without_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = told(capsys, "predict", "a.png", "b.png", "-o", "out")
    assert code == 2 and "'b.png' is one word too many" in said
    code, said = told(capsys, "predict", "a.png", "-o", "out", "--batch")
    assert code == 2 and "--batch wants a value" in said and not RAW.search(said)


def test_resuming_what_was_never_begun_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "fast", "--data", str(tmp_path), "-o", str(tmp_path / "run"), "--resume"]
    code, said = told(capsys, *words)
    assert code == 2
    assert f"--resume: {tmp_path / 'run'} holds no run" in said and "leave --resume out" in said
    assert not (tmp_path / "run").exists()


def test_a_run_has_its_output_under_the_older_name_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "covseg.toml"
    path.write_text(f'[train]\nrecipe = "fast"\ndata = "{tmp_path}"\nout = "{tmp_path / "run"}"\nresume = true\n')
    for words in (["--config", str(path)], ["fast", "--data", "x", "--out", str(tmp_path / "run"), "--resume"]):
        assert f"{tmp_path / 'run'} holds no run" in told(capsys, "train", *words)[1]


def test_every_package_of_an_extra_is_known_to_belong_to_one() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    core = {re.split(r"[^\w-]", line)[0] for line in project["dependencies"]}
    extras = {
        re.split(r"[^\w-]", line)[0].replace("-", "_"): extra
        for extra, lines in project["optional-dependencies"].items()
        for line in lines
        if re.split(r"[^\w-]", line)[0] not in core
    }
    never_imported = {"fastapi", "opentelemetry_distro", "opentelemetry_exporter_otlp_proto_http"}  # for others' sake
    assert set(extras) - never_imported <= set(EXTRAS)
    assert {name for name, extra in EXTRAS.items() if extra not in project["optional-dependencies"]} == set()


def imported() -> set[str]:
    """Top names of all packages that the code imports, anywhere in a module."""
    found: set[str] = set()
    for path in (path for room in ("covseg", "flows", "workers") for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"covseg", "flows", "workers"}


def brought_by(name: str, seen: set[str]) -> set[str]:
    """Distributions that installing one without extras brings."""
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name not in seen:
        seen.add(name)
        for line in metadata.requires(name) or []:
            if "extra ==" not in line and "sys_platform" not in line:
                brought_by(re.split(r"[^\w.-]", line)[0], seen)
    return seen


def test_every_package_that_the_core_does_not_bring_has_its_extra() -> None:
    core, modules = brought_by("covseg", set()), metadata.packages_distributions()
    lacking = {
        name
        for name in imported() - set(EXTRAS)
        if not {re.sub(r"[-_.]+", "-", one).lower() for one in modules.get(name, ())} & core
    }
    assert lacking == set()


def test_the_help_of_a_long_command_is_laid_out_in_panels(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    from flows.cli.options import LONG, PANELS

    assert cli.run([*command.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    wanted = {
        panel for panel, names in PANELS.items() if len(EVERY[command]) >= LONG and set(names) & set(EVERY[command])
    }
    assert {panel for panel in PANELS if f"─ {panel} ─" in shown} == wanted


def test_every_command_stands_in_one_panel_of_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(name for names in cli.PANELS.values() for name in names) == sorted(cli.COMMANDS)
    assert cli.run(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [place for place in (shown.find(f"─ {panel} ─") for panel in cli.PANELS) if place < 0] == []


def test_the_completion_of_a_shell_is_installed_by_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        cli.app(["--install-completion", "--shell", "bash"])
    assert ended.value.code == 0
    (script,) = tmp_path.rglob("completions/covseg")
    text = script.read_text()
    assert "--retry-refused" in text and "fit-filter" in text
