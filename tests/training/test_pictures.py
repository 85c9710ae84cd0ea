"""What a person looks at while a network learns."""

import numpy as np
import pytest

pytest.importorskip("cv2")

from covseg.pages.drawing import outline


def test_an_outline_follows_the_border_of_a_mask_and_of_its_hole_and_leaves_the_rest():
    canvas, mask = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8)
    mask[2:14, 2:14] = 1
    mask[6:10, 6:10] = 0
    outline(canvas, mask, (0, 0, 230))
    assert canvas[2, 8].tolist() == canvas[5, 8].tolist() == [0, 0, 230]
    assert not canvas[4, 8].any() and not canvas[8, 8].any() and not canvas[0, 0].any()
    outline(canvas[:4, :4], np.zeros((4, 4), np.uint8), (255, 255, 255))
    assert not (canvas == 255).any()
