"""How every HTML page of ours is made: one file, offline, autoescaped, under a content security policy.

The policy allows the page's own style and script, by their digests, and ``data:`` images; nothing outside the
file has an address.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from covseg.pages.formats import FILTERS


def render_page(package: str, template: str, style: str = "page.css", script: str = "", **content: Any) -> bytes:
    """Fill a template with content, autoescaped, and with its style, its script (none without a name) and their policy.

    All three are file names; what is not in the package's ``templates`` is taken from those of ``covseg.pages``.
    """
    loader = ChoiceLoader([PackageLoader(package), PackageLoader("covseg.pages")])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= FILTERS
    parts = {"style": style, "script": script}
    texts = {part: loader.get_source(environment, name)[0] for part, name in parts.items() if name}
    ours = {part: Markup(text) for part, text in texts.items()}  # noqa: S704 - our own files
    return environment.get_template(template).render(policy=_policy(texts), **ours, **content).encode()


def _policy(texts: dict[str, str]) -> str:
    """Return the content security policy: this style, this script, images inside the page, nothing else."""
    digests = {part: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for part, text in texts.items()}
    own = "".join(f"{part}-src 'sha256-{digest}'; " for part, digest in digests.items())
    return f"default-src 'none'; {own}img-src data:; base-uri 'none'; form-action 'none'"
