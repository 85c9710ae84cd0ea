"""``covseg demo``: real and made images and bad files in; masks, rows and reports out; then what to run next."""

from __future__ import annotations

import csv
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from covseg.errors import EnvironmentFailed, UsageError
from flows.cli.console import note, show, show_json, table, warn
from flows.cli.options import OUTPUT, Json, Options

MADE_BY = ".covseg-demo"  # in the folder: a demo made it, and the next one may remove it
ACCEPTED_OR_NOT = (0, 3)  # 3: more bad files than --max-failed allows, which is what the demo shows


class DemoConfig(Options):
    """What `covseg demo` can be told."""

    output: Annotated[Path, OUTPUT] = Field(Path("demo"), description="Folder for all that it makes; it begins empty.")
    json_: Json = False


class Step(NamedTuple):
    """One command of the demo, and the packages beyond the core that it needs."""

    title: str
    words: tuple[str, ...]
    needs: tuple[str, ...] = ()


def demo(config: DemoConfig = DemoConfig()) -> int:  # noqa: B008
    """Score six real radiographs, and 24 made ones with every kind of bad file; run the commands as a person would."""
    _begin(config.output)
    done, stopped = _run_all(_steps(config.output))
    rows = _beside_truth(config.output / "real")
    reports = [str(path.resolve()) for path in sorted(config.output.glob("*/report.html"))]
    if config.json_:
        show_json({"steps": done, "stopped": stopped, "reports": reports, "real": rows})
        return EnvironmentFailed.exit_code if stopped else 0
    from covseg.samples import CREDIT

    show("\nThe real radiographs beside the masks of COVID-QU-Ex; the model learnt from those of Train:")
    show(*table(list(rows[0]), [list(row.values()) for row in rows], words=3))
    show(CREDIT, *(f"\nReport: {report}" for report in reports))
    show(
        "\nThe made images are drawn, and the model learnt from real ones: it sees their lungs, and seldom their "
        f"infection ({config.output}/phantoms/truth.csv). The damaged files are refused on purpose."
    )
    show("\nNext: covseg predict YOUR_FOLDER -o OUT. Research use only, not for diagnosis.")
    if stopped:
        warn(f"{stopped}; all else is whole, and covseg predict needs neither server nor cluster")
    return EnvironmentFailed.exit_code if stopped else 0


def _steps(out: Path) -> list[Step]:
    from covseg.samples import HERE

    phantoms, archive = str(out / "phantoms"), str(out / "archive")
    return [
        Step("Score six real radiographs", ("predict", str(HERE / "images"), "-o", str(out / "real"))),
        Step(
            "Draw 24 images, PNG and DICOM, and every kind of bad file",
            ("phantom", "24", phantoms, "--format", "both", "--bad"),
        ),
        Step(
            "Walk them through the pipeline in this process", ("predict", f"{phantoms}/images", "-o", str(out / "made"))
        ),
        Step(
            "Score the same folder as an archive: Prefect flow, Ray workers; its bad files are accepted this time",
            ("flows.score", f"{phantoms}/images", archive, "--max-failed", "1"),
            needs=("prefect", "ray"),
        ),
        Step(
            "Check the archive with a checker that shares no code with its writer",
            ("verify", archive),
            ("prefect", "ray"),
        ),
    ]


def _begin(out: Path) -> None:
    if out.exists() and not (out / MADE_BY).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there and no demo made it; name another folder: covseg demo -o FOLDER")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MADE_BY).touch()


def _run_all(steps: list[Step]) -> tuple[list[str], str]:
    """Run the steps; return the titles of those that ran, and what stopped a server or cluster, empty for nothing."""
    done = []
    for step in steps:
        try:
            done += [step.title] if _run(step) else []
        except EnvironmentFailed as error:
            if not step.needs:
                raise
            return done, str(error)
    return done, ""


def _run(step: Step) -> bool:
    """Run one step, its words on stderr; tell whether it ran, or raise where it failed."""
    missing = [name for name in step.needs if importlib.util.find_spec(name) is None]
    module, words = ("flows.cli", step.words) if step.words[0] != "flows.score" else (step.words[0], step.words[1:])
    typed = f"covseg {' '.join(words)}" if module == "flows.cli" else f"python -m {module} {' '.join(words)}"
    note(f"\n== {step.title}\n$ {typed}")
    if missing:
        note(f"left out: it needs {' and '.join(missing)}, see Install in the README")
        return False
    command = [sys.executable, "-m", module, *words]  # its stderr would be what `silence_decoders` left: nothing
    code = subprocess.run(command, check=False, stdout=sys.stderr, stderr=sys.stderr).returncode
    if code not in ACCEPTED_OR_NOT:
        raise EnvironmentFailed(f"the demo stopped: {typed} ended with exit code {code}, and said above why")
    return True


def _short(fraction: str) -> str:
    return f"{float(fraction):.3f}" if fraction else ""


def _beside_truth(scored: Path) -> list[dict[str, str]]:
    """Return image, split, grade, fraction of the row and of the truth of every real radiograph."""
    from covseg.samples import samples

    with (scored / "severity.csv").open(newline="") as lines:
        found = {row["key"]: row for row in csv.DictReader(lines)}
    return [
        {
            "image": sample.path.name,
            "split": sample.split,
            "grade": found[sample.path.name]["grade"] or found[sample.path.name]["reason"],
            "fraction": _short(found[sample.path.name]["infected_fraction"]),
            "truth": f"{sample.infected_fraction:.3f}",
        }
        for sample in samples()
    ]
