"""Hook of mkdocs: the notebooks of notebooks/ become pages of the site, with the outputs that are stored in them."""

from __future__ import annotations

import html
import json
import posixpath
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/limelight-rl/limelight/blob/main/"
LINK = re.compile(r"(\]\()(?![a-z]+:|#|/)([^)\s#]+)((?:#[^)\s]*)?\))")
INDEX = "lessons.md"
"""The page behind which the navigation lists the lessons."""


def lessons(root: Path = ROOT) -> dict[str, Path]:
    """Return the notebooks by the address of their page: lessons/SLUG.md, zh/lessons/SLUG.md."""
    folders = {"": root / "notebooks", "zh/": root / "notebooks" / "zh"}
    return {
        f"{language}lessons/{notebook.stem}.md": notebook
        for language, folder in folders.items()
        for notebook in sorted(folder.glob("*.ipynb"))
    }


def on_config(config: Any, **_: Any) -> Any:
    """List the lessons that exist behind their index, in the navigation of every language."""
    languages = config.plugins["i18n"].config.languages
    for nav in [config.nav, *(language.nav for language in languages if language.nav)]:
        list_lessons(nav, [page for page in lessons() if not page.startswith("zh/")])
    return config


def list_lessons(nav: Any, pages: list[str]) -> None:
    """Put the pages behind the index of the lessons, wherever that stands in ``nav``."""
    if isinstance(nav, list):
        for position, entry in enumerate(nav):
            if INDEX in (entry.values() if isinstance(entry, dict) else [entry]):
                nav[position + 1 : position + 1] = [page for page in pages if page not in nav]
                return
    for part in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else []:
        list_lessons(part, pages)


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Add a page for each notebook."""
    from mkdocs.structure.files import File  # of the extra docs

    for page in lessons():
        files.append(File(page, config.docs_dir, config.site_dir, config.use_directory_urls))
    return files


def on_page_read_source(page: Any, **_: Any) -> str | None:
    """Return the text of the page of a notebook, in place of the file that is not in docs/."""
    notebook = lessons().get(page.file.src_uri)
    return None if notebook is None else as_page(page.file.src_uri, notebook)


on_config.mkdocs_priority = 100  # type: ignore[attr-defined]  # before the plugin that sorts pages by language
on_files.mkdocs_priority = 100  # type: ignore[attr-defined]


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links of other pages to a notebook lead to its page of the site."""
    folder = posixpath.dirname(page.file.src_uri)

    def inside(match: re.Match[str]) -> str:
        there = lesson(posixpath.normpath(posixpath.join("docs", folder, match[2])))
        return match[0] if there is None else match[1] + posixpath.relpath(there, folder or ".") + match[3]

    return LINK.sub(inside, markdown)


on_page_markdown.mkdocs_priority = 100  # type: ignore[attr-defined]  # before links out of docs/ are replaced


def as_page(page: str, notebook: Path) -> str:
    """Return a notebook as the Markdown of a page: its text, its code, and the outputs that are stored in it."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(LINK.sub(lambda match: match[1] + link(page, match[2]) + match[3], source))
        elif cell["cell_type"] == "code":
            parts.append(fence(source, "python"))
            parts += [shown for output in cell["outputs"] if (shown := show(output))]
    return "\n\n".join(parts) + "\n"


def link(page: str, target: str) -> str:
    """Return the address, seen from a page of the site, of what a notebook links to."""
    folder = "notebooks/zh" if page.startswith("zh/") else "notebooks"
    path = posixpath.normpath(posixpath.join(folder, target))
    there = path.removeprefix("docs/") if path.startswith("docs/") else lesson(path)
    if there is None or (there in lessons() and posixpath.dirname(there) != posixpath.dirname(page)):
        return REPOSITORY + path  # the other language is built as a site of its own
    return posixpath.relpath(there, posixpath.dirname(page))


def lesson(path: str) -> str | None:
    """Return the page of the notebook at ``path`` of the repository; None if there is no such notebook."""
    page = re.sub(r"^notebooks/(zh/)?([\w-]+)\.ipynb$", r"\1lessons/\2.md", path)
    return page if page in lessons() else None


def show(output: dict[str, Any]) -> str:
    """Return one output: a picture, or text."""
    data = output.get("data", {})
    if "image/png" in data:
        encoded = "".join(data["image/png"]).replace("\n", "")
        return f'<img alt="{html.escape(plain(data))}" src="data:image/png;base64,{encoded}">'
    text = "".join(output["text"]) if "text" in output else plain(data)
    return fence(text.rstrip("\n"), "text") if text.strip() else ""


def plain(data: dict[str, Any]) -> str:
    """Return the text that stands for an output."""
    return "".join(data.get("text/plain", ""))


def fence(text: str, language: str) -> str:
    """Return a fenced block, whose fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    return f"{'`' * (longest + 1)}{language}\n{text}\n{'`' * (longest + 1)}"
