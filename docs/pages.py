"""Pages that the site takes from elsewhere: the API reference, the runbook, the decision records, the root's files.

A hook of MkDocs. The reference has one page a room of the code, made from the docstrings; nothing is imported for it.
Links are written as they work in the repository, and turned here into the site's.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
TAKEN = (
    "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "covseg/models/*/card.md",
    "infra/README.md", "infra/decisions/*.md", "infra/pictures/*.png",
)  # fmt: skip
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")


def rooms() -> dict[str, list[str]]:
    """Return the public modules of each room: a package and what lies directly in it, covseg's packages one by one."""
    modules: dict[str, list[str]] = {}
    for path in sorted(file for top in ("covseg", "workers", "flows") for file in (ROOT / top).rglob("*.py")):
        parts = [part for part in path.relative_to(ROOT).with_suffix("").parts if part != "__init__"]
        depth = 2 if len(parts) > 1 and (ROOT / parts[0] / parts[1]).is_dir() else 1
        modules.setdefault(".".join(parts[:depth]), []).append(".".join(parts))
    return modules


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Append the decisions and the reference to the navigation."""
    decisions = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "infra/decisions").glob("*.md"))
    reference = [{room: f"reference/{room}.md"} for room in rooms()]
    config.nav = [*(config.nav or []), {"Decisions": decisions}, {"API reference": reference}]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    for room, modules in rooms().items():
        text = "\n\n".join([f"# {room}", *(f"::: {module}" for module in modules)])
        files.append(File.generated(config, f"reference/{room}.md", content=text))
    for pattern in TAKEN:
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turn the repository's links into the site's, where docs/ is the root."""
    uri = page.file.src_uri
    folder = posixpath.dirname(uri if ROOT.joinpath(uri).exists() else f"docs/{uri}")

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[0]))
        return posixpath.relpath(target.removeprefix("docs/"), posixpath.dirname(uri) or ".")

    return LINK.sub(moved, markdown)
