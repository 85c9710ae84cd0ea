"""``make demo``: made films and bad files in; masks, rows and a report out; then what to run next.

No patient image takes part: the films are drawn by `covseg.phantom`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from flows import cli

HERE = Path("demo")
STEPS = (
    ("Draw 24 films, PNG and DICOM, and every kind of bad file", "phantom 24 {demo}/phantoms --format both --bad"),
    ("Walk them through the corridor in this process", "predict {demo}/phantoms/films -o {demo}/predicted"),
)


def main() -> None:
    """Run the steps as a person would type them; stop at the first that fails."""
    shutil.rmtree(HERE, ignore_errors=True)
    for title, words in STEPS:
        command = words.format(demo=HERE)
        print(f"\n== {title}\n$ covseg {command}", flush=True)
        code = cli.run(command.split())
        if code not in (0, 3):
            sys.exit(code)
    print(f"\nOpen {(HERE / 'predicted' / 'report.html').resolve()}")
    print("Next: .venv/bin/covseg predict YOUR_FOLDER -o OUT")


if __name__ == "__main__":
    main()
