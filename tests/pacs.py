"""A DICOMweb server of the tests, which can be told to misbehave: how it pages, answers, waits and loses."""

from __future__ import annotations

import io
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from pydicom import dcmread

Place = tuple[str, str, str]
TAGS = ("0020000D", "0020000E", "00080018")


class Pacs:
    """What it holds, what was asked of it, and what it does wrong."""

    def __init__(self) -> None:
        self.held: dict[Place, bytes] = {}
        self.modality = "DX"
        self.asked: list[str] = []  # method and path of every request
        self.posted: list[str] = []  # SOPInstanceUIDs, each time one came
        self.refuses: dict[str, int] = {}  # SOPInstanceUID to failure reason
        self.lines: Callable[[list[dict], int, int], list[dict]] = lambda all_, offset, limit: all_[offset:][:limit]
        self.before: list[Callable[[Handler], bool]] = []  # one a request: true when it has answered
        self.port = 0

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}/dicom-web"

    @property
    def source(self) -> str:
        return f"dicomweb+{self.root}?Modality=DX"

    def hold(self, data: bytes) -> Place:
        image = dcmread(io.BytesIO(data), stop_before_pixels=True)
        place = str(image.StudyInstanceUID), str(image.SeriesInstanceUID), str(image.SOPInstanceUID)
        self.held[place] = data
        return place


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pacs: Pacs

    def log_message(self, *_: object) -> None: ...

    def answer(self, status: int, kind: str, body: bytes, **headers: str) -> bool:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            if value:
                self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        return True

    def do_GET(self) -> None:
        self.pacs.asked.append(f"GET {self.path}")
        if self.pacs.before and self.pacs.before.pop(0)(self):
            return
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path == "/dicom-web/instances":
            self.search(query)
            return
        _, _, _, study, _, series, _, instance = url.path.split("/")
        data = self.pacs.held.get((study, series, instance))
        if data is None:
            self.answer(404, "text/plain", b"no")
            return
        body = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + data + b"\r\n--b--\r\n"
        self.answer(200, 'multipart/related; type="application/dicom"; boundary=b', body)

    def search(self, query: dict[str, str]) -> None:
        wanted = set(query.get("SOPInstanceUID", "").split(",")) - {""}
        found = [place for place in self.pacs.held if not wanted or place[2] in wanted]
        if query.get("Modality", self.pacs.modality) != self.pacs.modality:
            found = []
        all_ = [{tag: {"vr": "UI", "Value": [uid]} for tag, uid in zip(TAGS, place, strict=True)} for place in found]
        page = self.pacs.lines(all_, int(query.get("offset", 0)), int(query["limit"]))
        if not page:
            self.answer(204, "", b"")
            return
        self.answer(200, "application/dicom+json", json.dumps(page).encode())

    def do_POST(self) -> None:
        self.pacs.asked.append(f"POST {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        mark = b"--" + self.headers["Content-Type"].rpartition("boundary=")[2].encode()
        if self.pacs.before and self.pacs.before.pop(0)(self):
            return
        stored, failed = [], []
        for part in body.split(mark)[1:-1]:
            data = part.partition(b"\r\n\r\n")[2][:-2]
            uid = str(dcmread(io.BytesIO(data), stop_before_pixels=True).SOPInstanceUID)
            self.pacs.posted.append(uid)
            item = {"00081155": {"vr": "UI", "Value": [uid]}}
            if uid in self.pacs.refuses:
                failed.append({**item, "00081197": {"vr": "US", "Value": [self.pacs.refuses[uid]]}})
            else:
                self.pacs.hold(data)
                stored.append(item)
        sequences = {"00081199": stored, "00081198": failed}
        said = {tag: {"vr": "SQ", "Value": items} for tag, items in sequences.items() if items}
        self.answer(202 if failed else 200, "application/dicom+json", json.dumps(said).encode())


@contextmanager
def running() -> Iterator[Pacs]:
    pacs = Pacs()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Ours", (Handler,), {"pacs": pacs}))
    server.daemon_threads = True
    pacs.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield pacs
    server.shutdown()
    server.server_close()


# What a server may do instead of answering as it should.


def says(status: int, kind: str = "text/plain", body: bytes = b"", **headers: str) -> Callable[[Handler], bool]:
    return lambda handler: handler.answer(status, kind, body, **headers)


def breaks_off(handler: Handler) -> bool:
    """Announce more than it sends."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/dicom+json\r\nContent-Length: 999\r\n\r\n[")
    handler.close_connection = True
    return True


def hangs_up(handler: Handler) -> bool:
    handler.close_connection = True
    return True


def drips(handler: Handler) -> bool:
    """Send a header byte by byte, each before any timeout of a single read, and never come to its end."""
    handler.close_connection = True
    try:
        for _ in range(100):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: y"[:1])
            time.sleep(0.1)
    except OSError:
        pass
    return True


def is_silent(handler: Handler) -> bool:
    handler.close_connection = True
    time.sleep(3)
    return True


def shuffled(seed: int, cap: int) -> Callable[[list[dict], int, int], list[dict]]:
    """Page in another order at each request, at most `cap` lines."""
    draw = random.Random(seed)

    def lines(all_: list[dict], offset: int, limit: int) -> list[dict]:
        return draw.sample(all_, len(all_))[offset:][: min(limit, cap)]

    return lines
