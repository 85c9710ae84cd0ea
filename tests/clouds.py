"""Google's and Microsoft's object stores for tests.

Azurite is Microsoft's emulator. `GoogleDouble` is ours: the emulators that could be installed ignore create-only
preconditions or lack the XML API, so it answers as Google's reference says, and proves nothing about Google's servers.
"""

from __future__ import annotations

import base64
import email.utils
import hashlib
import hmac
import os
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

ACCOUNT, KEY = "covsegtests", base64.b64encode(b"a-secret-for-tests").decode()
TOKEN = "a-token-for-tests"
DAY = 1767225600  # 1 January 2026, when all that the double holds was written
VERSION = "2021-08-06"


def azure_request(port: int, path: str, query: str, method: str = "PUT", body: bytes = b"", **headers: str) -> None:
    """Send one request with a shared key, for what a store does not offer: making a container, an odd name, a tier."""
    sent = {"x-ms-date": email.utils.formatdate(usegmt=True), "x-ms-version": VERSION}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    named = "".join(f"{name}:{sent[name]}\n" for name in sorted(sent) if name.startswith("x-ms-"))
    asked = "".join(f"\n{name}:{value[0]}" for name, value in sorted(parse_qs(query).items()))
    length, kind = str(len(body) or ""), "text/plain" if body else ""
    text = f"{method}\n\n\n{length}\n\n{kind}\n\n\n\n\n\n\n{named}/{ACCOUNT}/{ACCOUNT}/{path}{asked}"
    signature = base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
    sent |= {"Authorization": f"SharedKey {ACCOUNT}:{signature}"} | ({"Content-Type": kind} if body else {})
    url = f"http://127.0.0.1:{port}/{ACCOUNT}/{path}?{query}"
    urllib.request.urlopen(urllib.request.Request(url, body or None, sent, method=method)).close()


class GoogleDouble(BaseHTTPRequestHandler):
    """The part of the XML API that a store uses, in memory."""

    protocol_version = "HTTP/1.1"
    objects: ClassVar[dict[str, tuple[bytes, str | None]]] = {}
    buckets: ClassVar[set[str]] = set()
    lock = threading.Lock()

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if name := self._name():
            with self.lock:
                taken = self.headers.get("x-goog-if-generation-match") == "0" and name in self.objects
                if not taken:
                    self.objects[name] = (body, self.headers.get("x-goog-meta-covsegmd5"))
            if taken:
                self._answer(412, "<Error><Code>PreconditionFailed</Code></Error>")
            else:
                self._answer(200, "", ETag=_etag(body))

    def do_GET(self) -> None:
        name = self._name()
        if name in self.buckets:
            query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
            self._answer(200, self._listing(name, query))
        elif name in self.objects:
            body, checksum = self.objects[name]
            meta = {"x-goog-meta-covsegmd5": checksum} if checksum else {}
            written = email.utils.formatdate(DAY, usegmt=True)
            self._answer(200, body, **{"ETag": _etag(body), "Last-Modified": written, **meta})
        elif name:
            self._answer(404, "<Error><Code>NoSuchKey</Code></Error>")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        if name := self._name():
            self._answer(204 if self.objects.pop(name, None) else 404, "")

    def _name(self) -> str | None:
        """Return bucket and key; None when the request was refused."""
        name = unquote(urlsplit(self.path).path).removeprefix("/")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._answer(401, "<Error><Code>AuthenticationRequired</Code></Error>")
        elif name.partition("/")[0] not in self.buckets:
            self._answer(404, "<Error><Code>NoSuchBucket</Code></Error>")
        else:
            return name
        return None

    def _listing(self, bucket: str, query: dict[str, str]) -> str:
        prefix, behind = query.get("prefix", ""), query.get("continuation-token") or query.get("start-after", "")
        folders: dict[str, None] = {}
        found: list[str] = []
        for key in sorted(name.partition("/")[2] for name in list(self.objects) if name.startswith(f"{bucket}/")):
            inner, slash, _ = key.removeprefix(prefix).partition("/")
            if not key.startswith(prefix) or key <= behind:
                continue
            if "delimiter" in query and slash:
                folders[prefix + inner + "/"] = None
            else:
                found.append(key)
        more, found = found[1000:], found[:1000]
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00Z</LastModified>"
            f"<ETag>{_etag(self.objects[f'{bucket}/{key}'][0])}</ETag>"
            f"<Size>{len(self.objects[f'{bucket}/{key}'][0])}</Size></Contents>"
            for key in found
        )
        contents += "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in folders)
        token = f"<NextContinuationToken>{escape(found[-1])}</NextContinuationToken>" if more else ""
        return f"<ListBucketResult>{token}{contents}</ListBucketResult>"

    def _answer(self, status: int, body: str | bytes, **headers: str) -> None:
        data = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


@contextmanager
def google_double() -> Iterator[dict[str, str]]:
    """Serve the double from a thread; yield the settings that lead to it."""
    with ThreadingHTTPServer(("127.0.0.1", 0), GoogleDouble) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield {"GOOGLE_BASE_URL": f"http://127.0.0.1:{server.server_port}", "GOOGLE_BEARER_TOKEN": TOKEN}
        server.shutdown()
        thread.join()


def azure_settings(port: int) -> dict[str, str]:
    """Return the settings that lead to an Azurite."""
    return {
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": KEY,
        "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{ACCOUNT}",
    }


AZURITE = {**os.environ, "AZURITE_ACCOUNTS": f"{ACCOUNT}:{KEY}"}
