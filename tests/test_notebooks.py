"""The notebooks hold: each is its source, executed from top to bottom, small, portable, and the same in both languages.

``make notebooks`` executes them; here is all that can be read off the files.
"""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
SOURCES = sorted([*FOLDER.glob("*.md"), *(FOLDER / "zh").glob("*.md")])
EXECUTED = sorted([*FOLDER.glob("*.ipynb"), *(FOLDER / "zh").glob("*.ipynb")])
LESSONS = (
    "01-policy-gradient", "02-a2c", "03-a3c", "04-silent-bugs", "05-your-environment", "06-pong", "07-ray",
)  # fmt: skip
LONGEST_CELL = 40
LARGEST_NOTEBOOK = 350_000
MACHINE_PATH = re.compile(r"(?<![\w.~/:-])/(?:work|tmp|home|root|Users|private)\b|\b[A-Za-z]:\\{1,2}\w|ipykernel_\d")


def per_notebook(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.relative_to(FOLDER).as_posix())


@cache
def cells(path: Path) -> list[dict[str, Any]]:
    """The cells of an executed notebook, their sources and texts as strings."""
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    for cell in found:
        cell["source"] = "".join(cell["source"])
    return found


def code(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in cells(path) if cell["cell_type"] == "code"]


def texts(output: dict[str, Any]) -> list[str]:
    """The texts of an output, without pictures."""
    data = {kind: text for kind, text in output.get("data", {}).items() if not kind.startswith("image/")}
    parts = [output.get("text", ""), *data.values(), output.get("traceback", "")]
    return ["".join(part) if isinstance(part, list) else str(part) for part in parts]


def without_magics(source: str) -> str:
    """Python whose lines for IPython are strings, so that it can be parsed; the first line may be a cell's magic."""
    first, _, rest = source.partition("\n")
    if first.startswith("%%") and not first.startswith(("%%writefile", "%%time", "%%capture")):
        lines = [line for line in rest.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        return repr([first, *lines])
    return re.sub(r"^(\s*)([%!?].*)$", lambda line: line[1] + repr(line[2]), source, flags=re.M)


def syntax(source: str) -> str:
    """The syntax tree of a cell: comments and layout make no difference."""
    return ast.dump(ast.parse(without_magics(source)))


def broken_links(path: Path, text: str) -> list[str]:
    """Relative links of a notebook that lead to no file; the index of the lessons tells whether each lesson exists."""
    targets = re.findall(r"\]\((?![a-z]+:|#)([^)\s#]+)", text)
    return [target for target in targets if not (path.parent / target).exists() and not is_lesson(path, target)]


def is_lesson(path: Path, target: str) -> bool:
    file = (path.parent / target).resolve()
    return file.parent in (FOLDER, FOLDER / "zh") and file.stem in LESSONS and file.suffix == ".ipynb"


# --------------------------------------------------------------------------- pairs


def test_every_source_is_executed_and_in_both_languages() -> None:
    named = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in SOURCES}
    assert {path.relative_to(FOLDER).with_suffix("").as_posix() for path in EXECUTED} == named
    english = {name for name in named if not name.startswith("zh/")}
    assert {f"zh/{name}" for name in english} == named - english
    assert english - {*LESSONS} == set(), "add it to LESSONS here, and to the tables of docs/lessons.md"


@per_notebook(SOURCES)
def test_a_notebook_has_the_cells_of_its_source(path: Path) -> None:
    jupytext = pytest.importorskip("jupytext", reason="the extra notebooks is not installed")
    written = [(cell.cell_type, cell.source) for cell in jupytext.read(path).cells]
    executed = [(cell["cell_type"], cell["source"]) for cell in cells(path.with_suffix(".ipynb"))]
    assert written == executed, f"jupytext --to ipynb {path.name}, then execute it"


@per_notebook([path for path in EXECUTED if path.parent.name == "zh"])
def test_both_languages_have_the_same_code(path: Path) -> None:
    english = code(FOLDER / path.name)
    assert len(code(path)) == len(english)
    for theirs, ours in zip(code(path), english, strict=True):
        assert syntax(theirs["source"]) == syntax(ours["source"]), theirs["source"]


