"""The site of the documentation: every page is in its navigation, and links lead somewhere from there too."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
HOOKS: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "site_hooks.py"))


class Loader(yaml.SafeLoader):
    """Reads mkdocs.yml without the Python objects in it."""


Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda loader, suffix, node: None)
SITE = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
LANGUAGES = {
    language["locale"]: language.get("nav", SITE["nav"])
    for plugin in SITE["plugins"]
    if isinstance(plugin, dict) and "i18n" in plugin
    for language in plugin["i18n"]["languages"]
}


def pages_of(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in pages_of(part)]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_page_is_in_the_navigation(language: str) -> None:
    docs = ROOT / "docs"
    written = {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")}
    chinese = {page.removeprefix("zh/") for page in written if page.startswith("zh/")}
    there = {page for page in written if not page.startswith("zh/")} | (chinese if language == "zh" else set())
    listed = pages_of(LANGUAGES[language])
    assert there - {*listed} == set(), "add it to the nav of mkdocs.yml, in both languages"
    assert {*listed} - there == set()
    assert len(listed) == len({*listed})


def on_page(source: str, markdown: str, url: str = "") -> str:
    page = SimpleNamespace(file=SimpleNamespace(src_uri=source), url=url)
    return str(HOOKS["on_page_markdown"](markdown, page=page, config=None, files=None))


def test_links_out_of_the_documentation_lead_to_the_repository() -> None:
    there = HOOKS["REPOSITORY"]
    assert on_page("a.md", "[x](../examples/e.py)") == f"[x]({there}examples/e.py)"
    assert on_page("algorithms/a.md", "[x](../../README.md#y)") == f"[x]({there}README.md#y)"
    for kept in ("[x](b.md)", "[x](../b.md#y)", "[x](https://example.org)"):
        assert on_page("algorithms/a.md", kept) == kept


def test_blocks_and_references_are_those_that_the_site_knows() -> None:
    assert on_page("a.md", "```python no-run\nx\n```") == "```python\nx\n```"
    assert on_page("api.md", "::: limelight.train") == "::: limelight.train"
    assert 'href="../../api/#limelight.train"' in on_page("api.md", "::: limelight.train", url="zh/api/")


def test_formulas_become_mathml() -> None:
    pytest.importorskip("latex2mathml", reason="the extra docs is not installed")
    drawn = HOOKS["on_page_content"](r'<span class="arithmatex">\(\overline{a b} &lt; \mathbb E\)</span>')
    assert drawn.startswith("<math")
    assert "border-top" in drawn
    assert "\U0001d53c" in drawn
    assert HOOKS["on_page_content"]("<p>:func:<code>train</code></p>") == "<p><code>train</code></p>"
