"""The ``covseg`` command: names, exit codes and errors; every command's body is imported when it runs.

Exit codes: 0 done, 1 internal, 2 usage, 3 published but not accepted, 4 environment, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from cyclopts import App, CycloptsError, Group
from cyclopts.config import Toml

from covseg.errors import UsageError
from covseg.settings.environment import QUIET, code_version
from flows.cli.console import show_json, warn
from flows.cli.examples import ending
from flows.cli.mistakes import explain, read_config

COMMANDS = {
    "predict": "Score an image or a folder in this process: masks, rows and a report.",
    "score": "Score an archive in a folder or a bucket on Ray; run again to resume.",
    "publish": "Publish what is committed in a destination, or rebuild its newest table and report.",
    "verify": "Check everything that a destination published, independently; exit 1 on any breach.",
    "query": "Ask the published table by SQL, or break it down by columns; small cells are withheld.",
    "send": "Store a destination's DICOM objects on a DICOMweb server, each once; run again to resume.",
    "gc": "Remove from a destination what killed runs left behind.",
    "diff": "Compare two scored destinations image by image: grades, fractions, refusals, what changed most.",
    "serve": "Show a destination's snapshots side by side in a browser: read only, on loopback.",
    "demo": "Score six real radiographs, made ones and every kind of bad file; see what comes out.",
    "phantom": "Make chest radiographs with known lungs and infection, for the demo and the tests.",
    "evaluate": "Judge a model on a labelled split, or beside readers' scores: every convention, with intervals.",
    "calibrate": "Choose thresholds, temperature and intervals on Val; write them into the model.",
    "compare": "Compare evaluations image by image: paired differences with intervals, and cost.",
    "models": "Models: average, release, combine, fit-filter, prove, card; in a registry list, show, pull ...",
    "recipes": "List and explain the training recipes.",
    "train": "Train a recipe, here or on Ray; a run folder that can be resumed.",
    "search": "Look for a better recipe in a space, by trials on Ray; the same command goes on.",
    "data": "Look at a labelled set: counts, masks, near-duplicates across splits.",
    "up": "Start a Prefect server, a worker and Ray on this machine, with the deployments; again says what runs.",
    "down": "Stop what covseg up started, and nothing else.",
    "deploy": "Write the prefect.yaml of this installation and register it with the server.",
    "doctor": "Check server, pool, worker, Ray, storage, model, disk, clock and versions, each with what to do.",
    "version": "Print the version.",
}

app = App(
    name="covseg",
    help="Mark the infected part of the lung on chest radiographs. Research use only, not for diagnosis.\n\n"
    "Every command also takes --json, --config FILE.toml (a table named after the command; flags win) and --debug "
    "(tracebacks).",
    version=code_version,
    help_format="plaintext",
)
GROUPS = ("models", "data", "search")  # they say their own
PANELS = {  # of the help, in this order
    "Score": ("predict", "score", "publish", "verify", "gc", "diff", "serve", "query", "send"),
    "Train and judge": ("data", "recipes", "train", "search", "models", "calibrate", "evaluate", "compare"),
    "Set up and try": ("demo", "phantom", "up", "down", "deploy", "doctor", "version"),
}
for place, (panel, names) in enumerate(PANELS.items()):
    group = Group(panel, sort_key=place)
    for name in names:
        epilogue = {} if name in GROUPS else {"help_epilogue": ending(name)}
        app.command(f"flows.cli.{name}:{name}", name=name, help=COMMANDS[name], group=group, **epilogue)
app.register_install_completion_command()


def main() -> None:
    """Run the command line's command and leave with its exit code."""
    if "--debug" not in sys.argv:
        silence_decoders()
    sys.exit(run(sys.argv[1:]))


def silence_decoders() -> None:
    """Keep what libpng, libjpeg and GDCM print about a damaged image off the terminal: its row says what is wrong.

    They write to file descriptor 2 from several threads, so it is closed to them once, for the life of the process;
    Python's own stderr goes on through a copy.
    """
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def run(words: list[str]) -> int:
    """Run one command and return its exit code."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    config = None
    try:
        config, words = _take_config(words)
        result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (Exception, KeyboardInterrupt) as error:
        if debug and isinstance(error, Exception) and not isinstance(error, CycloptsError):
            raise
        message, code = explain(error, words, config)
        if "--json" in words:
            show_json({"error": message, "exit_code": code})
        warn(message)
        return code
    return result if isinstance(result, int) else 0


def _take_config(words: list[str]) -> tuple[Path | None, list[str]]:
    """Point the app at ``--config FILE``; return the file, and the words without the two."""
    app.config = ()
    if "--config" not in words:
        return None, words
    place = words.index("--config")
    if place + 1 == len(words):
        raise UsageError("--config wants a file: covseg predict --config covseg.toml")
    path = Path(words[place + 1])
    read_config(path, list(COMMANDS))
    app.config = Toml(path, must_exist=True, use_commands_as_keys=True)
    return path, words[:place] + words[place + 2 :]
