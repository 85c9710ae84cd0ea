"""Models in a registry: one behaviour suite for a folder, memory and a bucket, and what only one of them can do."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
from safetensors.torch import save_file

import covseg
from covseg.errors import ModelRefused, StorageFull, UsageError
from covseg.model_folder.folder import CONFIG, WEIGHTS
from covseg.networks.plain import PlainUNet
from covseg.registry import aliases, open_model
from covseg.registry.listing import list_models, show
from covseg.registry.references import is_reference, parse
from covseg.registry.registry import open_registry, pinned, promote, pull, push
from covseg.settings.score import ScoreSettings
from covseg.storage import MemoryStore, entries
from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.writer import write_dataset
from flows.cli import app as cli

STORES = ["local", "memory", pytest.param("s3", marks=pytest.mark.service)]
ON_DISK_AND_WIRE = pytest.mark.parametrize("url", [STORES[0], STORES[2]], indirect=True)
SMALL = {"masks": 2, "widths": [4, 8, 8]}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("COVSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COVSEG_REGISTRY", raising=False)
    return tmp_path / "cache"


@pytest.fixture(params=STORES)
def url(request, tmp_path):
    if request.param == "local":
        return str(tmp_path / "registry")
    if request.param == "memory":
        return f"memory://{uuid.uuid4().hex}"
    return f"s3://{request.getfixturevalue('s3_bucket')}/models"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    import torch

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / WEIGHTS
    save_file(PlainUNet(**SMALL).state_dict(), path)
    return path.read_bytes()


@pytest.fixture
def model(tmp_path, weights):
    """Make a small model's folder; `number` makes it another model."""

    def make(number=0):
        folder = tmp_path / f"model-{number}"
        folder.mkdir()
        (folder / WEIGHTS).write_bytes(weights)
        config = {
            "id": f"small-{number}", "network": "plain-unet", "network_args": SMALL, "size": 64,
            "weights_sha256": hashlib.sha256(weights).hexdigest(), "licence": "Research use only.", "citation": "None.",
        }  # fmt: skip
        (folder / CONFIG).write_text(json.dumps(config))
        (folder / "card.md").write_text(f"# small-{number}, by its author\n")
        return folder

    return make


def objects(url):
    return [entry.key for entry in entries(open_registry(url))]


class Ended(Exception):
    """The process is gone."""


class Dying:
    """A store whose process ends at its n-th create."""

    def __init__(self, store, creates):
        self.store, self.left, self.url = store, creates, store.url

    def create(self, key, data):
        if key.startswith("probe/"):
            return self.store.create(key, data)
        if self.left == 0:
            raise Ended
        self.left -= 1
        return self.store.create(key, data)

    def __getattr__(self, name):
        return getattr(self.store, name)


class Overwriting(MemoryStore):
    """A store that ignores If-None-Match."""

    def create(self, key, data):
        self.write(key, data)
        return True


# --- versions ---------------------------------------------------------------------------------------


def test_a_pushed_model_is_pulled_with_the_same_bytes(url, model, cache):
    folder = model()
    version, made = push(folder, open_registry(url), "fast")
    assert (version.tag, made, version.model_id) == ("v1", True, "small-0")
    pulled = pull(f"{url}/fast@v1").folder
    assert cache in pulled.parents
    for name in (WEIGHTS, CONFIG):
        assert (pulled / name).read_bytes() == (folder / name).read_bytes()
    assert {path.name for path in pulled.iterdir()} == {WEIGHTS, CONFIG, "card.md"}


def test_the_same_content_is_the_same_version_and_nothing_is_written(url, model):
    folder, registry = model(), open_registry(url)
    push(folder, registry, "fast")
    before = objects(url)
    assert push(folder, registry, "fast")[0].tag == "v1"
    assert push(f"{url}/fast@v1", registry, "fast") == (show(registry, "fast").versions[0], False)
    assert objects(url) == before


