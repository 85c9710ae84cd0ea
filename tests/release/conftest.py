"""Fixtures of the release's tests: the training's made set, the evaluation's model that a test may change."""

from tests.evaluation.conftest import model_copy
from tests.training.conftest import made_set, one_thread

__all__ = ["made_set", "model_copy", "one_thread"]
