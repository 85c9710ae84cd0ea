"""Is this a frontal chest radiograph? Judged from pixels and the model's answer, never the header."""

from __future__ import annotations

from covseg.models.folder import GateLimits
from covseg.records import Prediction, Radiograph


def gate(radiograph: Radiograph, prediction: Prediction, limits: GateLimits) -> tuple[float | None, tuple[str, ...]]:
    """Return the gate's score (higher is stranger) and the QC flags it raises."""
    return None, ()
