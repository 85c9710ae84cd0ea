"""Wrong usages as people type them, each graded: A says what was found, what was wanted and what to do.

A row is the words, the exit code, and what the message has to hold of each of the three. Where the wanted thing is
itself what to give, the third names it.
"""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from covseg.synthetic.phantom import make_phantom
from covseg.synthetic.phantom.writer import write_dataset
from flows.cli import app as cli

RAW = re.compile(r"internal error|Traceback|Input should|unable to parse|validation error|pydantic|Errno|report it")
MODEL = ("no covseg.json in model folder", "wanted covseg.json and weights", "'default', 'benchmark', a model folder")
NO_RUN = ("no run.json", "wanted the DEST", "of a covseg score")
WRONG = """
predcit | 2 | "predcit" | Available commands | Did you mean "predict"
models nothing | 2 | "nothing" | Available commands | release, combine
predict | 2 | predict wants | SOURCE and OUTPUT | covseg predict images/ -o scored/
predict images | 2 | predict wants | OUTPUT | covseg predict images/ -o scored/
predict nowhere -o out | 2 | nowhere is neither | wanted an image | a folder of images
predict s3://bucket -o out | 2 | s3:// is no folder | files and folders here | use covseg score
predict empty -o out | 2 | it holds no file | wanted PNG, JPEG or DICOM | under empty
predict images -o images/out | 2 | -o images/out lies in images | would score this one's pictures | go elsewhere
predict images -o out --include '*.dcm' | 2 | no key matches --include '*.dcm' | wanted globs | such as
predict images -o out --batch three | 2 | --batch three | wanted a whole number | covseg predict --help
predict images -o out --batch 0 | 2 | --batch 0 | wanted 1 or more | covseg predict --help
predict images -o out --bacth 3 | 2 | --bacth | Did you mean --batch | covseg predict --help
predict images -o out --batch | 2 | --batch | wants a value | covseg predict --help
predict images -o out --model nowhere | 2 | MODEL
predict images -o out --model images | 2 | MODEL
predict images -o out --model fast@v9 | 2 | no registry is named | a folder or s3:// | set COVSEG_REGISTRY
predict images -o out --backend tensorflow | 2 | --backend tensorflow | wanted 'onnx', 'torch' | covseg predict --help
predict images -o out --precision int8 | 2 | --precision int8 with --backend onnx | wanted | --backend openvino
predict images -o file/out | 4 | file/out | Not a directory | check that path, or name another
predict images more -o out | 2 | 'more' | one word too many | covseg predict images/ -o scored/
predict images -o out --dicom seg,xx | 2 | --dicom 'xx' | wanted seg, sr, sc | with commas
predict images -o out --link-patient | 2 | --link-patient | DICOM objects | give it beside --dicom
predict images -o out --max-failed 2 | 2 | --max-failed 2 | wanted 1 or less | covseg predict --help
predict images -o out --config nothere.toml | 2 | nothere.toml: no such file | wanted a TOML file | --config
predict --config broken.toml | 2 | broken.toml, line 2 | no TOML | Illegal character
predict --config typo.toml | 2 | typo.toml, line 3: no setting 'bacth' | did you mean 'batch' | covseg predict --help
predict images -o out --config wrong.toml | 2 | wrong.toml, line 2: batch three | a whole number | covseg predict --help
predict --config | 2 | --config | wants a file | covseg predict --config covseg.toml
predict images -o out --input-filter maybe | 2 | --input-filter maybe | 'flag' or 'off' | covseg predict --help
score | 2 | score wants | SOURCE and DEST | covseg score s3://radiographs/2026 s3://scored/2026
score images | 2 | score wants | DEST | covseg score s3://radiographs/2026 s3://scored/2026
score nowhere dest | 2 | nowhere is no folder | wanted a folder | s3://bucket/prefix
score images images/dest | 2 | lie inside each other | listed as images | give a destination apart
score images dest --retry-refused nonsense | 2 | nonsense | wanted a reason | not_an_image, not_radiograph
score images dest --masks jpg | 2 | --masks jpg | wanted 'none', 'png' or 'packed' | covseg score --help
score images dest --limit 0 | 2 | --limit 0 | wanted 1 or more | covseg score --help
score ftp://host/x dest | 2 | ftp:// is not an allowed scheme | wanted file, s3 | or a path
score images dest --model nowhere | 2 | MODEL
publish nowhere | 2 | NO_RUN
verify nowhere | 2 | has no run.json | wanted the DEST | of a covseg score
gc nowhere | 2 | NO_RUN
gc images --older-than-hours -1 | 2 | --older-than-hours -1 | wanted 0 or more | covseg gc --help
diff images | 2 | diff wants | AFTER | covseg diff scored/before scored/after
diff nowhere images | 2 | nowhere has no severity.parquet | wanted the -o of covseg predict | or the DEST
serve nowhere | 2 | NO_RUN
serve images --port 99999 | 2 | --port 99999 | wanted 65535 or less | covseg serve --help
phantom -3 drawn | 2 | --count -3 | wanted 1 or more | covseg phantom --help
phantom ten drawn | 2 | --count ten | wanted a whole number | covseg phantom --help
phantom 3 | 2 | phantom wants | OUTPUT | covseg phantom 24 phantoms/
phantom 3 drawn --layout covid-qu-ex --bad | 2 | --layout covid-qu-ex | square 8-bit PNG only | drop --bad
phantom 3 drawn --size 32 | 2 | --size 32 | wanted 64 or more | covseg phantom --help
evaluate | 2 | evaluate wants | DATA | covseg evaluate default --data
evaluate default --data nowhere | 2 | nowhere: no such folder | wanted one with Train | or labels.csv
evaluate default --data images | 2 | no labelled set under images | wanted the folders | masks/ and labels.csv
evaluate default --data set --split Test | 2 | no split 'Test' | it has Train, Val | with --split
evaluate default --data set --strata Flu | 2 | stratum flu | has no image in split Val | it has COVID-19
evaluate default --data set --shifts blurr | 2 | no shift 'blurr' | wanted all, or some of | did you mean 'blur2'
evaluate nowhere --data set | 2 | MODEL
calibrate nowhere --data set | 2 | MODEL
calibrate default --data set --split Test | 2 | no split 'Test' | it has Train, Val | with --split
calibrate default --data set --specificity 2 | 2 | --specificity 2 | wanted 1 or less | covseg calibrate --help
compare images | 2 | compare wants | at least two folders | that covseg evaluate has written
compare nowhere images | 2 | no metrics.json in nowhere | wanted a folder | covseg evaluate MODEL
models list --registry nowhere | 2 | nowhere is no folder | wanted a registry | covseg models push makes one
models list | 2 | no registry is named | a folder or s3:// | set COVSEG_REGISTRY
models show registry/fast@newest | 2 | has an unknown tag | with a tag v1, v2 | candidate or champion
models pull registry/fast@v1 | 2 | no model 'fast' in | it holds none | covseg models push makes one
models push images name --registry registry | 2 | MODEL
models push default 'bad name' --registry registry | 2 | 'bad name' is no name | wanted up to 63 | letter or digit
recipes nosuch | 2 | no recipe 'nosuch' | wanted one of accurate | or a TOML file
train nosuch --data set -o run | 2 | no recipe 'nosuch' | wanted one of accurate | or a TOML file
train fast --data set | 2 | train wants | OUT | covseg train fast --data
train fast --data set -o run --set optimiser.lrr=1 | 2 | unknown key optimiser.lrr | did you mean 'lr' | recipe fast
train fast --data set -o run --set optimiser.lr=fast | 2 | recipe fast | optimiser.lr | wanted a number
train fast --data set -o run --set optimiser | 2 | --set optimiser | wanted key=value | such as --set
train fast --data set -o run --resume | 2 | holds no run | wanted one with last.pt | leave --resume out
data check nowhere | 2 | nowhere: no such folder | wanted one with Train | or labels.csv
data check bare | 2 | no labels.csv | wanted the line film,stratum,split | covseg data labels bare
demo -o images | 2 | images is there and no demo made it | name another folder | covseg demo -o FOLDER
version --jsno | 2 | --jsno | --json | covseg version --help
"""


