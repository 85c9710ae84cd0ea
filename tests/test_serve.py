"""A destination in a browser: what is shown, and what is not answered."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator

import pytest

from covseg.errors import EnvironmentFailed
from covseg.storage import MemoryStore
from flows.serve import open_server
from tests.archives import images, make_run, score


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[int, MemoryStore]]:
    source = MemoryStore(images(5) | {"z.txt": b"text"}, name="src")
    run = make_run()
    score(run, source)
    source.write("y.png", b"new")
    score(run, source)
    server, url = open_server(run, 0)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    assert url == f"http://127.0.0.1:{server.server_port}/"
    yield server.server_port, run.dest
    server.shutdown()
    server.server_close()


def ask(port: int, path: str, method: str = "GET", host: str | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_the_snapshots_stand_side_by_side_with_what_each_changed(served: tuple[int, MemoryStore]) -> None:
    status, page = ask(served[0], "/")
    text = page.decode()
    assert status == 200 and "Snapshots of" in text and "Research use only" in text
    assert "7 <span" in text and "(+1)" in text and "refused: not an image" in text
    assert text.index(">2</th>") < text.index(">1</th>")


def test_the_newest_files_are_the_destinations_own_and_nothing_else_is_answered(
    served: tuple[int, MemoryStore],
) -> None:
    port, dest = served
    for name in ("report.html", "severity.csv", "severity.parquet"):
        assert ask(port, f"/{name}") == (200, dest.read(name))
        assert ask(port, f"/{name}", "HEAD") == (200, b"")
    mask = next(name for name in dest.objects if name.startswith("masks/"))
    assert ask(port, f"/{mask}") == (200, dest.read(mask))  # the report's large view leads there
    for path in (
        "/run.json",
        "/masks/../run.json",
        "/tables/x.parquet",
        "/masks/absent.png",
        "/../etc/passwd",
        "/masks/",
        "/severity.csv/x",
    ):
        assert ask(port, path)[0] == 404
    assert ask(port, "/", "POST")[0] == ask(port, "/report.html", "DELETE")[0] == 501


def test_a_name_that_leads_here_from_elsewhere_is_refused(served: tuple[int, MemoryStore]) -> None:
    assert ask(served[0], "/", host=f"evil.example:{served[0]}")[0] == 403
    assert ask(served[0], "/", host=f"localhost:{served[0]}")[0] == 200


def test_a_port_that_is_taken_is_said(served: tuple[int, MemoryStore]) -> None:
    with pytest.raises(EnvironmentFailed, match=r"cannot be had .* give another --port"):
        open_server(make_run(), served[0])
