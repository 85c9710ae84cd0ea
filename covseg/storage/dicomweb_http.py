"""Requests to a DICOMweb server: a deadline over each try and over all, its wish to wait respected, one error tree.

Credentials come from the environment alone: ``COVSEG_DICOMWEB_TOKEN``, or ``COVSEG_DICOMWEB_USER`` and
``COVSEG_DICOMWEB_PASSWORD``. None is kept here, travels with a pickle, or is printed; nor is a query.
"""

from __future__ import annotations

import base64
import contextlib
import email.message
import email.utils
import http.client
import json
import os
import random
import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from covseg.errors import StorageDenied, StorageUnreachable
from covseg.storage.dicomweb_root import checked_root
from covseg.storage.protocol import LARGEST_IMAGE

TRY_S, PATIENCE_S, CHECK_S = 60.0, 300.0, 15.0  # one try; all tries of a call; all tries of a check
TRIES = 4  # of an answer that is no wish to wait
CONNECT_S, CHUNK = 10.0, 2**20
JSON_KINDS = ("application/dicom+json", "application/json")
_WAITING, _FAILING = (429, 503), (500, 502, 504)


@dataclass(frozen=True)
class Answer:
    """What a server said: the status, the media type in small letters, its parameters, and the body."""

    status: int
    kind: str
    parameters: dict[str, str]
    body: bytes


class Client:
    """The root of one DICOMweb service; every thread has a connection of its own.

    Parameters
    ----------
    root : str
        ``https://host[:port]/path``; ``http`` for a loopback address alone.
    try_s, patience_s : float
        Seconds after which one try, and a call with all its tries and waits, is given up.

    Raises
    ------
    UsageError
        For a root that is none, credentials in it, or a host that ``COVSEG_DICOMWEB_HOSTS`` does not list.
    """

    def __init__(self, root: str, try_s: float = TRY_S, patience_s: float = PATIENCE_S) -> None:
        self.root, self.try_s, self.patience_s = checked_root(root), try_s, patience_s
        parts = urlsplit(self.root)
        self._host, self._port, self._path = parts.hostname or "", parts.port, parts.path
        self._secure = parts.scheme == "https"
        self._held = threading.local()

    def __reduce__(self) -> tuple[type[Client], tuple[str, float, float]]:
        """Travel without connections; every process opens its own."""
        return Client, (self.root, self.try_s, self.patience_s)

    def get(self, path: str, accept: str, patience_s: float | None = None) -> Answer:
        """Ask, and ask again where an answer failed or broke off; the last answer, whatever its status."""
        return self._ask("GET", path, {"Accept": accept}, None, patience_s or self.patience_s)

    def post(self, path: str, accept: str, kind: str, body: bytes) -> Answer:
        """Send once, and again only where the server said that it took nothing yet (429, 503)."""
        return self._ask("POST", path, {"Accept": accept, "Content-Type": kind}, body, self.patience_s)

    def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes | None, patience_s: float) -> Answer:
        until, tries = time.monotonic() + patience_s, 0
        while True:
            tries += 1
            try:
                answer, wish = self._try(method, path, headers, body, min(self.try_s, until - time.monotonic()))
            except (OSError, http.client.HTTPException) as error:
                if body is not None or tries >= TRIES or isinstance(error, ssl.SSLCertVerificationError):
                    raise self._silent(error) from error
                self._pause(until, _backoff(tries), f"cannot be reached ({type(error).__name__})")
                continue
            if answer.status in _WAITING:
                wanted = _backoff(tries) if wish is None else wish
                self._pause(until, wanted, f"answered {answer.status} and asks to wait {wanted:.0f} s")
            elif answer.status in _FAILING and body is None and tries < TRIES:
                self._pause(until, _backoff(tries), f"answered {answer.status}")
            else:
                return answer

    def _pause(self, until: float, seconds: float, why: str) -> None:
        """Wait as long as the server wishes; stop where that is longer than we have."""
        if time.monotonic() + seconds >= until:
            raise StorageUnreachable(f"{self.root} {why}: wait, then run the same command again")
        time.sleep(seconds)

    def _silent(self, error: Exception) -> StorageUnreachable:
        if isinstance(error, ssl.SSLCertVerificationError):
            return StorageUnreachable(f"{self.root} has a certificate that is not trusted here: see SSL_CERT_FILE")
        return StorageUnreachable(
            f"cannot reach {self.root} ({type(error).__name__}): check address and network, then run again"
        )

    def _try(
        self, method: str, path: str, headers: dict[str, str], body: bytes | None, seconds: float
    ) -> tuple[Answer, float | None]:
        """Return one answer and how long it asks to wait; TimeoutError at the deadline, however slowly bytes drip."""
        until = time.monotonic() + max(seconds, 0.1)
        connection = self._connection(until)
        sock = connection.sock
        cut = threading.Timer(until - time.monotonic(), _shut, [sock])
        cut.daemon = True
        cut.start()
        try:
            connection.request(method, self._path + path, body, {**headers, **_authorization()})
            answer = connection.getresponse()
            data = _body(answer)
        except BaseException as error:
            self._drop()
            if isinstance(error, OSError | http.client.HTTPException) and time.monotonic() >= until:
                raise TimeoutError(f"no whole answer within {seconds:.0f} s") from error
            raise
        finally:
            cut.cancel()
        if answer.will_close:
            self._drop()
        message = email.message.Message()
        message["Content-Type"] = answer.getheader("Content-Type", "")
        parameters = {name.lower(): value for name, value in message.get_params([])[1:]}
        kind = message.get_content_type() if answer.getheader("Content-Type") else ""
        return Answer(answer.status, kind, parameters, data), _wish(answer.getheader("Retry-After"))

    def _connection(self, until: float) -> http.client.HTTPConnection:
        """Return this thread's connection; an idle one that the server has closed is opened anew."""
        held: _Held | None = getattr(self._held, "connection", None)
        if held is not None and held.connection.sock is not None and not _closed(held.connection.sock):
            return held.connection
        seconds = max(min(CONNECT_S, until - time.monotonic()), 0.1)
        if self._secure:
            context = ssl.create_default_context()
            fresh = _Held(http.client.HTTPSConnection(self._host, self._port, timeout=seconds, context=context))
        else:
            fresh = _Held(http.client.HTTPConnection(self._host, self._port, timeout=seconds))
        fresh.connection.connect()
        fresh.connection.sock.settimeout(None)  # from here on the timer cuts it
        self._held.connection = fresh
        return fresh.connection

    def _drop(self) -> None:
        held: _Held | None = getattr(self._held, "connection", None)
        if held is not None:
            held.connection.close()

    def refusal(self, answer: Answer, wanted: str) -> Exception:
        """Return what to raise for an answer that is not what was wanted; nothing of its body is quoted."""
        if answer.status in (401, 403):
            return StorageDenied(
                f"{self.root} refused our credentials or our right to do this ({answer.status}): set "
                "COVSEG_DICOMWEB_TOKEN, or COVSEG_DICOMWEB_USER and COVSEG_DICOMWEB_PASSWORD, then run again"
            )
        if 300 <= answer.status < 400:
            found = f"answered {answer.status}, a redirect, which is not followed: give the address it leads to"
        elif answer.status >= 400:
            found = f"answered {answer.status} where {wanted} was wanted: check that this is the DICOMweb root"
        elif not answer.body:
            found = f"answered nothing where {wanted} was wanted: check that this is the DICOMweb root"
        else:
            kind = answer.kind if re.fullmatch(r"[\w.+-]{1,40}/[\w.+-]{1,40}", answer.kind) else "something"
            found = f"answered {kind} where {wanted} was wanted: is it the DICOMweb root, or a login page before it?"
        return StorageUnreachable(f"{self.root} {found}")

    def json_list(self, path: str, patience_s: float | None = None) -> list[dict[str, object]]:
        """Return the items of a search; none for 204.

        Raises
        ------
        StorageUnreachable, StorageDenied
            When no list of DICOM JSON came.
        """
        try:
            answer = self.get(path, "application/dicom+json", patience_s)
        except OversizeBody as error:
            raise StorageUnreachable(f"{self.root} answered a search with {error}: narrow the query") from error
        if answer.status == 204:
            return []
        items = parsed(answer) if answer.status == 200 and answer.kind in JSON_KINDS else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise self.refusal(answer, "a list in DICOM JSON")
        return items


