"""Check a labelled set before believing a number made on it."""
