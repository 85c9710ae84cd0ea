"""Training: films to weights, on one device, with no cluster."""