class _Held:
    """A connection that is closed with its thread or its client."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


def parsed(answer: Answer) -> object:
    """Return the body as JSON; None where it is none."""
    try:
        content: object = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return content


def _authorization() -> dict[str, str]:
    token, user = os.environ.get("COVSEG_DICOMWEB_TOKEN"), os.environ.get("COVSEG_DICOMWEB_USER")
    if token:
        return {"Authorization": f"Bearer {token}"}
    if user:
        pair = f"{user}:{os.environ.get('COVSEG_DICOMWEB_PASSWORD', '')}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
    return {}


def _body(answer: http.client.HTTPResponse) -> bytes:
    """Read a whole body; what is larger than any image ends the connection."""
    pieces, size = [], 0
    while piece := answer.read(CHUNK):
        pieces.append(piece)
        size += len(piece)
        if size > LARGEST_IMAGE:
            raise OversizeBody(f"an answer of more than {LARGEST_IMAGE} bytes")
    if answer.length:  # http.client says nothing when a body of announced length ends early
        raise http.client.IncompleteRead(b"", answer.length)
    return b"".join(pieces)


class OversizeBody(Exception):
    """An answer larger than any image."""


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)  # not TLS's own, which would wait for the other side


def _closed(sock: socket.socket) -> bool:
    """Tell whether the other side has closed an idle connection: all that can wait on one is its end."""
    waiting = select.poll()
    waiting.register(sock, select.POLLIN | select.POLLHUP | select.POLLERR)
    return bool(waiting.poll(0))


def _backoff(tries: int) -> float:
    return random.uniform(0.5, 1) * min(0.5 * 2**tries, 20)  # noqa: S311 - spreads clients, hides nothing


def _wish(value: str | None) -> float | None:
    """Return what ``Retry-After`` says, in seconds from now; None where it says nothing.

    Examples
    --------
    >>> _wish("120"), _wish("soon"), _wish("Wed, 21 Oct 2015 07:28:00 GMT"), _wish(None)
    (120.0, None, 0.0, None)
    """
    if value is None:
        return None
    if value.strip().isdigit():
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - time.time(), 0.0)
    except ValueError:
        return None


def uids(item: dict[str, object], *tags: str) -> Iterator[str]:
    """Yield the first value of elements of DICOM JSON as text; an empty one where there is none."""
    for tag in tags:
        element = item.get(tag)
        values = element.get("Value") if isinstance(element, dict) else None
        value = values[0] if isinstance(values, list) and values else ""
        yield value if isinstance(value, str) else ""