def parsed() -> list[tuple[str, int, tuple[str, ...]]]:
    rows = []
    for line in WRONG.strip().splitlines():
        words, code, *said = (cell.strip() for cell in line.split(" | "))
        named = {"MODEL": MODEL, "NO_RUN": NO_RUN}.get(said[0], tuple(said))
        assert len(named) == 3, line
        rows.append((words, int(code), named))
    return rows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("wrong")
    for name in ("images", "empty", "registry", "bare/images", "bare/masks"):
        (root / name).mkdir(parents=True)
    cv2.imwrite(str(root / "images/one.png"), (make_phantom(3, 128, 128).pixels // 16).astype(np.uint8))
    for name in ("images", "masks"):
        shutil.copy(root / "images/one.png", root / "bare" / name / "one.png")
    (root / "file").write_text("x")
    write_dataset(root / "set", {"Train": 6, "Val": 6}, size=96)
    (root / "broken.toml").write_text('[predict]\nsource = "a\n')
    (root / "typo.toml").write_text("[predict]\n\nbacth = 2\n")
    (root / "wrong.toml").write_text('[predict]\nbatch = "three"\n')
    return root


@pytest.mark.parametrize(
    ("words", "code", "wanted"), parsed(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_wrong_usage_says_what_was_found_what_was_wanted_and_what_to_do(
    words: str,
    code: int,
    wanted: tuple[str, ...],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.delenv("COVSEG_REGISTRY", raising=False)
    assert cli.run(shlex.split(words)) == code
    said = capsys.readouterr()
    lines = [line for line in said.err.splitlines() if line.startswith("covseg: ")]
    assert len(lines) == 1, said.err
    assert [words for words in wanted if words not in lines[0]] == [], lines[0]
    assert not RAW.search(said.err + said.out)
    assert not {"out", "dest", "drawn", "run", "model"} & {path.name for path in place.iterdir()}


def test_the_list_is_long_enough() -> None:
    assert len(parsed()) >= 60
