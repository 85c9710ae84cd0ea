"""The official counts of COVID-QU-Ex, and how a set is told to be it."""

from __future__ import annotations

from covseg.data.images import LabelledSet

OFFICIAL_COUNTS = {
    "Train": {"COVID-19": 1864, "Non-COVID": 932, "Normal": 932},
    "Val": {"COVID-19": 466, "Non-COVID": 233, "Normal": 233},
    "Test": {"COVID-19": 583, "Non-COVID": 292, "Normal": 291},
}
LIMITS = (
    "No patient ids exist and several archives were mixed: a patient may be on both sides of a split.",
    "Class correlates with source: part of any separation of the classes may be the source, not the disease.",
    "Non-COVID pneumonia is labelled empty: 0 % infected does not mean clear lungs, and its Dice is a specificity.",
)

OWN = ("generic", "own set")  # what a set that is not published is called, listed or learnt from
OWN_LIMITS = (
    "Which images show one patient is not known: one may be on both sides of a split, and intervals are too narrow.",
    "Where the classes come from different sources, part of any separation of them may be the source.",
)


def limits_of(name: str) -> tuple[str, ...]:
    """Return what a reader of numbers on a set of this name must know of the set."""
    return OWN_LIMITS if name in OWN else LIMITS


def is_official(dataset: LabelledSet) -> bool:
    """Tell whether a split has COVID-QU-Ex's official counts; the folders of any set may be named like its own."""
    return dataset.name == "covid-qu-ex" and dataset.counts == OFFICIAL_COUNTS.get(dataset.split)
