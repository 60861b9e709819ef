"""Chinese pages: which are older than their English ones is listed, and their punctuation is Chinese."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
SCRIPT: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "check_translations.py"))
PAGES: list[Path] = SCRIPT["pages"]()
HAN = "\u4e00-\u9fff"


def make_page(root: Path, record: str) -> Path:
    (root / "docs" / "zh").mkdir(parents=True)
    (root / "docs" / "page.md").write_text("# A page\n", encoding="utf-8")
    page = root / "docs" / "zh" / "page.md"
    page.write_text(record + "# 页\n", encoding="utf-8")
    return page


def test_a_page_is_listed_once_its_original_has_changed(tmp_path: Path) -> None:
    page = make_page(tmp_path, "<!-- translation of docs/page.md, sha256 0 -->\n")
    assert SCRIPT["warnings"](tmp_path) == ["docs/zh/page.md: older than docs/page.md"]
    SCRIPT["record"](page, tmp_path)
    assert SCRIPT["warnings"](tmp_path) == []
    assert page.read_text(encoding="utf-8").endswith("-->\n# 页\n")
    (tmp_path / "docs" / "page.md").write_text("# Another page\n", encoding="utf-8")
    assert SCRIPT["warnings"](tmp_path) == ["docs/zh/page.md: older than docs/page.md"]


def test_a_page_without_a_record_or_an_original_is_listed(tmp_path: Path) -> None:
    page = make_page(tmp_path, "")
    assert "does not name its English page" in SCRIPT["warnings"](tmp_path)[0]
    with pytest.raises(SystemExit, match="first line must be"):
        SCRIPT["record"](page, tmp_path)
    page.write_text("<!-- translation of docs/gone.md, sha256 0 -->\n# 页\n", encoding="utf-8")
    assert "not there any more" in SCRIPT["warnings"](tmp_path)[0]
    page.write_text("<!-- no translation -->\n# 页\n", encoding="utf-8")
    assert SCRIPT["warnings"](tmp_path) == []


def test_the_list_is_a_warning_and_no_failure(capsys: pytest.CaptureFixture[str]) -> None:
    SCRIPT["main"]([])
    assert capsys.readouterr().out.splitlines() == [f"warning: {line}" for line in SCRIPT["warnings"]()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_page_names_its_original(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    record = SCRIPT["RECORD"].match(text)
    assert text.startswith(SCRIPT["ORIGINAL"]) or (record is not None and (ROOT / record[1]).is_file())


def half_width(text: str) -> list[str]:
    """Return punctuation of ASCII beside Chinese characters, outside of code and of targets of links."""
    prose = re.sub(r"^```.*?^```$|<!--.*?-->|`[^`\n]*`|(?<=\])\([^()\s]+\)|\$[^$]+\$", "", text, flags=re.M | re.S)
    return re.findall(rf"[{HAN}][,;:?!](?!\[)|[,;:?!(][{HAN}]|[{HAN}]\)", prose)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_punctuation_is_of_full_width(page: Path) -> None:
    assert half_width(page.read_text(encoding="utf-8")) == []


def test_half_width_is_found() -> None:
    """Guards the guard: code, links and figures are left alone."""
    assert half_width("回报,优势 (见下)") == ["报,", "(见", "下)"]
    assert half_width("回报\uff0c`--a,b`[页](页.md)\uff08[500.0, 500.0]\uff09\n```sh\n# 页,页\n```") == []
