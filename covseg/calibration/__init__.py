"""Choose a model's thresholds and temperature on Val, with a cross-fitted estimate."""
