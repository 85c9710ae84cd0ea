"""What a person looks at while a network learns."""

import numpy as np
import pytest

pytest.importorskip("cv2")

from covseg.pages.drawing import outline


def test_an_outline_follows_the_border_of_a_mask_and_of_its_hole_and_leaves_the_rest():
    canvas, mask = np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
    mask[4:28, 4:28] = 1
    mask[12:20, 12:20] = 0
    outline(canvas, mask, (0, 0, 230))
    assert canvas[4, 16, 2] > 150 and canvas[11, 16, 2] > 150 and not canvas[..., :2].any()
    assert not canvas[8, 16].any() and not canvas[16, 16].any() and not canvas[0, 0].any()
    outline(canvas[:4, :4], np.zeros((4, 4), np.uint8), (255, 255, 255))
    assert not (canvas == 255).any()
