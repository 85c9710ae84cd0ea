"""A destination in a browser: its snapshots side by side and the newest files, read only, on loopback alone.

In: the stores of a destination. Out: a server. It answers GET and HEAD of a few names to whoever says that it speaks to
this machine: a page elsewhere cannot read it through a name that leads here.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from covseg.archive import Run
from covseg.archive.history import render_history, snapshots
from covseg.errors import CovsegError, EnvironmentFailed

HOST = "127.0.0.1"
FILES = {
    "report.html": "text/html; charset=utf-8",
    "severity.csv": "text/csv; charset=utf-8",
    "severity.parquet": "application/vnd.apache.parquet",
}
BESIDE = re.compile(r"(?:masks|overlays)/[\w-]+\.(png|jpg)")  # what the report's large view links to
NO_STORE = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, run: Run, port: int) -> None:
        self.run = run
        super().__init__((HOST, port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "covseg", ""

    def do_GET(self) -> None:
        """Answer with a page or a file."""
        self._answer()

    def do_HEAD(self) -> None:
        """Answer with its head."""
        self._answer()

    def _answer(self) -> None:
        if self.headers.get("Host", "").rpartition(":")[0] not in (HOST, "localhost"):
            return self.send_error(HTTPStatus.FORBIDDEN, "speak to 127.0.0.1")
        name, run = self.path.partition("?")[0].removeprefix("/"), self.server.run
        try:
            if name in ("", "index.html"):
                return self._send(render_history(run, snapshots(run)), FILES["report.html"])
            if name in FILES:
                return self._send(run.dest.read(name), FILES[name])
            if beside := BESIDE.fullmatch(name):
                return self._send(run.dest.read(name), f"image/{beside[1].replace('jpg', 'jpeg')}")
        except FileNotFoundError:
            pass
        except CovsegError as error:
            return self.send_error(HTTPStatus.BAD_GATEWAY, type(error).__name__, str(error))
        return self.send_error(HTTPStatus.NOT_FOUND, explain=f"wanted / or {', '.join(FILES)}")

    def _send(self, body: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        for header, value in {"Content-Type": kind, "Content-Length": str(len(body)), **NO_STORE}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep requests off the terminal."""


def open_server(run: Run, port: int) -> tuple[ThreadingHTTPServer, str]:
    """Listen on a port of loopback, 0 for a free one; return the server and its URL.

    Raises
    ------
    EnvironmentFailed
        When the port cannot be had.
    """
    try:
        server = _Server(run, port)
    except OSError as error:
        raise EnvironmentFailed(
            f"port {port} of {HOST} cannot be had ({error.strerror}): stop what listens there, or give another --port"
        ) from None
    return server, f"http://{HOST}:{server.server_port}/"
