"""The page in a browser: curves are drawn, read and zoomed, at any width, and follow a run that goes on."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_report import make_async_run, make_run

from limelight.settings.schema import TrainConfig
from limelight.viewing import page
from limelight.viewing.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")

PROBE = """
<script>
addEventListener("load", () => {
  const report = {}, box = document.querySelector(".plot"), rect = box.getBoundingClientRect();
  const at = (type, share) => box.dispatchEvent(new PointerEvent(type, { bubbles: true, button: 0, pointerId: 1,
    clientX: rect.left + 50 + share * (rect.width - 62), clientY: rect.top + 50 }));
  const read = () => box.parentNode.querySelector("output").textContent;
  const ticks = () => [...box.querySelectorAll("text[text-anchor=middle]")].map((t) => t.textContent).join(" ");
  report.last = read(); report.ticks = ticks();
  at("pointermove", 0.5); report.pointed = read();
  at("pointerdown", 0.25); at("pointermove", 0.5); at("pointerup", 0.5); report.zoomed = ticks();
  report.reset = !document.getElementById("reset").hidden;
  document.getElementById("reset").click(); report.whole = ticks();
  box.focus(); box.dispatchEvent(new KeyboardEvent("keydown", { key: "Home" })); report.keyboard = read();
  const seconds = document.querySelector("input[value=seconds]"); seconds.click(); report.seconds = ticks();
  report.charts = document.querySelectorAll(".plot svg").length;
  report.too_wide = document.documentElement.scrollWidth > innerWidth;
  report.paper = getComputedStyle(document.body).backgroundColor;
  report.noscript = [...document.querySelectorAll("noscript")].every((n) => n.offsetHeight === 0);
  const found = document.createElement("pre");
  found.id = "found"; found.textContent = JSON.stringify(report);
  document.body.appendChild(found);
});
</script>
"""


def browse(path: Path, *flags: str, milliseconds: int = 1_500) -> str:
    """Return the document that a browser has made of a page."""
    assert BROWSER is not None
    command = [
        BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={path.parent / 'profile'}",
        f"--virtual-time-budget={milliseconds}", *flags, "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def probe(path: Path, *flags: str) -> dict[str, Any]:
    """Return what a script found that points, drags and types on a page."""
    import json
    from html import unescape

    probed = path.with_name("probed.html")
    probed.write_text(path.read_text(encoding="utf-8").replace("</body>", PROBE + "</body>"), encoding="utf-8")
    found = re.search(r'<pre id="found">(.*?)</pre>', browse(probed, *flags))
    assert found is not None
    return json.loads(unescape(found[1]))


@in_a_browser
def test_curves_are_read_and_zoomed_in_a_browser(tmp_path: Path) -> None:
    found = probe(write_report([make_run(tmp_path / "run")]), "--window-size=1280,900")
    assert "mean of 100 episodes 24.5" in found["last"]
    assert "evaluation 400 ± 5" in found["last"]
    assert re.match(r"at 1[45][.\d]*k steps ", found["pointed"])  # the middle of 30,000
    assert "mean of 100 episodes 24.5 evaluation 300 ± 5" in found["pointed"]
    assert found["ticks"] == found["whole"] == "0 5000 10k 15k 20k 25k"
    assert found["zoomed"].split()[0].startswith(("7", "8"))
    assert found["reset"]
    assert "at 0 steps" in found["keyboard"]
    assert found["seconds"].split()[0] == "0:00"
    assert found["charts"] == 4
    assert found["noscript"]
    assert not found["too_wide"]


@in_a_browser
@pytest.mark.parametrize(("flags", "paper"), [((), "rgb(255, 255, 255)"), (("dark",), "rgb(20, 23, 28)")])
def test_a_phone_needs_no_sideways_scrolling_in_light_and_dark(
    flags: tuple[str, ...], paper: str, tmp_path: Path
) -> None:
    report = write_report([make_async_run(tmp_path / "run")])
    dark = ("--blink-settings=preferredColorScheme=0",) if flags else ()
    found = probe(report, "--window-size=500,900", *dark)  # the narrowest window that it opens
    assert not found["too_wide"]
    assert found["paper"] == paper
    assert found["charts"] == 4


@in_a_browser
def test_an_open_page_follows_the_run(tmp_path: Path) -> None:
    """The page is the old one; the file, which its hidden copy loads, is newer."""
    path = tmp_path / "report.html"
    axes = [{"steps": [1, 2], "seconds": [1, 2], "episodes": [1, 2]}]
    series = {"label": "loss", "axis": 0, "style": "line", "color": 0}

    def write(number: float) -> str:
        chart = {"title": "loss", "group": "training", "series": [{**series, "y": [0, number]}], "target": None}
        data = {"axes": axes, "charts": [chart]}
        body = f'<div id="status">{number}</div>{page.controls(live=True)}{page.charts(data, "training")}'
        return page.document("x", body, data, live_seconds=0.2)

    old, new = write(111), write(222)
    changes = {"data": _inner(new), "status": "222"}
    newer = "".join(f"document.getElementById({name!r}).textContent = {text!r};" for name, text in changes.items())
    first, rest = old.split("<script>\n", 1)
    path.write_text(f"{first}<script>if (location.hash === '#feed') {{ {newer} }}</script><script>\n{rest}", "utf-8")
    document = browse(path, milliseconds=3_000)
    assert '<div id="status">222</div>' in document
    assert re.search(r"<output>.*?222", document)


def _inner(document: str) -> str:
    found = re.search(r'id="data">(.*?)</script>', document)
    assert found is not None
    return found[1]


def test_a_page_without_scripts_has_its_figures_and_tables(tmp_path: Path) -> None:
    text = write_report([make_run(tmp_path / "run")]).read_text(encoding="utf-8")
    assert len(re.findall(r"<noscript><div class=\"wide\"><svg", text)) == 2
    assert "<summary>entropy as a table</summary>" in text
    assert text.count('role="img"') >= 4 + 2  # four curves, and the two figures
    assert 'aria-label="entropy. entropy: from 0.6 to 0.6, between 0.6 and 0.6."' in text


def test_the_data_cannot_end_the_script() -> None:
    text = page.document("a & b", "", {"charts": [{"title": "</script><b>"}]})
    assert "</script><b>" not in text
    assert "<title>a &amp; b · Limelight</title>" in text


def test_shares_of_the_time_are_a_bar_in_words() -> None:
    bar = page.time_bar({"time/environment": 0.7, "time/acting": 0.1, "time/learning": 0.2, "time/evaluation": 0.0,
                         "time/waiting": 0.0}, "environment takes <much>")  # fmt: skip
    assert 'aria-label="environment 70%  acting 10%  learning 20%"' in bar
    assert "<p>Environment takes &lt;much&gt;.</p>" in bar
    assert page.time_bar({}, None) == ""


def test_settings_that_differ_are_marked() -> None:
    from limelight.settings.io import with_settings

    table = page.settings_table([with_settings(TrainConfig(), {"gamma": 0.5})], [""])
    assert '<th scope="row">algorithm.gamma</th><td class=changed>0.5</td>' in table
