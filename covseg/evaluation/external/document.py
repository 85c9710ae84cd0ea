"""``external.json`` and ``scores.parquet``: how they are made, written and read back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from covseg.data.scores import MAJORITY, PRESENT, ScoreSet, scale_of
from covseg.errors import UsageError
from covseg.evaluation.document import CONVENTIONS, FEW, model_facts
from covseg.evaluation.external.agreement import compare
from covseg.evaluation.external.answers import Answers, raters, table
from covseg.evaluation.external.records import ExternalEvaluation, ScoreFacts, SetFacts
from covseg.metrics.intervals import LEVEL
from covseg.records import RESEARCH_ONLY
from covseg.settings.faults import first_fault
from covseg.settings.score import ScoringConfig
from covseg.storage import LocalStore
from covseg.table import to_parquet

EXTERNAL, SCORES_TABLE, PAGE = "external.json", "scores.parquet", "external.html"
LIMITS = (
    "A score is one person's opinion: agreement far above that between readers is agreement with one person.",
    "A mask gives projected extent only: no density, no type of opacity, no clinical severity.",
    "A correlation says nothing of the size of errors, and a few severe images can make it.",
    "An image that also stands in the model's training data proves nothing.",
)  # fmt: skip


def document(
    scores: ScoreSet, answers: Answers, config: ScoringConfig, draws: int, seed: int = 0
) -> ExternalEvaluation:
    """Return the content of ``external.json``."""
    data = _data(scores, answers)
    facts = tuple(_facts(scores, score) for score in scores.scores)
    return ExternalEvaluation(
        intended_use=RESEARCH_ONLY,
        model=model_facts(config),
        data=data,
        scores=facts,
        conventions=_conventions(draws),
        limits=LIMITS,
        lines=tuple(compare(scores, answers, draws, seed)),
        warnings=(*_lost(scores, answers, data), *_warnings(scores, data, facts)),
    )


def _conventions(draws: int) -> dict[str, str]:
    return {
        "refused": "an image that the pipeline refused has no number: it is in no correlation or difference and no "
        "AUROC, and is wrong in sensitivity and specificity",
        "no_lung": "where no lung was found there is no fraction and no extent, never 0",
        "mean": "of the readers who scored the image; of present their majority, a tie is left out",
        "between_readers": "on images that both scored and covseg answered, so that the rows can be laid side by side",
        "bias": "of a row A - B it is A minus B; limits of agreement are bias +- 1.96 standard deviations (Bland and "
        "Altman 1986)",
        "image_level": CONVENTIONS["image_level"],
        "interval": f"{LEVEL:.0%} percentile bootstrap over images inside strata, {draws} draws; images of one "
        "patient count as independent",
    }  # fmt: skip


def _data(scores: ScoreSet, answers: Answers) -> SetFacts:
    images = scores.images
    kept = {image.key for image in images.images}
    read = {reader: {key for _, who, key in scores.cells if who == reader} & kept for reader in scores.readers}
    return SetFacts(
        name=images.root.resolve().name, digest=images.digest, scores_sha256=scores.sha256, images=len(images.images),
        counts=images.counts, readers={reader: len(keys) for reader, keys in read.items()},
        refused=answers.refusals([image.stratum for image in images.images]), no_lung=int(answers.no_lung.sum()),
    )  # fmt: skip


def _facts(scores: ScoreSet, score: str) -> ScoreFacts:
    scale = scale_of(score)
    cells = {reader: int((~np.isnan(scores.values(score, reader))).sum()) for reader in scores.readers}
    return ScoreFacts(name=score, words=scale.words, ours=scale.ours, same_units=scale.same_units, cells=cells)


def _lost(scores: ScoreSet, answers: Answers, data: SetFacts) -> Iterator[str]:
    """Yield what became of images that have no number, or a number of 0 where readers saw something."""
    if refused := data.refused_count:
        reasons = Counter(reason for reason in answers.reasons if reason)
        named = ", ".join(f"{name} {count}" for name, count in sorted(reasons.items()))
        yield f"{refused} of {data.images} images were refused and have no number: {named}"
    if data.no_lung:
        yield f"no lung was found in {data.no_lung} images: they have no fraction and no extent"
    for score in scores.scores:
        if scale_of(score).same_units and (read := raters(scores, score)):
            seen = list(read.values())[-1] > 0
            empty = seen & (answers.columns[scale_of(score).ours[0]] == 0)
            if empty.any():
                counts = f"{empty.sum()} of {seen.sum()} images"
                yield f"{score}: covseg marks nothing in {counts} that readers score above 0"


def _warnings(scores: ScoreSet, data: SetFacts, facts: tuple[ScoreFacts, ...]) -> list[str]:
    """Return what else a reader must know before quoting a number."""
    warnings = []
    if partial := [f"{reader} {count}" for reader, count in data.readers.items() if count < data.images]:
        warnings.append(f"not everybody scored all {data.images} images: {', '.join(partial)}")
    for score in facts:
        blank = {reader: data.readers[reader] - count for reader, count in score.cells.items()}
        if empty := [f"{reader} {count}" for reader, count in blank.items() if count]:
            warnings.append(f"{score.name}: cells left empty, by reader: {', '.join(empty)}")
    if ties := _ties(scores):
        warnings.append(f"{PRESENT}: readers are tied on {ties} images, which are left out of the majority")
    if small := [name for name, count in {"all": data.images, **data.counts}.items() if 0 < count < FEW]:
        warnings.append(f"fewer than {FEW} images in {', '.join(small)}: intervals are rough")
    return warnings


def _ties(scores: ScoreSet) -> int:
    read = raters(scores, PRESENT) if PRESENT in scores.scores else {}
    majority = read.pop(MAJORITY, None)
    if majority is None:
        return 0
    return int((np.isnan(majority) & ~np.isnan(np.stack(list(read.values()))).all(axis=0)).sum())


def write(folder: Path, evaluation: ExternalEvaluation, scores: ScoreSet, answers: Answers, page: bytes) -> None:
    """Write the three files."""
    store = LocalStore(folder)
    store.write(SCORES_TABLE, to_parquet(table(scores, answers)))
    store.write(PAGE, page)
    store.write(EXTERNAL, json.dumps(evaluation.model_dump(mode="json"), indent=1, allow_nan=False).encode())


def read_external(folder: Path) -> ExternalEvaluation:
    """Read ``external.json``.

    Raises
    ------
    UsageError
        When the folder holds none, or one that this version does not write.
    """
    path, again = folder / EXTERNAL, f"covseg evaluate MODEL --data ROOT -o {folder}"
    if not path.is_file():
        raise UsageError(f"no {EXTERNAL} in {folder}: wanted a folder that {again} has written, ROOT with scores.csv")
    try:
        return ExternalEvaluation.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise UsageError(f"{path}: {first_fault(error)}; run {again} again") from error
