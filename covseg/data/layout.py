"""Find the images of a split in the layouts we know.

COVID-QU-Ex (Kaggle): ``{Train,Val,Test}/{COVID-19,Non-COVID,Normal}/{images,infection masks,lung masks}``.
Generic: ``images/ + masks/ (+ lung masks/) + labels.csv`` with columns ``film``, ``stratum`` and,
if the set is split, ``split``. Folder names are read without regard to case; what they say about
pairing is checked. Nothing is decoded here.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

from covseg.data.images import IMAGE_SUFFIXES, STRATA, Excluded, LabelledImage, LabelledSet
from covseg.errors import SetRefused, SplitAbsent, UsageError

SPLITS = ("Train", "Val", "Test")
LABELS = "labels.csv"
IMAGES, INFECTION, LUNG = "images", "infection masks", "lung masks"
_SPELLINGS = {LUNG: (LUNG, "lung_masks", "lungs"), "masks": ("masks", "infection masks", "infection_masks")}


def open_set(root: Path, split: str = "Val", *, want_infection: bool = True) -> LabelledSet:
    """List one split of a labelled set, whichever layout it has.

    Parameters
    ----------
    root : Path
        The folder that holds ``Train`` / ``Val`` / ``Test``, or ``labels.csv``.
    split : str
        Name of a split, in any case; ``all`` for a set without splits.
    want_infection : bool
        False lists images that have a lung mask only (the lung part of COVID-QU-Ex).

    Raises
    ------
    UsageError
        When the layout is unknown, the split does not exist, or a folder is there twice.
    """
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"--data {root}: no such folder; wanted one with Train, Val, Test or {LABELS}")
    if (root / LABELS).is_file():
        return _open_generic(root, split)
    return _open_kaggle(root, split, want_infection)


def _open_kaggle(root: Path, split: str, want_infection: bool) -> LabelledSet:
    folder = _child(root, split)
    if folder is None:
        raise _no_split(root, split)
    images: list[LabelledImage] = []
    excluded: list[Excluded] = []
    for stratum in STRATA:
        place = _child(folder, stratum)
        if place is not None:
            _list_stratum(root, place, stratum, want_infection, images, excluded)
    if not images and not excluded:
        raise UsageError(f"no image under {folder}: wanted {STRATA[0]}/{IMAGES}/*.png and so on")
    return LabelledSet(root, "covid-qu-ex", folder.name, tuple(images), tuple(excluded))


def _no_split(root: Path, split: str) -> UsageError:
    """Say which splits are there, and where the set lies if the archive was unpacked one level deeper."""
    here = [name for name in SPLITS if _child(root, name)]
    if here:
        return SplitAbsent(f"no split {split!r} under {root}: it has {', '.join(here)}; name one of these with --split")
    for deeper in sorted(path for depth in ("*", "*/*") for path in root.glob(depth) if path.is_dir()):
        if any(_child(deeper, name) for name in SPLITS):
            return SplitAbsent(f"no split under {root}, but there is one under {deeper}: pass --data {str(deeper)!r}")
    if paired := list(pairs_of(root)):
        return UsageError(
            f"{root} has images/ and masks/ but no {LABELS}: wanted the line film,stratum,split and a line an image, "
            f"such as {paired[0]},COVID-19,Train; covseg data labels {root} writes one to look over"
        )
    return UsageError(
        f"no labelled set under {root}: wanted the folders Train, Val or Test, or images/, masks/ and {LABELS}; "
        "to evaluate beside readers' scores images/ and scores.csv"
    )


def _child(folder: Path, *names: str) -> Path | None:
    """Find a sub-folder by name, in any case; UsageError when two differ only in case."""
    wanted = {name.casefold() for name in names}
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and path.name.casefold() in wanted)
    if len(folders) > 1:
        raise UsageError(f"{folder} holds {' and '.join(path.name for path in folders)}: one folder twice; remove one")
    return folders[0] if folders else None


def _list_stratum(
    root: Path, place: Path, stratum: str, want_infection: bool, images: list[LabelledImage], excluded: list[Excluded]
) -> None:
    """List one class folder, pairing by stem."""
    folders = {name: _child(place, name) for name in (IMAGES, INFECTION, LUNG)}
    wanted = [IMAGES, LUNG] + [INFECTION] * want_infection
    if absent := [name for name in wanted if folders[name] is None]:
        raise UsageError(f"{place} has no folder {', '.join(absent)}: wanted {', '.join(wanted)}")
    stems = {name: _stems(folder) if folder else {} for name, folder in folders.items()}
    for stem, image in sorted(stems[IMAGES].items()):
        key = image.relative_to(root).as_posix()
        keys = {
            name: stems[name][stem].relative_to(root).as_posix() for name in (INFECTION, LUNG) if stem in stems[name]
        }
        missing = [name for name in wanted[1:] if name not in keys]
        if missing:
            reason = f"missing_{missing[0].replace(' ', '_').removesuffix('s')}"
            excluded.append(Excluded(key, reason, f"{key}: no file {stem}.* in {place.name}/{missing[0]}"))
        else:
            images.append(LabelledImage(key, stratum, keys.get(INFECTION), keys.get(LUNG)))
    for name in wanted[1:]:
        for stem in sorted(stems[name].keys() - stems[IMAGES].keys()):
            orphan = stems[name][stem].relative_to(root).as_posix()
            excluded.append(Excluded(orphan, "mask_without_film", f"{orphan}: no image of that name in {IMAGES}"))


def _stems(folder: Path) -> dict[str, Path]:
    """Map stems to files; UsageError when two files share a stem."""
    stems: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        if path.stem in stems:
            raise SetRefused(f"{stems[path.stem]} and {path.name} share a stem: whose is the mask?")
        stems[path.stem] = path
    return stems


def _open_generic(root: Path, split: str) -> LabelledSet:
    folder, masks = _child(root, IMAGES), _child(root, *_SPELLINGS["masks"])
    lungs = _child(root, *_SPELLINGS[LUNG])
    if folder is None or masks is None:
        raise UsageError(f"{root} has {LABELS} but not both images/ and masks/ (lung masks/ may be absent)")
    rows = _read_labels(root / LABELS, split)
    stems = {"film": _stems(folder), "infection": _stems(masks), "lung": _stems(lungs) if lungs else {}}
    kinds = ("film", "infection", "lung") if lungs else ("film", "infection")
    images, excluded = [], []
    for name, stratum in sorted(rows.items(), key=lambda item: (item[1], item[0])):
        paths = {kind: files.get(Path(name).stem) for kind, files in stems.items()}
        lacking = [kind for kind in kinds if not paths[kind]]
        keys = {kind: path.relative_to(root).as_posix() if path else None for kind, path in paths.items()}
        if lacking:
            reason = "missing_film" if lacking[0] == "film" else f"missing_{lacking[0]}_mask"
            excluded.append(Excluded(name, reason, f"{name}: listed in {LABELS}, no {lacking[0]} file of that name"))
        else:
            images.append(LabelledImage(str(keys["film"]), stratum, keys["infection"], keys["lung"]))
    strata = tuple(dict.fromkeys([*(name for name in STRATA if name in rows.values()), *sorted(set(rows.values()))]))
    images.sort(key=lambda image: (strata.index(image.stratum), image.key))
    return LabelledSet(root, "generic", split, tuple(images), tuple(excluded), strata, binary_values=(255, 1))


def pairs_of(root: Path) -> dict[str, Path]:
    """Return the name of every image of images/ and its mask in masks/; nothing where a folder is not there."""
    folder, masks = (_child(root, *names) for names in ((IMAGES,), _SPELLINGS["masks"]))
    if folder is None or masks is None:
        return {}
    drawn = _stems(masks)
    return {path.name: drawn[stem] for stem, path in _stems(folder).items() if stem in drawn}


def _read_labels(path: Path, split: str) -> dict[str, str]:
    """Return image name to stratum for one split; strata of COVID-QU-Ex are spelt its way."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = set(reader.fieldnames or ())
        rows = list(reader)
    if not {"film", "stratum"} <= columns:
        raise UsageError(f"{path} has columns {', '.join(sorted(columns))}: wanted film, stratum and maybe split")
    for line, row in enumerate(rows, 2):
        if None in row.values() or None in row:
            raise SetRefused(f"{path}, line {line}: wanted {len(columns)} cells, one for each column")
    if "split" in columns:
        there = {row["split"].casefold() for row in rows}
        if split.casefold() not in there:
            raise SplitAbsent(f"no split {split!r} in {path}: it has {', '.join(sorted(there))}")
        rows = [row for row in rows if row["split"].casefold() == split.casefold()]
    elif split.casefold() != "all":
        raise SplitAbsent(f"{path} has no column split: pass --split all, or add the column")
    if not rows:
        raise UsageError(f"{path} lists no image")
    if twice := [image for image, count in Counter(row["film"] for row in rows).items() if count > 1]:
        raise SetRefused(f"{path} lists {twice[0]} twice ({len(twice)} such): which stratum is it? Keep one line each")
    official = {name.casefold(): name for name in STRATA}
    return {row["film"]: official.get(row["stratum"].casefold(), row["stratum"]) for row in rows}
