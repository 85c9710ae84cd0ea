"""A model folder on this machine: opened, checked, run, written."""
