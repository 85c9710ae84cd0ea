"""A calibration with what it leaves: the settings in the model, ``calibration.html`` and ``calibration.json``."""

from __future__ import annotations

import json
from collections.abc import Callable

from covseg.calibration.calibrate import Calibration, calibrate, record
from covseg.calibration.page import render_calibration
from covseg.registry import open_model
from covseg.settings.calibrate import CalibrateSettings
from covseg.storage import LocalStore


def run(settings: CalibrateSettings, progress: Callable[[int, int], None] = lambda *_: None) -> Calibration:
    """Choose the settings, write them into the model, and leave page and record in `settings.output`."""
    calibration = calibrate(settings, progress)
    store = LocalStore(settings.output)
    content = record(calibration, settings.specificity).model_dump(mode="json")
    store.write("calibration.json", json.dumps(content, indent=1).encode())
    model_id = open_model(settings.model).config.id
    store.write("calibration.html", render_calibration(calibration, model_id, settings.specificity))
    return calibration
