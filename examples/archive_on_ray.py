"""Score an archive on Ray, exactly once, as `covseg score` does; then run again: nothing is left to do.

SOURCE and DEST are folders or s3://bucket/prefix. With RAY_ADDRESS set it joins that cluster, else it starts Ray here.

Run: python examples/archive_on_ray.py [SOURCE DEST]; without arguments phantoms are drawn into a temporary folder.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from covseg.settings.score import ScoreSettings
from covseg.storage import LocalStore
from covseg.synthetic.phantom.writer import write_images
from workers.scoring import score_archive


def main() -> None:
    """Score, and show that a second run keeps what is finished."""
    with tempfile.TemporaryDirectory() as scratch:
        if len(sys.argv) == 3:
            source, dest = sys.argv[1:]
        else:
            source, dest = f"{scratch}/images", f"{scratch}/scored"
            for _ in write_images(LocalStore(Path(scratch)), range(8), (256, 256), ("png",)):
                pass
        settings = ScoreSettings(source=source, dest=dest, shard_size=4, workers=1)
        for attempt in ("first", "second"):
            summary = score_archive(settings)  # kill it anywhere and run it again: finished shards are kept
            print(f"{attempt} run: {summary.finished} images scored, snapshot {summary.snapshot}: {summary.statuses}")
        print(f"accepted: {summary.accepted}, report: {summary.report}")


if __name__ == "__main__":  # Ray's workers import this file again
    main()
