"""Training: images to weights, on one device, with no cluster."""
