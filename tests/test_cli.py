"""The command as a person meets it: exit codes, messages, help."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from covseg.settings.environment import code_version
from covseg.synthetic.phantom import make_phantom
from flows.cli import app as cli

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str) -> tuple[int, str, str]:
    """Run the command in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "flows.cli", *words], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def here(*words: str) -> int:
    """Run the command in this process."""
    return cli.run(list(words))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "images" / "one.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), (make_phantom(3, 256, 256).pixels // 16).astype(np.uint8))
    return path


def test_help_imports_nothing_heavy():
    commands = [[], *([name] for name in cli.COMMANDS)]
    asked = f"[cli.run([*words, '--help']) for words in {commands}]"
    code = f"import sys; from flows.cli import app as cli; {asked}; print(sorted(sys.modules))"
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for module in ("torch", "numpy", "cv2", "onnxruntime", "prefect", "ray", "optuna", "pyarrow"):
        assert f"'{module}'" not in listed


def test_a_typo_is_answered_with_the_right_word():
    code, _, said = run("predcit")
    assert code == 2
    assert 'Did you mean "predict"?' in said
    code, _, said = run("predict", "a", "-o", "b", "--bacth", "3")
    assert code == 2
    assert "--batch" in said
    assert "Traceback" not in said


def test_a_missing_source_is_a_usage_error(tmp_path, capsys):
    assert here("predict", str(tmp_path / "nowhere"), "-o", str(tmp_path / "out")) == 2
    said = capsys.readouterr().err
    assert "nowhere" in said
    assert "wanted" in said


def test_an_unknown_model_is_a_usage_error(image, tmp_path, capsys):
    assert here("predict", str(image), "-o", str(tmp_path / "out"), "--model", str(tmp_path)) == 2
    assert "covseg.json" in capsys.readouterr().err


