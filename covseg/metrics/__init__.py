"""Counts and masks to numbers by stratum and convention, with intervals; numpy and OpenCV only, no files."""