def test_other_content_is_the_next_version_and_the_first_stays(url, model):
    registry = open_registry(url)
    assert [push(model(number), registry, "fast").version.tag for number in range(3)] == ["v1", "v2", "v3"]
    assert [open_model(f"{url}/fast@v{number}").config.id for number in (1, 2, 3)] == ["small-0", "small-1", "small-2"]


def test_a_dry_run_tells_the_version_and_writes_nothing(url, model):
    registry = open_registry(url)
    assert push(model(), registry, "fast", dry_run=True).version.tag == "v1"
    assert objects(url) == []


@pytest.mark.parametrize("creates", range(4))
def test_a_push_that_ended_early_is_no_version_and_can_be_done_again(url, model, creates):
    registry, folder = open_registry(url), model()
    push(model(1), registry, "fast")
    with pytest.raises(Ended):
        push(folder, Dying(registry, creates), "fast")
    assert [version.tag for version in show(registry, "fast").versions] == ["v1"]
    with pytest.raises(ModelRefused, match="has no v2"):
        pull(f"{url}/fast@v2")
    assert push(folder, registry, "fast") == (show(registry, "fast").versions[1], True)
    assert open_model(f"{url}/fast@v2").config.id == "small-0"


@ON_DISK_AND_WIRE
def test_a_killed_push_leaves_no_version(url, model):
    """The process is killed between the last file and the record that completes the version."""
    folder, registry = model(), open_registry(url)
    program = (
        "import os, signal, sys\n"
        "from covseg.registry import objects, registry\n"
        "def killed(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "registry.complete = killed\n"
        "registry.push(sys.argv[1], registry.open_registry(sys.argv[2]), 'fast')"
    )
    done = subprocess.run([sys.executable, "-c", program, str(folder), url], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert sum("/content/" in key for key in objects(url)) == 3
    assert list_models(registry) == []
    assert push(folder, registry, "fast").version.tag == "v1"


def test_pushes_at_once_get_a_number_each(url, model):
    folders, registry, gate = [model(number) for number in range(6)], open_registry(url), Barrier(6)

    def send(folder):
        gate.wait()
        return push(folder, registry, "fast").version.number

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(send, folders)) == [1, 2, 3, 4, 5, 6]
    assert len({version.content for version in show(registry, "fast").versions}) == 6


def test_pushes_of_the_same_content_at_once_are_one_version(url, model):
    folder, registry, gate = model(), open_registry(url), Barrier(6)

    def send(_):
        gate.wait()
        return push(folder, registry, "fast")

    with ThreadPoolExecutor(6) as pool:
        sent = list(pool.map(send, range(6)))
    assert {version.tag for version, _ in sent} == {"v1"}
    assert sum(made for _, made in sent) == 1
    assert [version.tag for version in show(registry, "fast").versions] == ["v1"]


def test_a_store_without_create_only_writes_is_refused(model):
    store = Overwriting()
    with pytest.raises(UsageError, match=r"create-only writes.*Keep the registry"):
        push(model(), store, "fast")
    assert store.objects == {}


def test_a_full_store_is_said_so_and_leaves_no_version(model):
    class Full(MemoryStore):
        def create(self, key, data):
            if key.endswith(WEIGHTS):
                raise StorageFull("no space left")
            return super().create(key, data)

    store = Full()
    with pytest.raises(StorageFull):
        push(model(), store, "fast")
    assert list_models(store) == []


# --- what is not trusted ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "said"),
    [("weights.pt", "pickles"), ("optimizer.BIN", "pickles"), ("film.png", "only plainly named"), ("sub", "a folder"),
     ("notes.txt", "only plainly named"), (".hidden.json", "only plainly named"), ("pipe.json", "no regular file"),
     ("link.json", "a link")],
)  # fmt: skip
def test_a_folder_with_anything_else_is_refused_with_the_reason(model, name, said):
    folder = model()
    match name:
        case "sub":
            (folder / name).mkdir()
        case "pipe.json":
            os.mkfifo(folder / name)
        case "link.json":
            (folder / name).symlink_to(folder / CONFIG)
        case _:
            (folder / name).write_bytes(b"x")
    store = MemoryStore()
    with pytest.raises(ModelRefused, match=said) as caught:
        push(folder, store, "fast")
    assert name in str(caught.value)
    assert store.objects == {}


