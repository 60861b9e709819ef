"""List the Chinese pages whose English originals have changed since; it warns, and never fails.

python docs/check_translations.py                            # part of make lint
python docs/check_translations.py --record docs/zh/a3c.md    # after a page has been brought up to date
"""

from __future__ import annotations

import argparse
import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
RECORD = re.compile(r"<!-- translation of (\S+), sha256 (\w+) -->\n")
ORIGINAL = "<!-- no translation -->\n"


def pages(root: Path = ROOT) -> list[Path]:
    """Return the Chinese pages."""
    return sorted([*root.glob("*.zh-CN.md"), *(root / "docs" / "zh").glob("*.md")])


def digest(source: Path) -> str:
    """Return the first twelve digits of the hash of a page, the same for all line ends."""
    return hashlib.sha256(source.read_text(encoding="utf-8").encode()).hexdigest()[:12]


def warnings(root: Path = ROOT) -> list[str]:
    """Return a line for every page that is older than its English original, or lacks a record of it."""
    lines = []
    for page in pages(root):
        text, name = page.read_text(encoding="utf-8"), page.relative_to(root).as_posix()
        record = RECORD.match(text)
        if record is None:
            if not text.startswith(ORIGINAL):
                lines.append(f"{name}: its first line does not name its English page")
        elif not (root / record[1]).is_file():
            lines.append(f"{name}: its English page {record[1]} is not there any more")
        elif digest(root / record[1]) != record[2]:
            lines.append(f"{name}: older than {record[1]}")
    return lines


def record(page: Path, root: Path = ROOT) -> None:
    """Write the present hash of the English page into the first line of ``page``."""
    text = page.read_text(encoding="utf-8")
    found = RECORD.match(text)
    if found is None:
        raise SystemExit(f"{page}: its first line must be <!-- translation of PATH, sha256 0 -->")
    line = f"<!-- translation of {found[1]}, sha256 {digest(root / found[1])} -->\n"
    page.write_text(line + text[found.end() :], encoding="utf-8", newline="\n")


def main(argv: list[str] | None = None) -> None:
    """List or record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", nargs="+", type=Path, metavar="PAGE", help="pages that are up to date now")
    for page in parser.parse_args(argv).record or []:
        record(page)
    for line in warnings():
        print(f"warning: {line}")


if __name__ == "__main__":
    main()
