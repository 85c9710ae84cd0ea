"""Networks: images to mask logits; they know no folder, no file and no threshold."""

LIBRARY = ("unet", "unetpp", "segformer")  # networks that segmentation-models-pytorch draws
