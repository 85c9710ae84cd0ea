"""``make demo``: made images and bad files in; masks, rows and reports out; then what to run next.

No patient image takes part: the images are drawn by `covseg.synthetic.phantom`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from flows.cli.console import show

HERE = Path("demo")
STEPS = (
    (
        "Draw 24 images, PNG and DICOM, and every kind of bad file",
        "flows.cli phantom 24 {demo}/phantoms --format both --bad",
    ),
    ("Walk them through the pipeline in this process", "flows.cli predict {demo}/phantoms/images -o {demo}/predicted"),
    (
        "Score the same folder as an archive: Prefect flow, Ray workers; its bad files are accepted this time",
        "flows.score {demo}/phantoms/images {demo}/archive --max-failed 1",
    ),
    ("Check the archive with a checker that shares no code with its writer", "flows.cli verify {demo}/archive"),
)
ACCEPTED_OR_NOT = (0, 3)  # 3: more bad files than --max-failed allows, which is what the demo shows


def main() -> None:
    """Run the steps as a person would type them; stop at the first that fails."""
    shutil.rmtree(HERE, ignore_errors=True)
    for title, words in STEPS:
        module, *rest = words.format(demo=HERE).split()
        typed = "covseg" if module == "flows.cli" else f"python -m {module}"
        show(f"\n== {title}", f"$ {typed} {' '.join(rest)}")
        code = subprocess.run([sys.executable, "-m", module, *rest], check=False).returncode
        if code not in ACCEPTED_OR_NOT:
            sys.exit(code)
    for name in ("predicted", "archive"):
        show(f"\nReport: {(HERE / name / 'report.html').resolve()}")
    show(
        "\nThe images are drawn, and the model learnt from real ones: it sees their lungs, and seldom their infection "
        f"({HERE}/phantoms/truth.csv). The damaged files are refused on purpose."
    )
    show("\nNext: .venv/bin/covseg predict YOUR_FOLDER -o OUT")


if __name__ == "__main__":
    main()
