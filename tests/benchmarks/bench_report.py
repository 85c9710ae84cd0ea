"""The report of very many rows: what writing it takes, how large it is, and what opening it takes.

    python -m tests.benchmarks.bench_report [--rows 10000 1000000] [--keep REPORT.html]

Rows are made; the table lies in a mapped file, as when a snapshot is published; 500 pictures are phantoms. Every count
runs in a process of its own. The browser is chromium by chromedriver, left out where there is none: CPU-seconds of the
page's main thread until it is loaded and drawn, for one sort and for one filter, and the memory of its script.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from covseg import table
from covseg.errors import Reason
from covseg.records import Entry, Row
from covseg.report import Head, Picture, picture, render
from covseg.stages.severity import GRADE_TABLE, GRADES, step
from covseg.synthetic.phantom import make_phantom
from tests.benchmarks.bench_archive import _timed, row_of

PIECE = 65_536
PICTURES = 500
LONGEST = 900  # seconds that the browser may take on a busy machine
SORT = "document.querySelector('#rows th[data-column=doubt] button').click()"
FILTER = "const one = document.getElementById('filter-flag'); one.value = '*'; one.dispatchEvent(new Event('change'))"


def made(number: int) -> Row:
    """Return row `number`: two of five at 0 %, one in twenty refused, one in ten flagged."""
    row = row_of(Entry(f"{number}.png", 100_000, f"{number:032x}"))
    if number % 20 == 0:
        reason = list(Reason)[number // 20 % len(Reason)]
        return replace(row, status=reason.status, reason=reason, stage="read", infected_fraction=None, detail="made")
    fraction = (row.infected_fraction or 0.0) * (number % 5 > 1)
    flags = ("missing_spacing", "rotated") if number % 10 == 1 else ("missing_spacing",)
    return replace(
        row, infected_fraction=fraction, grade=GRADES[step(fraction)], grade_table=GRADE_TABLE, qc_flags=flags,
        doubt=row.infection_probability, doubt_reason="undecided_pixels", mask_uri=f"masks/{row.input_id}.png",
    )  # fmt: skip


def pieces(rows: int) -> Iterator[pa.Table]:
    """Return the table piece by piece; beyond the first, rows repeat under other ids."""
    first = table.to_arrow([made(number) for number in range(min(rows, PIECE))])
    for start in range(0, rows, PIECE):
        ids = [hashlib.md5(b"%d" % number).hexdigest() for number in range(start, min(start + PIECE, rows))]
        yield first.slice(0, len(ids)).set_column(0, "input_id", pa.array(ids))


def mapped(rows: int, path: Path) -> pa.Table:
    """Write the table to an Arrow file and map it."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.SCHEMA) as writer:
        for piece in pieces(rows):
            writer.write_table(piece)
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def pictures(severity: pa.Table) -> list[Picture]:
    """Return pictures of phantoms for the first scored rows."""
    first = severity.slice(0, 2 * PICTURES)
    ids = first.filter(pc.equal(first["status"], "scored"))["input_id"].to_pylist()[:PICTURES]
    drawn = []
    for seed in range(10):
        image = make_phantom(seed)
        marked = cv2.GaussianBlur(image.infection_mask.astype(np.float32), (0, 0), 8)
        drawn.append(picture("", image.unit_pixels, image.lung_mask, image.infection_mask, marked))
    return [replace(drawn[place % len(drawn)], input_id=name) for place, name in enumerate(ids)]


def measure(rows: int, report: Path) -> dict[str, Any]:
    """Write and open the report of so many rows."""
    results: dict[str, Any] = {"rows": rows}
    severity = mapped(rows, report.with_suffix(".arrow"))
    shown = pictures(severity)
    head = Head("A report of made rows", "bench", "2026-01-01")
    page = _timed(results, "render", lambda: render(severity, shown, 0.5, head))
    report.write_bytes(page)
    results |= {"pictures": len(shown), "report_mb": round(len(page) / 1e6, 2)}
    print(json.dumps(results), flush=True)
    driver, chromium = shutil.which("chromedriver"), shutil.which("chromium") or shutil.which("google-chrome")
    return {"browser": opened(report, driver, chromium) if driver and chromium else "none on this machine"}


def opened(report: Path, driver: str, chromium: str) -> dict[str, float]:
    """Return what opening, sorting and filtering took."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))

    def known() -> dict[str, float]:
        browser.execute_script("return document.body.offsetHeight")
        metrics = browser.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return {one["name"]: one["value"] for one in metrics}

    try:
        browser.command_executor.client_config.timeout = LONGEST
        browser.set_page_load_timeout(LONGEST)
        browser.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        found: dict[str, float] = {}
        begun = time.perf_counter()
        browser.get(report.as_uri())
        found["open_wall_s"] = time.perf_counter() - begun
        found["open_cpu_s"] = known()["TaskDuration"]
        for name, script in (("sort_cpu_s", SORT), ("filter_cpu_s", FILTER)):
            before = known()["TaskDuration"]
            browser.execute_script(script)
            found[name] = known()["TaskDuration"] - before
        found["script_mb"] = known()["JSHeapUsedSize"] / 1e6
        found["rows"] = browser.execute_script("return document.querySelectorAll('#rows tbody tr').length")
        return {name: round(value, 2) for name, value in found.items()}
    finally:
        browser.quit()


def main() -> None:
    """Measure each count in a fresh process, or in this one with ``--here``."""
    if sys.argv[1:2] == ["--here"]:
        print(json.dumps(measure(int(sys.argv[2]), Path(sys.argv[3]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000])
    parser.add_argument("--keep", type=Path, help="where to leave the last report")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="covseg-bench-") as folder:
        report = Path(folder) / "report.html"
        for rows in chosen.rows:
            words = [sys.executable, "-m", "tests.benchmarks.bench_report", "--here", str(rows), str(report)]
            subprocess.run(words, check=True)
        if chosen.keep:
            shutil.copy(report, chosen.keep)


if __name__ == "__main__":
    main()
