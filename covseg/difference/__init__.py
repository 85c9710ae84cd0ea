"""Two scored destinations beside each other, image by image: what a new model, or new images, changed.

In: two tables that `covseg predict` or `covseg score` left. Out: a `Difference`, and its offline page. It reads no
source image, and knows nothing of truth: which of the two is right, it cannot say.
"""

from covseg.difference.join import compare
from covseg.difference.page import render_difference
from covseg.difference.pictures import draw_changed
from covseg.difference.records import Difference

__all__ = ["Difference", "compare", "draw_changed", "render_difference"]
