"""Hooks of mkdocs: links that leave docs/ go to the repository; formulas become MathML, which needs no JavaScript."""

from __future__ import annotations

import html
import posixpath
import re
from typing import Any

from latex2mathml.converter import convert

REPOSITORY = "https://github.com/limelight-rl/limelight/blob/main/"
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)

ROLE = re.compile(r":(?:func|class|meth|mod|attr|data):(?=<code>)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace relative links to files outside of docs/ by addresses in the repository."""
    folder = posixpath.dirname(page.file.src_uri)
    markdown = markdown.replace("```python no-run", "```python")
    if page.url.startswith("zh/"):  # the reference is in English, and rendered once
        markdown = re.sub(r"^::: (\S+)$", r'<a href="../../api/#\1"><code>\1</code></a>', markdown, flags=re.M)

    def outside(match: re.Match[str]) -> str:
        target = match[2]
        if not target.startswith("../"):
            return match[0]
        path = posixpath.normpath(posixpath.join("docs", folder, target))
        return match[0] if path.startswith("docs/") else f"{match[1]}{REPOSITORY}{path}{match[3]}"

    return LINK.sub(outside, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Replace formulas in TeX by MathML, which browsers draw themselves, and leave out the roles of docstrings."""
    return FORMULA.sub(formula, ROLE.sub("", html))


def formula(match: re.Match[str]) -> str:
    """Return one formula as MathML."""
    display = "block" if match[2] == "[" else "inline"
    tex = html.unescape(match[3]).replace("\\|", "|").replace("\\tfrac", "\\frac").replace("\\Big", "\\big")
    return convert(tex, display=display)
