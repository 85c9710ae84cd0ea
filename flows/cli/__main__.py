"""``python -m flows.cli``: the ``covseg`` command."""

from flows.cli.app import main

main()
