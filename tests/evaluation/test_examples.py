"""Which single images the evaluation's page shows."""

from collections import Counter
from types import SimpleNamespace

import numpy as np

from covseg.evaluation.examples import Examples
from tests.evaluation.test_cases import make, square


def kept(sides: dict[str, int]) -> dict[str, set[str]]:
    """Offer images of one stratum whose marked square has this side, where 10 is right; keys by group."""
    examples, pixels = Examples(), np.zeros((64, 64), np.float32)
    for key, side in sides.items():
        guess, real = square(side), square(10)
        result = make(guess, real, key)
        masks = SimpleNamespace(infection=guess, lung=guess)
        truth = SimpleNamespace(infection=real, lung=None)
        examples.offer(result, pixels, masks, truth)
    groups: dict[str, set[str]] = {}
    for strip in examples.strips():
        groups.setdefault(strip.group, set()).add(strip.key)
    return groups


def test_the_random_image_is_neither_the_best_nor_one_of_the_worst():
    for start in range(20):  # by chance alone, some of these have the best or a worst one as their random one
        sides = {f"{start}-{place}.png": side for place, side in enumerate((10, 9, 8, 7, 6))}
        groups = kept(sides)
        assert len(groups["random"]) == 1
        assert not groups["random"] & (groups["best"] | groups["worst"])


def test_the_choice_does_not_depend_on_the_order():
    sides = {f"{place}.png": 10 - place % 7 for place in range(14)}
    assert kept(sides) == kept(dict(reversed(sides.items())))


def test_a_group_of_one_image_shows_no_random_one():
    assert "random" not in kept({"only.png": 9})


def test_every_image_that_is_neither_best_nor_worst_has_the_same_chance_to_be_the_random_one():
    sides, times = (10, 9, 8, 7, 6, 5, 4), Counter()
    for draw in range(400):  # other file names are another draw
        [key] = kept({f"{draw}-{side}.png": side for side in sides})["random"]
        times[key.partition("-")[2]] += 1
    assert set(times) == {"9.png", "8.png", "7.png", "6.png"}  # never the best one, never the two worst
    assert all(60 <= count <= 145 for count in times.values()), times  # 100 each, six standard deviations
    again = {f"0-{side}.png": side for side in sides}
    assert kept(again) == kept(again)


def test_no_image_is_shown_twice_and_one_without_an_error_is_none_of_the_worst():
    groups = kept({"a.png": 10, "b.png": 10, "c.png": 10})  # all are right
    assert set(groups) == {"best", "random"} and not groups["best"] & groups["random"]
    assert kept({"only.png": 9}) == {"best": {"only.png"}}
    groups = kept({f"{side}.png": side for side in (9, 8, 7)})
    assert groups["best"] == {"9.png"} and groups["worst"] == {"8.png", "7.png"}
