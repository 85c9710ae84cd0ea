"""Six real chest radiographs that ship with covseg, for the demo and the README.

COVID-19 Image Repository of Hannover Medical School (Winther et al. 2020), CC BY 3.0, shrunk here from 2,000 x 2,000
to 1,000 x 1,000 pixels by areas and saved as grey JPEG. ``samples.csv`` names, for each, its source and licence, the
image of COVID-QU-Ex that was made from it, the split that holds that one, and the infected fraction of the lungs by
that set's masks. Five of the six are of Train: the shipped models have seen them.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CREDIT = "Images: COVID-19 Image Repository, Hannover Medical School (Winther et al. 2020), CC BY 3.0, shrunk"


@dataclass(frozen=True)
class Sample:
    """One radiograph: its file, the split its twin in COVID-QU-Ex is of, and the fraction in [0, 1] infected there."""

    path: Path
    split: str
    infected_fraction: float


def samples() -> list[Sample]:
    """Return the radiographs in the order of ``samples.csv``."""
    with (HERE / "samples.csv").open(newline="") as lines:
        return [
            Sample(HERE / "images" / row["image"], row["split"], float(row["infected_fraction"]))
            for row in csv.DictReader(lines)
        ]