@pytest.mark.parametrize("name", ["other.safetensors", "other.json", "other.md"])
def test_a_file_that_is_not_what_its_name_says_is_refused(model, name):
    folder = model()
    (folder / name).write_bytes(b"\x80\x04\x95\xff\xff a pickle by another name")
    with pytest.raises(ModelRefused, match="not what its name says"):
        push(folder, MemoryStore(), "fast")


def test_a_folder_that_cannot_be_opened_is_not_pushed(model):
    folder, store = model(), MemoryStore()
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-8])
    with pytest.raises(ModelRefused, match="sha256"):
        push(folder, store, "fast")
    assert store.objects == {}


def test_uses_of_the_test_split_stay_behind_and_are_counted_in_the_card(model):
    folder = model()
    (folder / "test-uses.jsonl").write_text('{"headline": 1}\n{"headline": 2}\n')
    assert cli.run(["models", "card", str(folder)]) == 0
    store = MemoryStore()
    version = push(folder, store, "fast").version
    assert {file.name for file in version.files} == {WEIGHTS, CONFIG, "card.md"}
    (page,) = [data for key, data in store.objects.items() if key.endswith("card.md")]
    assert b"recorded beside these weights when this was written: 2" in page


def test_a_model_without_a_card_is_not_pushed(model):
    folder = model()
    (folder / "card.md").unlink()
    with pytest.raises(ModelRefused, match=r"no card\.md: run covseg models card"):
        push(folder, MemoryStore(), "fast")


def test_a_card_of_other_settings_is_refused(model):
    folder = model()
    assert cli.run(["models", "card", str(folder)]) == 0
    push(folder, MemoryStore(), "fast")
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"thresholds": {"infection": 0.7}}))
    with pytest.raises(ModelRefused, match="covseg models card"):
        push(folder, MemoryStore(), "fast")


def test_a_changed_object_in_the_registry_is_not_opened(url, model):
    registry = open_registry(url)
    push(model(), registry, "fast")
    (key,) = [key for key in objects(url) if key.endswith(WEIGHTS)]
    data = bytearray(registry.read(key))
    data[-1] ^= 1
    registry.write(key, bytes(data))
    with pytest.raises(ModelRefused, match=r"weights\.safetensors has sha256 .* changed or damaged"):
        pull(f"{url}/fast@v1")


def test_a_push_does_not_replace_what_lies_in_its_place(url, model):
    registry, folder = open_registry(url), model()
    place = f"fast/content/{push(folder, registry, 'fast', dry_run=True).version.content[:16]}/{WEIGHTS}"
    registry.write(place, b"other bytes")
    with pytest.raises(ModelRefused, match=r"weights\.safetensors exists with other content"):
        push(folder, registry, "fast")
    assert registry.read(place) == b"other bytes"
    assert list_models(registry) == []


def test_a_damaged_or_half_pulled_copy_in_the_cache_is_mended(url, model):
    push(model(), open_registry(url), "fast")
    pulled = pull(f"{url}/fast@v1").folder
    wanted = {path.name: path.read_bytes() for path in pulled.iterdir()}
    (pulled / WEIGHTS).write_bytes(b"x" * len(wanted[WEIGHTS]))
    (pulled / CONFIG).unlink()
    assert pull(f"{url}/fast@v1").folder == pulled
    assert {path.name: path.read_bytes() for path in pulled.iterdir()} == wanted


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record["files"][0] | {"name": "../../../outside.json"},
        lambda record: record["files"][0] | {"name": "/etc/outside.json"},
        lambda record: record["files"][0] | {"name": "weights.pt"},
        lambda record: record["files"][0] | {"sha256": "0" * 64},
    ],
)
def test_a_version_record_that_was_written_by_others_is_not_believed(url, model, change):
    registry = open_registry(url)
    push(model(), registry, "fast")
    record = json.loads(registry.read("fast/versions/v1.json"))
    record["files"][0] = change(record)
    registry.write("fast/versions/v1.json", json.dumps(record).encode())
    with pytest.raises(ModelRefused, match="cannot be believed"):
        pull(f"{url}/fast@v1")


