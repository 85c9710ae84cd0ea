"""Words of the field, one a thing: the private ones that they replaced stay away from code, documents and messages."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPLACED = {
    "film": "image (code), radiograph (prose)",
    "corridor": "pipeline",
    "door": "stage",
    "dealer": "scheduler",
    "fleet": "pool",
    "seat": "slot",
    "shelf": "examples",
    "redone": "retried",
    "killers": "poison images",
    "discreet": "redact",
    "keeper": "checkpoint callback",
    "rehearse": "preflight",
    "modelcard": "ModelConfig; a model card is card.md",
    "gatelimits": "InputFilterLimits",
}
PLURALS = {"shelves": "shelf"}
# Names on disk and in records, which stay; and words of others.
KEPT = re.compile(
    r"""["'`]films?["'`] | \bfilms_per_second\b | \b(?:val|train)_films\b
    | \bmissing_film\b | \bmask_without_film\b | \bshare_of_film\b | "film_\{ | \bfilm,\s?stratum | DICOM_?film
    | \bfilm\ base\b""",
    re.VERBOSE | re.IGNORECASE,
)
# Names of nothing: a variable is called as the thing that it holds.
VAGUE = {"told", "asked", "whose", "said", "hands"}
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/**/*.md", "infra/*.md", "infra/decisions/*.md", "infra/*.yaml")
CODE = [path for folder in ("covseg", "workers", "flows") for path in sorted((ROOT / folder).rglob("*.py"))]
PAGES = [path for ending in ("j2", "html", "js", "toml") for path in sorted((ROOT / "covseg").rglob(f"*.{ending}"))]
TEXTS = [path for pattern in DOCUMENTS for path in sorted(ROOT.glob(pattern))]


def private_words(text: str) -> list[tuple[int, str, str]]:
    """Return line, word and what it is called now, for every private word, also as a part of an identifier."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", KEPT.sub(" ", line)):
            plain = word.lower()
            singular = PLURALS.get(plain, plain if plain in REPLACED else plain.removesuffix("s"))
            if singular in REPLACED:
                found.append((number, word, REPLACED[singular]))
        found += [(number, name, REPLACED[name.lower()]) for name in re.findall(r"ModelCard|GateLimits", line)]
    return found


def vague_names(source: str) -> list[tuple[int, str]]:
    """Return line and name of every identifier that says nothing of what it holds."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [(token.start[0], token.string) for token in tokens if token.type == tokenize.NAME and token.string in VAGUE]


def test_no_private_word_has_come_back() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word}; wanted {now}"
        for path in [*CODE, *PAGES, *TEXTS]
        for line, word, now in private_words(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_names_say_what_they_hold() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}"
        for path in CODE
        for line, name in vague_names(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_the_list_sees_words_in_names_and_prose_and_leaves_what_is_on_disk() -> None:
    text = 'def open_film(films): ...\n# the third door\nModelCard\nrecord["films"], "films_per_second", indoors'
    assert [(line, word) for line, word, _ in private_words(text)] == [
        (1, "film"),
        (1, "films"),
        (2, "door"),
        (3, "ModelCard"),
    ]
    assert vague_names("told = 1  # asked\n") == [(1, "told")]