def test_a_destination_that_cannot_be_written_is_an_environment_error(image, tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert here("predict", str(image), "-o", str(blocked / "out")) == 4
    assert str(blocked) in capsys.readouterr().err


def test_one_image_gives_mask_row_table_and_report(image, tmp_path, capsys):
    out = tmp_path / "out"
    assert here("predict", str(image), "-o", str(out), "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["scored"] == 1
    assert {path.name for path in out.iterdir()} == {
        "masks",
        "overlays",
        "rows",
        "severity.csv",
        "severity.parquet",
        "report.html",
    }


def test_a_dry_run_writes_nothing(image, tmp_path, capsys):
    out = tmp_path / "out"
    assert here("predict", str(image.parent), "-o", str(out), "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"] == 1
    assert not out.exists()


def test_a_toml_file_speaks_like_flags_and_flags_win(image, tmp_path, capsys):
    config = tmp_path / "covseg.toml"
    config.write_text(
        f'[predict]\nsource = "{image.parent}"\noutput = "{tmp_path / "out"}"\ninclude = "none*"\ndry_run = true\n'
    )
    assert here("predict", "--config", str(config)) == 2
    assert "nothing to score" in capsys.readouterr().err
    assert here("predict", "--config", str(config), "--include", "*", "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"] == 1


def test_an_unknown_key_in_the_toml_file_is_named(image, tmp_path):
    config = tmp_path / "covseg.toml"
    config.write_text(f'[predict]\nsource = "{image.parent}"\noutput = "out"\nbacth = 2\n')
    code, _, said = run("predict", "--config", str(config))
    assert code == 2
    assert "bacth" in said


def test_includes_and_excludes_choose_keys(image, tmp_path, capsys):
    (image.parent / "two.png").write_bytes(image.read_bytes())
    for words, count in ((("--include", "t*"), 1), (("--exclude", "t*"), 1), ((), 2)):
        assert here("predict", str(image.parent), "-o", str(tmp_path / "out"), "--dry-run", "--json", *words) == 0
        assert json.loads(capsys.readouterr().out)["images"] == count


def test_the_core_scores_an_image_with_nothing_but_its_own_packages(image, tmp_path):
    """Every distribution outside the core lock is made unimportable, then an image is scored."""
    code = f"""
import importlib.metadata as metadata, re, sys
core = set(re.findall(r"^([a-z0-9._-]+)==", open({str(ROOT / "infra/locks/core.txt")!r}).read(), re.M)) | {{"covseg"}}
plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()
homes = metadata.packages_distributions()
foreign = {{module for module, owners in homes.items() if not any(plain(owner) in core for owner in owners)}}
assert {{"ray", "prefect", "optuna", "albumentations", "s3fs"}} <= foreign, foreign
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in foreign:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
from flows.cli import app as cli
cli.run(["predict", {str(image)!r}, "-o", {str(tmp_path / "core")!r}, "--json"])
"""
    environment = {**os.environ, "COVSEG_PROJECT_KEY": "a key for one test"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scored"] == 1


def test_verifying_what_is_no_destination_is_a_usage_error(tmp_path, capsys):
    assert here("verify", str(tmp_path / "nowhere")) == 2
    assert "run.json" in capsys.readouterr().err


def test_writing_into_the_folder_of_images_is_refused(image, capsys):
    assert here("predict", str(image.parent), "-o", str(image.parent / "out")) == 2
    assert "lies in" in capsys.readouterr().err
    assert [path.name for path in image.parent.iterdir()] == [image.name]


def test_a_bucket_and_an_empty_folder_are_told_apart_from_a_glob_that_matches_nothing(image, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for words, said in (
        (["s3://images"], "use covseg score"),
        ([str(tmp_path / "empty")], "holds no file"),
        ([str(image.parent), "--include", "*.dcm"], "no key matches --include '*.dcm'"),
    ):
        assert here("predict", *words, "-o", str(tmp_path / "out")) == 2
        assert said in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_the_environments_fault(image, capsys):
    assert here("predict", str(image), "-o", "/proc/nowhere") == 4
    assert "/proc/nowhere" in capsys.readouterr().err


def test_a_folder_with_nothing_that_can_be_scored_is_not_accepted(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one.png").write_text("no picture")
    assert here("predict", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--json") == 3
    answer, said = capsys.readouterr()
    assert json.loads(answer)["accepted"] is False
    assert "not accepted: no image was scored; " in said and "severity.csv says why" in said


def test_too_many_images_out_of_scope_are_not_accepted_where_a_limit_is_given(image, tmp_path, capsys):
    (image.parent / "two.png").write_text("no picture")
    words = ["predict", str(image.parent), "-o", str(tmp_path / "out")]
    assert here(*words, "--max-out-of-scope", "0.5") == 0
    assert here(*words, "--max-out-of-scope", "0.4") == 3
    assert "1 images out of scope, 50.0% of all; --max-out-of-scope allows 40.0%" in capsys.readouterr().err


def test_an_unreadable_file_is_one_refused_row(image, tmp_path, monkeypatch, capsys):
    (image.parent / "two.png").write_bytes(image.read_bytes())
    opened = Path.open

    def closed(path, *words, **options):
        if path.name == "two.png":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *words, **options)

    monkeypatch.setattr(Path, "open", closed)
    assert here("predict", str(image.parent), "-o", str(tmp_path / "out"), "--json") == 3
    answer = json.loads(capsys.readouterr().out)
    assert (answer["scored"], answer["quarantined"], answer["reasons"]) == (1, 1, {"access_denied": 1})


def test_files_of_an_earlier_run_are_told(image, tmp_path, capsys):
    assert here("predict", str(image.parent), "-o", str(tmp_path / "out")) == 0
    assert "earlier run" not in capsys.readouterr().err
    image.rename(image.with_name("two.png"))
    assert here("predict", str(image.parent), "-o", str(tmp_path / "out")) == 0
    assert "3 files" in capsys.readouterr().err


def test_decoders_keep_quiet_about_damaged_images_unless_debug_is_on(tmp_path):
    from covseg.synthetic.bad_inputs import bad_inputs
    from tests.test_dicom_twins import TWELVE_BIT_JPEG

    images = {name: data for name, (data, _) in bad_inputs().items()} | {
        "twelve_bits.jpg": TWELVE_BIT_JPEG,
        "broken_scan.jpg": TWELVE_BIT_JPEG.replace(b"\xff\xda", b"\xff\xda\0\0", 1),
    }
    (tmp_path / "in").mkdir()
    for name, data in images.items():
        (tmp_path / "in" / name).write_bytes(data)
    words = ["predict", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--max-failed", "0"]
    code, _, told = run(*words)
    assert code == 3
    assert [line for line in told.splitlines() if not line.startswith("covseg: ")] == []
    assert "covseg: not accepted" in told
    assert "libpng error: Not enough image data" in run(*words, "--debug")[2]


def test_a_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m flows.cli recipes unetpp-effb3 | head -1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("unetpp-effb3")


def test_fewer_workers_than_the_least_are_refused(tmp_path, capsys):
    words = ["train", "fast", "--out", str(tmp_path / "run"), "--data", str(tmp_path), "--workers", "2"]
    assert cli.run([*words, "--least-workers", "4"]) == 2
    assert "--least-workers 4 is more than --workers 2" in capsys.readouterr().err


def test_a_dry_run_of_training_finds_missing_data_and_weights(tmp_path, capsys):
    pytest.importorskip("albumentations", reason="the train extra is not installed")
    from covseg.synthetic.phantom.writer import write_dataset

    write_dataset(tmp_path / "set", {"Train": 8, "Val": 8}, size=64)
    words = ["train", "fast", "--out", str(tmp_path / "run"), "--dry-run", "--data"]
    assert here(*words, str(tmp_path / "set")) == 0
    assert here(*words, str(tmp_path / "nowhere")) == 2
    assert here(*words, str(tmp_path / "set"), "--set", "network.weights=gone.pth") == 2
    assert "gone.pth cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_version_is_the_same_however_it_is_asked_for(capsys):
    answers = set()
    for words in (("--version",), ("version",)):
        assert here(*words) == 0
        answers.add(capsys.readouterr().out)
    assert answers == {f"{code_version()}\n"}


@pytest.mark.parametrize(("module", "extra"), [("ray.train", "ray"), ("albumentations", "train"), ("s3fs", "s3")])
def test_a_missing_extra_is_named_with_the_way_to_get_it(module, extra, monkeypatch, image, tmp_path, capsys):
    def stop(*_):
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr("flows.cli.predict._choose", stop)
    assert here("predict", str(image), "-o", str(tmp_path / "out")) == 2
    assert f"pip install 'covseg[{extra}]'" in capsys.readouterr().err


def test_a_missing_module_of_our_own_is_an_internal_error(monkeypatch, image, tmp_path, capsys):
    def stop(*_):
        raise ModuleNotFoundError("No module named 'covseg.gone'", name="covseg.gone")

    monkeypatch.setattr("flows.cli.predict._choose", stop)
    assert here("predict", str(image), "-o", str(tmp_path / "out")) == 1
    assert "internal error" in capsys.readouterr().err


def test_a_registry_that_is_not_there_is_a_usage_error_and_an_empty_one_is_not(tmp_path, capsys):
    assert here("models", "list", "--registry", str(tmp_path / "missing")) == 2
    assert "missing is no folder" in capsys.readouterr().err
    for words in (["show", "fast"], ["pull", "fast@v1"], ["promote", "fast@v1", "champion"]):
        words[1] = f"{tmp_path / 'missing'}/{words[1]}"
        assert here("models", *words) == 2
    assert here("models", "list", "--registry", str(tmp_path)) == 0
    assert capsys.readouterr().out.startswith("0 models")


def test_pulling_a_model_loads_no_model(tmp_path):
    code = (
        "import sys; from flows.cli import app as cli; "
        f"cli.run(['models', 'pull', {str(tmp_path)!r} + '/fast@v1']); print(sorted(sys.modules))"
    )
    listed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for module in ("torch", "onnxruntime"):
        assert f"'{module}'" not in listed
