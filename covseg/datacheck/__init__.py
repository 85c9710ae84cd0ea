"""Look at a labelled set before believing a number made on it."""