def test_a_record_of_a_later_format_is_not_guessed(model):
    url = f"memory://{uuid.uuid4().hex}"
    registry = open_registry(url)
    push(model(), registry, "fast")
    record = json.loads(registry.read("fast/versions/v1.json"))
    registry.write("fast/versions/v1.json", json.dumps(record | {"format": 2}).encode())
    with pytest.raises(ModelRefused, match="format"):
        pull(f"{url}/fast@v1")


# --- aliases ----------------------------------------------------------------------------------------


def two_versions(url, model):
    registry = open_registry(url)
    for number in (0, 1):
        push(model(number), registry, "fast")
    return registry


def test_an_alias_means_what_was_promoted_last_and_the_history_keeps_all(url, model):
    registry = two_versions(url, model)
    for number, by in ((1, "ann"), (2, "bob"), (1, "ann")):
        assert promote(f"{url}/fast@v{number}", "champion", by, "because")[1]
    promote(f"{url}/fast@v2", "candidate", "bob")
    assert open_model(f"{url}/fast@champion").config.id == "small-0"
    assert open_model(f"{url}/fast@candidate").config.id == "small-1"
    history = show(registry, "fast").history["champion"]
    assert [(one.number, one.version, one.previous, one.by) for one in history] == [
        (1, 1, None, "ann"), (2, 2, 1, "bob"), (3, 1, 2, "ann"),
    ]  # fmt: skip
    assert json.loads(registry.read("fast/aliases/champion.json"))["version"] == 1
    assert list_models(registry)[0].aliases == {"candidate": 2, "champion": 1}


def test_promoting_what_is_champion_already_adds_nothing(url, model):
    registry = two_versions(url, model)
    assert promote(f"{url}/fast@v1", "champion", "ann")[1]
    assert not promote(f"{url}/fast@v1", "champion", "ann")[1]
    assert not promote(f"{url}/fast@champion", "champion", "ann")[1]
    assert len(show(registry, "fast").history["champion"]) == 1


def test_a_candidate_becomes_champion_by_its_alias(url, model):
    two_versions(url, model)
    promote(f"{url}/fast@v2", "candidate", "ann")
    promote(f"{url}/fast@candidate", "champion", "ann")
    assert pinned(f"{url}/fast@champion").endswith("/fast@v2")


def test_the_order_of_promotions_is_their_number_not_a_clock(url, model, monkeypatch):
    two_versions(url, model)
    monkeypatch.setattr(aliases, "now", lambda: "2031-01-01T00:00:00+00:00")
    promote(f"{url}/fast@v1", "champion", "a clock that is ahead")
    monkeypatch.setattr(aliases, "now", lambda: "2001-01-01T00:00:00+00:00")
    promote(f"{url}/fast@v2", "champion", "a clock that is behind")
    assert pinned(f"{url}/fast@champion").endswith("/fast@v2")


def test_an_alias_object_that_is_old_or_gone_misleads_nobody(url, model):
    registry = two_versions(url, model)
    promote(f"{url}/fast@v1", "champion", "ann")
    old = registry.read("fast/aliases/champion.json")
    promote(f"{url}/fast@v2", "champion", "ann")
    registry.write("fast/aliases/champion.json", old)
    assert pinned(f"{url}/fast@champion").endswith("/fast@v2")
    registry.delete("fast/aliases/champion.json")
    assert pinned(f"{url}/fast@champion").endswith("/fast@v2")


