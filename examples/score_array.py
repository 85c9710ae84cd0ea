"""Score one image that is in memory: pixels in, masks and numbers out. No file, no cluster, no server.

Run: python examples/score_array.py
"""

from __future__ import annotations

import covseg
from covseg.errors import RadiographRefused
from covseg.synthetic.phantom import make_phantom


def main() -> None:
    """Score a phantom, then show what becomes of an image that is no chest radiograph."""
    model = covseg.load_model("default")  # or "benchmark", a model folder, REGISTRY/NAME@TAG

    pixels = make_phantom(seed=0).unit_pixels  # (H, W): floats in [0, 1], or uint8 / uint16; bone is bright
    scored = model.predict(pixels, pixel_spacing_mm=0.2)  # the spacing is optional; it gives areas in mm2
    row, masks = scored.row, scored.masks
    print(f"infected fraction {row.infected_fraction:.3f} (right {row.infected_fraction_right:.3f})")  # patient's right
    print(f"grade {row.grade}, extent {row.extent_0_8} of 8, flags: {', '.join(row.qc_flags) or 'none'}")
    print(f"label map {masks.label_map.shape}, values {sorted({int(value) for value in masks.label_map.flat})}")

    upside_down = pixels[::-1].copy()
    try:
        model.predict(upside_down)
    except RadiographRefused as refusal:  # the reason is of a closed set: covseg.errors.Reason
        print(f"refused: {refusal.reason} at stage {refusal.stage}: {refusal.detail}")


if __name__ == "__main__":
    main()
