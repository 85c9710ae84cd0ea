"""A real PACS takes the objects: stored by STOW and by DIMSE beside their sources, and read again."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from pydicom import dcmread

from covseg.pipeline import Pipeline
from covseg.predict import Outputs, predict
from covseg.settings.dicom import DICOM_KINDS, DicomSettings
from covseg.storage import LocalStore, entries
from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.writer import encode
from tests.conftest import await_port, free_port
from tests.test_dicom_objects import measured

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
INSTALLED = shutil.which("Orthanc", path="/usr/sbin:/usr/bin") and PLUGIN.is_file()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.service,
    pytest.mark.skipif(not INSTALLED, reason="no Orthanc: apt-get install orthanc orthanc-dicomweb"),
]
IMAGES = 24


@dataclass
class Orthanc:
    """An Orthanc of ours: its two ports on loopback."""

    http: int
    dimse: int

    def ask(self, path: str, data: bytes | None = None, **headers: str) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{self.http}{path}", data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def stow(self, files: list[bytes]) -> dict[str, dict[str, object]]:
        """Store files by STOW-RS; return what it says of them."""
        boundary = uuid.uuid4().hex
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        body = b"".join(head + data + b"\r\n" for data in files) + f"--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        headers = {"Content-Type": kind, "Accept": "application/dicom+json"}
        return json.loads(self.ask("/dicom-web/studies", body, **headers))

    def instances(self) -> dict[str, bytes]:
        """Read everything back, by SOP instance UID."""
        names = json.loads(self.ask("/instances"))
        files = [self.ask(f"/instances/{name}/file") for name in names]
        return {str(dcmread(io.BytesIO(data), stop_before_pixels=True).SOPInstanceUID): data for data in files}


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    folder, server = tmp_path_factory.mktemp("orthanc"), Orthanc(free_port(), free_port())
    settings = {
        "StorageDirectory": str(folder), "IndexDirectory": str(folder), "HttpPort": server.http,
        "DicomPort": server.dimse, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "Plugins": [str(PLUGIN)], "DicomAlwaysAllowStore": True, "OverwriteInstances": False,
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    command = [shutil.which("Orthanc", path="/usr/sbin:/usr/bin") or "", str(folder / "orthanc.json")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        await_port(server.http, process)
        yield server
        process.terminate()


@pytest.fixture(scope="module")
def scored(pipeline: Pipeline, backend, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Phantoms, and the real images where they are, with linked objects; return sources and results."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("out")
    for seed in range(IMAGES):
        (source / f"{seed}.dcm").write_bytes(encode(make_phantom(seed, 300, 280), f"monochrome{1 + seed % 2}"))
    for path in (Path(__file__).resolve().parents[2] / "shared" / "data" / "dicom").glob("*.dcm"):
        shutil.copy(path, source)
    ours = Pipeline(pipeline.model, pipeline.config, dicom=DicomSettings(kinds=DICOM_KINDS, link_patient=True))
    store = LocalStore(source)
    predict(ours, backend, store, entries(store), LocalStore(out), Outputs(overlay=False, pictures=False))
    return source, out


def test_objects_are_stored_beside_their_sources_and_come_back_the_same(orthanc: Orthanc, scored: tuple[Path, Path]):
    source, out = scored
    sources = [path.read_bytes() for path in sorted(source.iterdir())]
    orthanc.stow(sources)
    studies = len(json.loads(orthanc.ask("/studies")))
    files = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("dicom/*/*.dcm"))}
    answer = orthanc.stow(list(files.values()))
    assert not answer.get("00081198", {}).get("Value")  # the failed ones
    subprocess.run(
        ["storescu", "-R", "-aec", "ORTHANC", "127.0.0.1", str(orthanc.dimse), "+sd", "+r", str(out / "dicom" / "sr")],
        check=True, capture_output=True,
    )  # fmt: skip
    orthanc.stow(list(files.values()))
    stored = orthanc.instances()
    assert len(stored) == len(sources) + len(files)  # each once, though sent three times
    assert len(json.loads(orthanc.ask("/studies"))) == studies
    rows = pq.read_table(out / "severity.parquet").to_pylist()
    assert sum(row["sr_uri"] is not None for row in rows) >= IMAGES
    for row in (row for row in rows if row["sr_uri"]):
        back = {kind: _back(stored, files, row[f"{kind}_uri"]) for kind in DICOM_KINDS if row[f"{kind}_uri"]}
        assert measured(io.BytesIO(back["sr"]))["infected_fraction"] == row["infected_fraction"]
        label_map = cv2.imread(str(out / row["mask_uri"]), cv2.IMREAD_UNCHANGED)
        seg = dcmread(io.BytesIO(back["seg"]))
        frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
        assert np.array_equal(frames[0], label_map > 0)
        assert np.array_equal(frames[1] if len(frames) == 2 else np.zeros_like(label_map), label_map == 2)


def _back(stored: dict[str, bytes], files: dict[str, bytes], uri: str) -> bytes:
    """Return an object as it came back, found to be what was sent."""
    sent = dcmread(io.BytesIO(files[uri]))
    data = stored[str(sent.SOPInstanceUID)]
    assert dcmread(io.BytesIO(data)) == sent
    return data