def test_promotions_at_once_are_all_in_the_history(url, model):
    registry, gate = two_versions(url, model), Barrier(6)
    chosen = show(registry, "fast").versions

    def give(number):
        gate.wait()
        return aliases.promote(registry, "fast", "champion", chosen[number % 2], str(number), "")

    with ThreadPoolExecutor(6) as pool:
        given = list(pool.map(give, range(6)))
    history = show(registry, "fast").history["champion"]
    assert [one.number for one in history] == list(range(1, len(history) + 1))
    assert {one.attempt for one in history} == {promotion.attempt for promotion, made in given if made}
    assert [one.previous for one in history] == [None, *(one.version for one in history[:-1])]
    assert all(one.version != one.previous for one in history)


def test_a_version_that_was_exchanged_under_its_alias_is_not_opened(url, model):
    registry = two_versions(url, model)
    promote(f"{url}/fast@v1", "champion", "ann")
    record = json.loads(registry.read("fast/versions/v2.json"))
    registry.write("fast/versions/v1.json", json.dumps(record | {"number": 1}).encode())
    with pytest.raises(ModelRefused, match="not the content that was promoted"):
        pull(f"{url}/fast@champion")


def test_a_damaged_version_is_not_promoted(url, model):
    registry = two_versions(url, model)
    keys = [key for key in objects(url) if key.endswith(CONFIG)]
    for key in keys:
        registry.write(key, b"{}")
    with pytest.raises(ModelRefused, match="changed or damaged"):
        promote(f"{url}/fast@v1", "champion", "ann")
    assert show(registry, "fast").history["champion"] == []


def test_a_removed_promotion_is_noticed(url, model, capsys):
    registry = two_versions(url, model)
    for number in (1, 2, 1):
        promote(f"{url}/fast@v{number}", "champion", "ann")
    registry.delete("fast/history/champion/00000002.json")
    assert aliases.gaps(show(registry, "fast").history["champion"]) == [2]
    assert cli.run(["models", "show", f"{url}/fast"]) == 0
    assert "removed from this history: [2]" in capsys.readouterr().out


# --- references -------------------------------------------------------------------------------------


def test_a_folder_that_exists_is_a_folder_whatever_its_name(model, tmp_path, monkeypatch):
    model().rename(tmp_path / "fast@v1")
    monkeypatch.chdir(tmp_path)
    assert not is_reference("fast@v1")
    assert open_model("fast@v1").config.id == "small-0"
    assert not is_reference("default") and not is_reference("runs/fast") and not is_reference(Path("x@v1"))


@pytest.mark.parametrize(
    ("ref", "said"),
    [("s3://bucket/registry/fast", "no tag"), ("registry/fast@latest", "unknown tag"), ("registry/fast@v03", "unknown"),
     ("registry/Fast@v1", "no name of a model"), ("registry/@v1", "no name of a model"), ("s3://fast@v1", "no path"),
     ("s3://AK:canary@bucket/fast", "no tag"), ("s3://AK:canary@v1", "no path"), ("../x@v0", "unknown tag")],
)  # fmt: skip
def test_a_reference_that_names_nothing_says_what_was_wanted(ref, said):
    with pytest.raises(ModelRefused, match=said) as caught:
        parse(ref)
    assert "[REGISTRY/]NAME@TAG" in str(caught.value)
    assert "canary" not in str(caught.value)


def test_the_registry_of_the_environment_is_taken_where_none_is_named(url, model, monkeypatch):
    push(model(), open_registry(url), "fast")
    with pytest.raises(UsageError, match="COVSEG_REGISTRY"):
        open_model("fast@v1")
    monkeypatch.setenv("COVSEG_REGISTRY", url)
    folder = open_model("fast@v1")
    assert folder.reference == f"{open_registry(url).url}/fast@v1"
    assert list_models(open_registry())[0].numbers == (1,)


