"""A real PACS: scored from it by DICOMweb, on Ray and as a flow; sent back to it under kill -9; read from it again."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from pydicom import dcmread

from covseg.dicom.codes import MEASURES
from covseg.settings.dicom import DICOM_KINDS
from covseg.settings.score import ScoreSettings
from covseg.storage import LocalStore
from covseg.storage.dicomweb_http import Client
from covseg.storage.stow import deliver
from covseg.synthetic.phantom import WHITE, make_phantom
from covseg.synthetic.phantom.dicom import encode_dicom
from covseg.verify import verify
from tests.conftest import await_port, free_port
from tests.dicom_images import with_canaries
from tests.test_dicom_objects import measured
from tests.test_dicom_runs import traces
from workers.scoring import score_archive

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
INSTALLED = shutil.which("Orthanc", path="/usr/sbin:/usr/bin") and PLUGIN.is_file()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.service,
    pytest.mark.ray,
    pytest.mark.flow,
    pytest.mark.timeout(5000),
    pytest.mark.skipif(not INSTALLED, reason="no Orthanc: apt-get install orthanc orthanc-dicomweb"),
]
PROJECT = Path(__file__).resolve().parents[1]
IMAGES = 200


@dataclass
class Orthanc:
    """An Orthanc of ours: its two ports on loopback."""

    http: int
    dimse: int

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    def ask(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}{path}", timeout=60) as answer:
            return answer.read()

    def count(self, level: str) -> int:
        return len(json.loads(self.ask(f"/{level}")))

    def arrivals(self) -> Counter[str]:
        """How often each instance came, by Orthanc's name for it."""
        found, since, done = Counter[str](), 0, False
        while not done:
            page = json.loads(self.ask(f"/changes?limit=1000&since={since}"))
            found.update(change["ID"] for change in page["Changes"] if change["ChangeType"] == "NewInstance")
            since, done = page["Last"], page["Done"]
        return found

    def instances(self) -> dict[str, bytes]:
        """Read everything back, by SOP instance UID."""
        names = json.loads(self.ask("/instances"))
        files = [self.ask(f"/instances/{name}/file") for name in names]
        return {str(dcmread(io.BytesIO(data), stop_before_pixels=True).SOPInstanceUID): data for data in files}

    def store(self, files: list[bytes]) -> None:
        for start in range(0, len(files), 20):
            batch = {
                str(dcmread(io.BytesIO(data), stop_before_pixels=True).SOPInstanceUID): data
                for data in files[start : start + 20]
            }
            assert deliver(Client(self.root), batch).refused == {}


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Orthanc]:
    server = Orthanc(free_port(), free_port())
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
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with serving(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture(scope="module")
def sources(val_root: Path, data_root: Path) -> list[bytes]:
    """Val images under the phantom's header, and every real DICOM image, `IMAGES` in all."""
    real = [path.read_bytes() for path in sorted((data_root / "dicom").glob("*.dcm"))]
    images = sorted(val_root.glob("*/images/*.png"))
    chosen = images[:: len(images) // IMAGES][: IMAGES - len(real)]
    phantom = make_phantom(0, 256, 256)
    greys = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(np.uint16) * (WHITE // 255) for path in chosen]
    made = [encode_dicom(replace(phantom, seed=n, pixels=grey), n % 2 == 1) for n, grey in enumerate(greys)]
    return real + made


@pytest.fixture(scope="module")
def held(orthanc: Orthanc, sources: list[bytes]) -> Orthanc:
    orthanc.store(sources)
    assert orthanc.count("instances") == len(sources) == IMAGES
    return orthanc


def settings(orthanc: Orthanc, dest: Path) -> ScoreSettings:
    source = f"dicomweb+{orthanc.root}?Modality=CR,DX"
    return ScoreSettings(source=source, dest=str(dest), dicom="seg,sr,sc", link_patient=True, shard_size=32, workers=2)


@pytest.fixture(scope="module")
def scored(held: Orthanc, ray_cluster: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("scored")
    summary = score_archive(settings(held, dest))
    assert sum(summary.statuses.values()) == IMAGES
    assert summary.statuses["scored"] > IMAGES * 0.9
    return dest


def test_the_table_holds_the_bytes_of_the_pacs(scored: Path, sources: list[bytes]):
    rows = pq.read_table(scored / "severity.parquet").to_pylist()
    assert {row["sha256"] for row in rows} == {hashlib.sha256(data).hexdigest() for data in sources}
    for row in rows:
        assert row["key"].count("/") == 2
    verdict = verify(LocalStore(scored))
    assert (verdict.breaches, verdict.orphans) == ([], 0)


def send(dest: Path, server: Orthanc) -> subprocess.Popen[str]:
    words = [sys.executable, "-m", "flows.cli", "send", str(dest), server.root, "--json"]
    ours = os.environ | {"PYTHONPATH": str(PROJECT)}
    return subprocess.Popen(words, env=ours, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finished(process: subprocess.Popen[str]) -> dict[str, object]:
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, out + err
    return json.loads(out)


def test_sent_under_kill_9_and_read_again(held: Orthanc, scored: Path, sources: list[bytes]):
    files = {str(path.relative_to(scored)): path.read_bytes() for path in sorted(scored.glob("dicom/*/*.dcm"))}
    studies, before = held.count("studies"), held.count("instances")
    kills = []
    for share in (0.15, 0.55):
        process = send(scored, held)
        while held.count("instances") - before < share * len(files):
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        time.sleep(1)  # what was on its way comes in
        kills.append(held.count("instances") - before)
    assert 0 < kills[0] < kills[1] < len(files)
    there = held.count("instances") - before
    last = finished(send(scored, held))
    assert (last["stored"], last["held_before"], last["refused"]) == (len(files) - there, there, 0)
    again = finished(send(scored, held))
    assert (again["stored"], again["held_before"]) == (0, len(files))
    subprocess.run(
        ["storescu", "-R", "-aec", "ORTHANC", "127.0.0.1", str(held.dimse), "+sd", "+r", str(scored / "dicom" / "sr")],
        check=True, capture_output=True,
    )  # fmt: skip
    arrivals = held.arrivals()
    assert set(arrivals.values()) == {1}
    stored = held.instances()
    assert len(arrivals) == len(stored) == len(sources) + len(files)
    assert held.count("studies") == studies
    _come_back(scored, files, stored)
    verdict = verify(LocalStore(scored))
    assert (verdict.breaches, verdict.orphans) == ([], 0)


def _come_back(scored: Path, files: dict[str, bytes], stored: dict[str, bytes]) -> None:
    """Compare everything that the PACS holds with the table and its masks."""
    compared = Counter[str]()
    for row in pq.read_table(scored / "severity.parquet").to_pylist():
        back = {kind: _back(stored, files, row[f"{kind}_uri"]) for kind in DICOM_KINDS if row[f"{kind}_uri"]}
        compared.update(list(back))
        if "sr" in back:
            found = measured(io.BytesIO(back["sr"]))
            assert found == {name: value for name, value in row.items() if _is_measure(name) and value is not None}
        if "seg" in back:
            label_map = cv2.imread(str(scored / row["mask_uri"]), cv2.IMREAD_UNCHANGED)
            seg = dcmread(io.BytesIO(back["seg"]))
            frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns)
            assert np.array_equal(frames[0], label_map > 0)
            assert np.array_equal(frames[1] if len(frames) == 2 else np.zeros_like(label_map), label_map == 2)
            assert seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID in stored
    assert sum(compared.values()) == len(files)
    print(f"compared with the PACS: {dict(compared)}")


def _is_measure(column: str) -> bool:
    return column in MEASURES or column.startswith(("infected_fraction_right", "infected_fraction_left"))


def _back(stored: dict[str, bytes], files: dict[str, bytes], uri: str) -> bytes:
    """Return an object as it came back, found to be what was sent."""
    sent = dcmread(io.BytesIO(files[uri]))
    data = stored[str(sent.SOPInstanceUID)]
    assert dcmread(io.BytesIO(data)) == sent
    return data


def flow_score(wanted: ScoreSettings, **environment: str) -> str:
    words = [sys.executable, "-m", "flows.score", wanted.source, wanted.dest, "--dicom", wanted.dicom]
    words += ["--link-patient"] if wanted.link_patient else []
    words += ["--shard-size", str(wanted.shard_size), "--workers", "2"]
    ours = os.environ | {"PYTHONPATH": str(PROJECT)} | environment
    done = subprocess.run(words, env=ours, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_flow_makes_the_objects_of_the_command(
    held: Orthanc, scored: Path, ray_cluster: str, prefect_server: Path, tmp_path: Path
):
    flow_score(settings(held, tmp_path))
    ours, theirs = (
        {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("dicom/*/*.dcm"))}
        for folder in (scored, tmp_path)
    )
    assert len(ours) > 2 * IMAGES
    assert ours == theirs
    assert (tmp_path / "severity.csv").read_bytes() == (scored / "severity.csv").read_bytes()


# --- the canary, from a PACS through the flow and back


@pytest.mark.parametrize("link_patient", [False, True], ids=["pseudonym", "linked"])
def test_names_in_the_pacs_are_in_no_output_log_artifact_or_database(
    link_patient: bool, ray_cluster: str, prefect_server: Path, tmp_path: Path
):
    folder, dest = tmp_path / "orthanc", tmp_path / "scored"
    folder.mkdir()
    uids = [f"1.3.6.1.4.1.5962.99.{n}" for n in range(3)]  # the key has them: they are the source's file names
    with serving(folder) as server:
        planted = []
        for seed in range(4):
            image = dcmread(io.BytesIO(with_canaries(encode_dicom(make_phantom(seed, 256, 256)))))
            names = "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"
            for name, uid in zip(names, uids, strict=True):
                setattr(image, name, f"{uid}.{seed}")
            image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
            file = io.BytesIO()
            image.save_as(file, enforce_file_format=True)
            planted.append(file.getvalue())
        server.store(planted)
        wanted = settings(server, dest).model_copy(update={"link_patient": link_patient})
        said = flow_score(wanted)
        process = send(dest, server)
        said += "".join(process.communicate(timeout=300))
        assert process.returncode == 0
    objects = {str(path.relative_to(dest)): path.read_bytes() for path in dest.rglob("*") if path.is_file()}
    assert sum(name.startswith("dicom/") for name in objects) == 12
    hits = traces(objects)
    assert {name.split("/")[0] for name in hits} == ({"dicom"} if link_patient else set())
    prefect = {str(path): path.read_bytes() for path in prefect_server.rglob("*") if path.is_file()}
    assert any(name.endswith("prefect.db") for name in prefect)
    session = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "session_latest"
    logs = {str(path): path.read_bytes() for path in session.resolve().glob("logs/*") if path.is_file()}
    assert logs
    assert traces({"said": said.encode()} | prefect | logs) == {}
