"""When and with what: the command line and the Prefect flows."""
