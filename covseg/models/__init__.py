"""Networks and model folders."""

LIBRARY = ("unet", "unetpp", "segformer")  # networks that segmentation-models-pytorch draws
