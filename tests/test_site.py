"""The site of the documentation: every page is in its navigation, and links lead somewhere from there too."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
HOOKS: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "site_hooks.py"))
LESSONS: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "lesson_pages.py"))


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


def test_flags_in_text_are_not_broken_behind_their_hyphens() -> None:
    text = "<p><code>limelight train --num-envs 4</code></p>"
    marked = '<p><code>limelight train <span class="flag">--num-envs</span> 4</code></p>'
    assert HOOKS["on_page_content"](text) == marked
    block = "<pre><code>limelight train --num-envs 4</code></pre>"
    assert HOOKS["on_page_content"](block) == block


def test_lessons_are_listed_behind_their_index() -> None:
    nav = [{"Home": "index.md"}, {"Lessons": [{"All": "lessons.md"}]}, {"More": ["a.md"]}]
    for _ in range(2):  # a second time adds nothing
        LESSONS["list_lessons"](nav, ["lessons/1.md", "lessons/2.md"])
        assert nav[1] == {"Lessons": [{"All": "lessons.md"}, "lessons/1.md", "lessons/2.md"]}
    assert [nav[0], nav[2]] == [{"Home": "index.md"}, {"More": ["a.md"]}]


def test_every_notebook_is_a_page() -> None:
    pages = set(LESSONS["lessons"]())
    english = {f"lessons/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.md")}
    assert pages == english | {f"zh/{page}" for page in english}


def test_a_notebook_becomes_a_page_with_its_outputs(tmp_path: Path) -> None:
    outputs = [
        {"output_type": "stream", "text": ["a\n", "```\n"]},
        {"output_type": "display_data", "data": {"image/png": "QUJD\n", "text/plain": "<Figure>"}},
        {"output_type": "execute_result", "data": {"text/plain": ["1", "2"]}},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "[x](../docs/returns.md#y)"]},
        {"cell_type": "code", "source": "print(1)  # [x](../a.md)", "outputs": outputs},
    ]
    notebook = tmp_path / "a.ipynb"
    notebook.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    text, code, *shown = LESSONS["as_page"]("lessons/a.md", notebook).rstrip("\n").split("\n\n")
    assert text == "# Title\n[x](../returns.md#y)"
    assert code == "```python\nprint(1)  # [x](../a.md)\n```"
    assert shown == [
        "````text\na\n```\n````",
        '<img alt="&lt;Figure&gt;" src="data:image/png;base64,QUJD">',
        "```text\n12\n```",
    ]


@pytest.mark.parametrize(
    ("page", "target", "seen"),
    [
        ("lessons/a.md", "../docs/algorithms/ac.md", "../algorithms/ac.md"),
        ("lessons/a.md", "../docs/lessons.md", "../lessons.md"),
        ("zh/lessons/a.md", "../../docs/zh/lessons.md", "../lessons.md"),
        ("zh/lessons/a.md", "../../docs/returns.md", "../../returns.md"),
        ("lessons/a.md", "../src/limelight/algo/returns.py", "REPOSITORY/src/limelight/algo/returns.py"),
        ("zh/lessons/a.md", "../../src/limelight", "REPOSITORY/src/limelight"),
        ("lessons/a.md", "missing.ipynb", "REPOSITORY/notebooks/missing.ipynb"),
    ],
)
def test_links_of_lessons_lead_to_pages_or_to_the_repository(page: str, target: str, seen: str) -> None:
    assert LESSONS["link"](page, target) == seen.replace("REPOSITORY/", HOOKS["REPOSITORY"])


def test_lessons_link_to_each_other() -> None:
    pages = sorted(LESSONS["lessons"]())
    for page in pages:
        name = Path(page).stem
        assert LESSONS["link"](page, f"{name}.ipynb") == f"{name}.md"
        other = f"../{name}.ipynb" if page.startswith("zh/") else f"zh/{name}.ipynb"
        there = f"notebooks/{name}.ipynb" if page.startswith("zh/") else f"notebooks/zh/{name}.ipynb"
        assert LESSONS["link"](page, other) == LESSONS["REPOSITORY"] + there, "each language is a site of its own"


def test_other_pages_link_to_the_pages_of_lessons() -> None:
    def seen(source: str, markdown: str) -> str:
        page = SimpleNamespace(file=SimpleNamespace(src_uri=source))
        return str(LESSONS["on_page_markdown"](markdown, page=page))

    name = "01-policy-gradient"
    assert seen("lessons.md", f"[x](../notebooks/{name}.ipynb)") == f"[x](lessons/{name}.md)"
    assert seen("zh/lessons.md", f"[x](../../notebooks/zh/{name}.ipynb#a)") == f"[x](lessons/{name}.md#a)"
    assert seen("algorithms/ac.md", f"[x](../../notebooks/{name}.ipynb)") == f"[x](../lessons/{name}.md)"
    for kept in ("[x](../notebooks/missing.ipynb)", "[x](returns.md)", "[x](https://example.org/notebooks/a.ipynb)"):
        assert seen("lessons.md", kept) == kept
