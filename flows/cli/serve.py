"""``covseg serve``: a destination in a browser, read only, on loopback."""

from __future__ import annotations

from pydantic import Field

from flows.cli.console import note, show_result
from flows.cli.interrupt import stop_on_sigterm
from flows.cli.options import Destination


class ServeConfig(Destination):
    """What `covseg serve` can be told."""

    port: int = Field(8420, ge=0, le=65535, description="On 127.0.0.1; 0 takes a free one.")


def serve(config: ServeConfig) -> int:
    """Show a destination's snapshots side by side, with report and table, on loopback until Ctrl-C."""
    from covseg import archive
    from flows.serve import open_server

    server, url = open_server(archive.load_run(*config.stores()), config.port)
    show_result({"url": url, "dest": config.dest}, [url], as_json=config.json_)
    note("read only, and every user of this machine can read it; Ctrl-C ends it")
    with server, stop_on_sigterm():
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            return 0
    return 0
