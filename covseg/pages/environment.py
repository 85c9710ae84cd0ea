"""How every HTML page of ours is made: one file, offline, autoescaped, under a content security policy.

The policy allows the page's own style and script, by their digests, and ``data:`` images; nothing outside the
file has an address.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from covseg.pages.formats import FILTERS


def render_page(
    package: str, template: str, styles: Sequence[str] = ("page.css",), scripts: Sequence[str] = (), **content: Any
) -> bytes:
    """Fill a template with content, autoescaped, and with its style, its script and their policy.

    Parameters
    ----------
    package, template : str
        Where the files are, and which is filled; what is not in the package's ``templates`` is taken from those of
        ``covseg.pages``.
    styles, scripts : sequence of str
        File names. They are put one after the other; the scripts become the body of one function, so that they share
        their names with each other and with nothing else.
    content
        What the template shows.
    """
    loader = ChoiceLoader([PackageLoader(package), PackageLoader("covseg.pages")])
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= FILTERS
    style, body = ("\n".join(loader.get_source(environment, name)[0] for name in names) for names in (styles, scripts))
    texts = {"style": style} | ({"script": f'"use strict";\n(() => {{\n{body}\n}})();'} if scripts else {})
    ours = {part: Markup(text) for part, text in texts.items()}  # noqa: S704 - our own files
    return environment.get_template(template).render(policy=_policy(texts), **ours, **content).encode()


def _policy(texts: dict[str, str]) -> str:
    """Return the content security policy: this style, this script, images inside the page, nothing else."""
    digests = {part: base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for part, text in texts.items()}
    own = "".join(f"{part}-src 'sha256-{digest}'; " for part, digest in digests.items())
    return f"default-src 'none'; {own}img-src data:; base-uri 'none'; form-action 'none'"
