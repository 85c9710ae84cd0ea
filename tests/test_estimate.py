"""What a scoring would take: requests and objects of a bucket, counted without one."""

import pytest

from covseg.settings.score import ScoreSettings
from flows.cli import app as cli
from workers.estimate import _requests


@pytest.mark.parametrize(
    ("masks", "probability", "files", "objects"),
    [("none", False, 0, 20), ("png", False, 0, 1020), ("png", True, 500, 2520), ("packed", True, 0, 30)],
)
def test_a_packed_archive_has_objects_by_the_shard_and_not_by_the_image(masks, probability, files, objects):
    settings = ScoreSettings(source="a", dest="b", masks=masks, probability=probability, shard_size=100)
    listings = 1 + 2  # of 1,000 images, and of ten shards twice
    assert _requests(settings, 1000, files) == (objects, objects + listings, 1020)


def test_a_price_without_a_dry_run_is_a_mistake(tmp_path, capsys):
    assert cli.run(["score", str(tmp_path), str(tmp_path / "out"), "--price-hour", "0.04"]) == 2
    assert "--dry-run" in capsys.readouterr().err
