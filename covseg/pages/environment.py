"""How every HTML page of ours is made: one file, offline, autoescaped, under a content security policy.

The policy allows the page's own style, by its digest, and ``data:`` images; nothing outside the file has an address.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from covseg.metrics.intervals import short

POLICY = "default-src 'none'; img-src data:; style-src 'sha256-{}'; base-uri 'none'; form-action 'none'"


def render_page(package: str, template: str, **content: Any) -> bytes:
    """Fill one of our templates, with the style and its policy.

    Parameters
    ----------
    package : str
        Whose ``templates`` hold the template.
    template : str
        File name there.
    **content
        What the template names; autoescaped.
    """
    style = files("covseg.pages").joinpath("templates", "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package), PackageLoader("covseg.pages")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"short": lambda value, digits=3: "-" if value is None else short(float(value), digits)}
    page = environment.get_template(template).render(
        style=Markup(style), policy=POLICY.format(digest), **content  # noqa: S704 - our own file
    )  # fmt: skip
    return page.encode()
