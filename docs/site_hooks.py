"""Hooks of mkdocs: links that leave docs/ go to the repository; formulas become MathML, which needs no JavaScript."""

from __future__ import annotations

import html
import posixpath
import re
from typing import Any
from xml.etree import ElementTree

REPOSITORY = "https://github.com/limelight-rl/limelight/blob/main/"
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)
INLINE_CODE = re.compile(r"(?<!<pre>)<code>[^<]*</code>")
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")

MATHML = "http://www.w3.org/1998/Math/MathML"
ElementTree.register_namespace("", MATHML)
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
    """Replace formulas in TeX by MathML, which browsers draw themselves; leave out the roles of docstrings.

    Flags in a line of text are marked: a browser would break them behind their two hyphens.
    """
    html = INLINE_CODE.sub(lambda code: FLAG.sub(r'<span class="flag">\g<0></span>', code[0]), html)
    return FORMULA.sub(formula, ROLE.sub("", html))


def formula(match: re.Match[str]) -> str:
    """Return one formula as MathML, in the part of it that browsers draw."""
    from latex2mathml.converter import convert  # of the extra docs

    tex = html.unescape(match[3]).replace("\\|", "|")
    root = ElementTree.fromstring(convert(tex, display="block" if match[2] == "[" else "inline"))
    for node in root.iter():
        if node.tag == f"{{{MATHML}}}mover" and node[1].text == "\u2015":  # a bar over several letters
            node.tag = f"{{{MATHML}}}mrow"
            node.set("style", "border-top: .06em solid; padding-top: .12em")
            node.remove(node[1])
        if node.get("mathvariant") == "double-struck":
            del node.attrib["mathvariant"]
            node.text = "\U0001d53c"  # only E is written so
    return ElementTree.tostring(root, encoding="unicode")
