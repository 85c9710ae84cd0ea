"""The command line: one command a file; no flow is imported here, and no flow imports it."""