@pytest.mark.parametrize("page", ["docs/lessons.md", "docs/zh/lessons.md"])
def test_the_index_links_to_every_lesson(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    folder = "../../notebooks/zh" if "zh" in page else "../notebooks"
    assert re.findall(rf"\({folder}/([\w-]+)\.ipynb\)", text) == [*LESSONS]


# --------------------------------------------------------------------------- each notebook


@cache
def lines_of_the_library() -> frozenset[str]:
    files = (ROOT / "src" / "limelight").rglob("*.py")
    return frozenset(line for file in files for line in file.read_text(encoding="utf-8").splitlines())


@per_notebook(EXECUTED)
def test_source_that_a_notebook_shows_is_the_present_source(path: Path) -> None:
    showing = [cell for cell in code(path) if "getsource(" in cell["source"] or "show(" in cell["source"]]
    shown = [
        line for cell in showing for output in cell["outputs"] for text in texts(output) for line in text.splitlines()
    ]
    indented = [line for line in shown if (len(line) - len(line.lstrip(" "))) % 4 == 0 and line.startswith("    ")]
    assert [line for line in indented if line not in lines_of_the_library()] == [], "execute it again"


@per_notebook(EXECUTED)
def test_every_cell_was_executed_in_order_and_without_an_error(path: Path) -> None:
    assert [cell["execution_count"] for cell in code(path)] == list(range(1, len(code(path)) + 1))
    outputs = [output for cell in code(path) for output in cell["outputs"]]
    assert [output["evalue"] for output in outputs if output["output_type"] == "error"] == []
    assert outputs, "it shows nothing"


@per_notebook(EXECUTED)
def test_cells_are_short(path: Path) -> None:
    long = [cell["source"] for cell in code(path) if len(cell["source"].splitlines()) > LONGEST_CELL]
    assert long == []


@per_notebook(EXECUTED)
def test_a_notebook_is_small(path: Path) -> None:
    assert path.stat().st_size <= LARGEST_NOTEBOOK


@per_notebook(EXECUTED)
def test_a_notebook_names_no_path_of_a_machine(path: Path) -> None:
    for cell in cells(path):
        for text in [cell["source"], *(text for output in cell.get("outputs", []) for text in texts(output))]:
            assert MACHINE_PATH.findall(text) == [], text


@per_notebook(EXECUTED)
def test_outputs_have_no_progress_lines(path: Path) -> None:
    assert [cell["source"] for cell in code(path) if any("\r" in t for o in cell["outputs"] for t in texts(o))] == []


@per_notebook(EXECUTED)
def test_links_lead_somewhere(path: Path) -> None:
    text = "\n".join(cell["source"] for cell in cells(path) if cell["cell_type"] == "markdown")
    assert broken_links(path, text) == []


# --------------------------------------------------------------------------- the tests themselves


def test_comments_and_magics_do_not_change_the_syntax() -> None:
    assert syntax("x = 1  # one\n") == syntax("# 一\nx = 1")
    assert syntax("%matplotlib inline\nx = 1") == syntax("%matplotlib inline\nx = 1  # 1")
    assert syntax("%matplotlib inline\nx = 1") != syntax("%matplotlib agg\nx = 1")
    assert syntax("if x:\n    !ls\n") != syntax("if x:\n    !pwd\n")
    assert syntax("%%bash\n# a\nls") == syntax("%%bash\nls")
    assert syntax("%%writefile a.py\nx = 1") != syntax("%%writefile a.py\nx = 2")


def test_paths_of_a_machine_are_found() -> None:
    for text in ("in /tmp/a", "'/home/user'", r"C:\Users", "/work", "ipykernel_12/3.py:1", "file=/root/x"):
        assert MACHINE_PATH.search(text), text
    for text in ("https://example.org/tmp", "runs/tmp/a", "../work/x", "/ 2", r"a:\n", "homework/home"):
        assert not MACHINE_PATH.search(text) or text == r"a:\n", text


def test_broken_links_are_found(tmp_path: Path) -> None:
    (tmp_path / "there.md").touch()
    text = "[a](there.md#x) [b](missing.md) [c](https://example.org) [d](#here)"
    assert broken_links(tmp_path / "a.ipynb", text) == ["missing.md"]
    text = "[a](03-a3c.ipynb) [b](zh/07-ray.ipynb) [c](zh/03-a4c.ipynb) [d](../03-a3c.ipynb)"
    assert broken_links(FOLDER / "a.ipynb", text) == ["zh/03-a4c.ipynb", "../03-a3c.ipynb"]