def test_what_is_not_there_is_answered_with_what_is(url, model):
    registry = two_versions(url, model)
    for ref, said in (
        (f"{url}/slow@v1", "no model 'slow' in .*: it holds fast"),
        (f"{url}/slow@champion", "no model 'slow' in .*: it holds fast"),
        (f"{url}/fast@v7", "has no v7 in .*: it has v1, v2"),
        (f"{url}/fast@champion", "has no champion in .*v1, v2.*covseg models promote .*fast@v2 champion"),
    ):
        with pytest.raises(ModelRefused, match=said):
            open_model(ref)
    with pytest.raises(ModelRefused, match="no model 'slow'"):
        show(registry, "slow")


def test_a_run_is_told_a_version_so_that_a_promotion_does_not_split_its_workers(url, model, monkeypatch):
    two_versions(url, model)
    monkeypatch.setenv("COVSEG_REGISTRY", url)
    promote("fast@v1", "champion", "ann")
    from workers.scoring import absolute

    settings = absolute(ScoreSettings(source="images", dest="out", model="fast@champion"))
    promote("fast@v2", "champion", "ann")
    monkeypatch.delenv("COVSEG_REGISTRY")
    assert open_model(settings.model).config.id == "small-0"
    assert absolute(ScoreSettings(source="images", dest="out", model="models/x")).model == str(
        Path("models/x").absolute()
    )
    assert absolute(ScoreSettings(source="images", dest="out")).model == "default"


@ON_DISK_AND_WIRE
def test_a_model_opens_by_reference_wherever_a_model_is_wanted(url, model, tmp_path, capsys):
    push(model(), open_registry(url), "fast")
    ref = f"{url}/fast@v1"
    pixels = make_phantom(3, 128, 128).pixels
    image = (pixels / pixels.max()).astype(np.float32)
    here, there = (covseg.load_model(one, backend="torch").predict(image) for one in (str(tmp_path / "model-0"), ref))
    assert np.array_equal(here.prediction.infection, there.prediction.infection)
    write_dataset(tmp_path / "set", {"Val": 8}, size=96)
    words = ["evaluate", ref, "--data", str(tmp_path / "set"), "-o", str(tmp_path / "evaluation"), "--backend", "torch",
             "--draws", "100", "--json"]  # fmt: skip
    assert cli.run(words) == 0
    assert (tmp_path / "evaluation" / "metrics.json").is_file()
    words = ["predict", str(tmp_path / "set"), "-o", str(tmp_path / "out"), "--include", "*/images/*",
             "--no-pictures", "--model", ref, "--backend", "torch", "--max-failed", "1"]  # fmt: skip
    assert cli.run(words) == 0


def test_a_cached_copy_is_never_written_to(model, tmp_path, capsys):
    url = str(tmp_path / "registry")
    push(model(), open_registry(url), "fast")
    write_dataset(tmp_path / "set", {"Val": 12, "Test": 4}, size=96)
    data = ["--data", str(tmp_path / "set"), "--backend", "torch", "-o", str(tmp_path / "out")]
    for words in (["calibrate", f"{url}/fast@v1", *data], ["evaluate", f"{url}/fast@v1", *data, "--split", "Test"],
                  ["models", "card", f"{url}/fast@v1"]):  # fmt: skip
        assert cli.run(words) == 2
        assert "covseg models pull" in capsys.readouterr().err
    assert cli.run(["models", "pull", f"{url}/fast@v1", "-o", str(tmp_path / "mine")]) == 0
    assert cli.run(["evaluate", str(tmp_path / "mine"), *data, "--split", "Test", "--draws", "100"]) == 0
    assert (tmp_path / "mine" / "test-uses.jsonl").is_file()


def test_a_registry_in_a_folder_needs_no_bucket_packages(model, tmp_path):
    url = str(tmp_path / "registry")
    push(model(), open_registry(url), "fast")
    program = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"s3fs", "fsspec", "botocore", "aiohttp"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
from covseg.errors import UsageError
from covseg.registry import open_model
print(open_model(sys.argv[1]).config.id)
try:
    open_model("s3://bucket/registry/fast@v1")
