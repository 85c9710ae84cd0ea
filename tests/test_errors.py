"""The error tree: whole, drawn, picklable, and able to say something else."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Iterator

import pytest

from covseg import errors
from covseg.errors import BadMask, CovsegError, ImagesLost, RadiographRefused, Reason, Stage, Status


def tree(root: type[CovsegError]) -> Iterator[type[CovsegError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


for room in ("flows.score", "flows.train", "workers.scoring", "workers.training", "covseg.evaluation.run"):
    importlib.import_module(room)  # whatever could define an error of its own
# Ray makes a class of its own for each error that crosses it; those are not ours.
OURS = [kind for kind in tree(CovsegError) if kind.__module__.split(".")[0] in ("covseg", "workers", "flows")]
SPECIAL = {
    RadiographRefused: RadiographRefused(Reason.CORRUPT, Stage.READ, "wrong checksum"),
    ImagesLost: ImagesLost("9 of 10", {"a/b": 9}),
    BadMask: BadMask("mask_size", "a.png: 3x4"),
}


def make(kind: type[CovsegError]) -> CovsegError:
    return SPECIAL.get(kind) or kind("what was found, what was wanted")


@pytest.mark.parametrize("kind", OURS)
def test_an_error_survives_a_pickle_with_class_message_and_attributes(kind: type[CovsegError]) -> None:
    error = make(kind)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (kind, str(error), vars(error))
    assert again.exit_code == kind.exit_code


@pytest.mark.parametrize("kind", OURS)
def test_an_error_can_say_something_else_and_stays_what_it_is(kind: type[CovsegError]) -> None:
    error = make(kind)
    other = error.with_message("other words")
    assert (type(other), str(other), vars(other)) == (kind, "other words", vars(error))
    assert str(pickle.loads(pickle.dumps(other))) == "other words"
    assert str(error) == str(make(kind))


def test_the_whole_tree_stands_in_one_file_and_in_its_drawing() -> None:
    drawing = str(errors.__doc__)
    for kind in OURS:
        assert kind.__module__ == "covseg.errors"
        assert kind.__name__ in drawing


def test_every_reason_has_a_state_and_every_stage_a_word_of_its_own() -> None:
    assert {reason.status for reason in Reason} == set(Status) - {Status.SCORED}
    assert [str(stage) for stage in Stage] == [
        "fetch", "read", "preprocess", "segment", "input_filter", "postprocess", "severity", "encode", "worker",
    ]  # fmt: skip