except UsageError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, f"{url}/fast@v1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"small-0\na registry in a bucket needs \w+: pip install 'covseg\[s3\]'\n", done.stdout)


# --- the command ------------------------------------------------------------------------------------


def answer(capsys, *words):
    code = cli.run(["models", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_command_walks_a_model_from_push_to_champion(url, model, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COVSEG_REGISTRY", url)
    assert answer(capsys, "card", str(model()))[0] == 0
    code, out, _ = answer(capsys, "push", str(tmp_path / "model-0"), "fast", "--json")
    assert code == 0 and json.loads(out)["made"] and json.loads(out)["reference"].endswith("/fast@v1")
    code, out, _ = answer(capsys, "push", str(tmp_path / "model-0"), "fast")
    assert code == 0 and "has this content already" in out
    code, out, _ = answer(capsys, "promote", "fast@v1", "champion", "--note", "best on Val", "--by", "ann", "--json")
    assert code == 0 and json.loads(out)["promotion"]["note"] == "best on Val"
    code, out, _ = answer(capsys, "list", "--json")
    assert json.loads(out)["models"] == [{"name": "fast", "versions": [1], "champion": 1}]
    code, out, _ = answer(capsys, "list")
    assert code == 0 and "champion v1" in out
    code, out, _ = answer(capsys, "show", "fast")
    assert code == 0 and "best on Val" in out and "small-0" in out
    code, out, _ = answer(capsys, "show", "fast@champion")
    assert code == 0 and "# small-0" in out and "never a diagnosis" in out
    code, out, _ = answer(capsys, "show", "fast@champion", "--json")
    assert json.loads(out)["covseg.json"]["id"] == "small-0"
    code, out, _ = answer(capsys, "pull", "fast@champion", "-o", str(tmp_path / "mine"), "--json")
    assert code == 0 and open_model(tmp_path / "mine").config.id == "small-0"


def test_dry_runs_of_the_command_change_nothing(url, model, tmp_path, capsys):
    registry = open_registry(url)
    push(model(), registry, "fast")
    before = objects(url)
    assert "v2 would be made" in answer(capsys, "push", str(model(1)), "fast", "--registry", url, "--dry-run")[1]
    assert "would become champion" in answer(capsys, "promote", f"{url}/fast@v1", "champion", "--dry-run")[1]
    assert answer(capsys, "pull", f"{url}/fast@v1", "-o", str(tmp_path / "mine"), "--dry-run")[0] == 0
    assert not (tmp_path / "mine").exists()
    assert objects(url) == before


def test_the_command_answers_mistakes_with_exit_code_2(url, model, tmp_path, capsys):
    push(model(), open_registry(url), "fast")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "covseg.json").write_text("mine")
    for words, said in (
        (["pull", f"{url}/slow@v1"], "no model 'slow'"),
        (["pull", f"{url}/fast@champion"], "has no champion"),
        (["pull", f"{url}/fast@v1", "-o", str(tmp_path / "full")], "so that nothing is lost"),
        (["push", str(tmp_path / "nowhere"), "fast", "--registry", url], "no covseg.json"),
        (["push", str(tmp_path / "model-0"), "A Name", "--registry", url], "no name of a model"),
        (["show", f"{url}/slow"], "no model 'slow'"),
        (["promote", f"{url}/fast@v1", "winner"], "unknown alias 'winner': wanted candidate or champion"),
        (["list"], "COVSEG_REGISTRY"),
        (["list", "http://host/x"], "not an allowed scheme"),
    ):
        code, _, err = answer(capsys, *words)
        assert (code, said in err) == (2, True), (words, err)
    assert (tmp_path / "full" / "covseg.json").read_text() == "mine"


@pytest.mark.service
def test_a_bucket_that_is_not_there_is_an_environment_error(s3_server, capsys):
    code, _, err = answer(capsys, "list", "s3://no-such-bucket-here/models")
    assert code == 4 and "no such bucket" in err
