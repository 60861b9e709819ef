"""report.html and its figures: of whole runs, of several, and of interrupted ones."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import warnings
from base64 import b64decode
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.font_manager import FontEntry

from limelight.algo.episodes import Episode
from limelight.errors import CheckpointError, ConfigError, LimelightError
from limelight.runs.folder import only_process
from limelight.runs.reader import read_run
from limelight.settings.io import save_yaml, with_settings
from limelight.settings.schema import TrainConfig
from limelight.viewing import plots, report
from limelight.viewing.jsonl import JsonlLogger
from limelight.viewing.monitor_csv import MonitorCsvLogger
from limelight.viewing.report import write_report

NAMESPACE = 1
"""An empty SVG element, from which scripts have the namespace."""
SUMMARY = {
    "env_id": "CartPole-v1", "algorithm": "a2c", "seed": 7, "total_timesteps": 200_000, "wall_seconds": 6.5,
    "steps_per_second": 30_769.2, "best_eval_return": 499.5, "final_eval_return": 498.25,
    "solved_at_step": None, "solved_at_seconds": None, "status": "reached_return",
}  # fmt: skip


def make_run(folder: Path, episodes: int = 300, rows: int = 10, evaluations: int = 4, **settings: object) -> Path:
    """Make a run folder with that many episodes, rows of training metrics and evaluations."""
    folder.mkdir(parents=True)
    save_yaml(with_settings(TrainConfig(), {"seed": 7, **settings}), folder / "config.yaml")
    monitor = MonitorCsvLogger(folder / "monitor.csv", "CartPole-v1", 0.0)
    for i in range(episodes):
        monitor.episodes(100 * i, i / 10, [Episode(0, float(i % 50), 20, True, 100 * i)])
    monitor.close()
    metrics = JsonlLogger(folder / "metrics.jsonl")
    for i in range(1, rows + 1):
        loss = math.nan if i == 3 else 1 / i
        metrics.log(2000 * i, 2.0 * i, {"train/policy_loss": loss, "train/entropy": 0.6, "time/fps": 31_000.0 + i})
    for i in range(1, evaluations + 1):
        values = {"mean": 100.0 * i, "std": 5.0, "min": 100.0 * i - 20, "max": 100.0 * i + 20}
        metrics.log(5000 * i, 5.0 * i, {f"eval/{name}_reward": value for name, value in values.items()})
    metrics.close()
    return folder


class Checker(HTMLParser):
    """Checks that tags are balanced, and collects the addresses that a page would load or link to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name.split(":")[-1] in ("href", "src") and not (value or "").startswith(("#", "data:")):
                self.outside.append(f"{tag} {name}={value}")
        if tag not in ("meta", "br", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data.strip())


def check_page(path: Path) -> tuple[str, list[str]]:
    """Return the page and its pieces of text, after checking that it is well-formed and needs no network."""
    page = path.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert checker.outside == []
    assert "http" not in page
    assert re.findall("<script[^>]*>", page) == ['<script type="application/json" id="data">', "<script>"]
    return page, checker.text


def check_plots(folder: Path) -> str:
    png = (folder / "plots" / "learning_curve.png").read_bytes()
    assert png.startswith(b"\x89PNG")
    svg = (folder / "plots" / "learning_curve.svg").read_text(encoding="utf-8")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    return svg


def test_the_report_of_a_whole_run_has_all_its_parts(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a2c-7", gamma=0.9, stop_at_return=300.0)
    (run / "summary.json").write_text(json.dumps(SUMMARY))
    (run / "system.json").write_text(
        json.dumps({"python": "3.11.7", "cores": 2, "threads": [1, True], "extra": {"a": 1}})
    )
    (run / "command.txt").write_text("limelight train CartPole-v1 --env-kwargs a '<b>'\n")
    assert write_report([run]) == run / "report.html"
    svg = check_plots(run)
    for word in (
        "environment steps",
        "episode return",
        "mean of 100 episodes",
        "exponential smoothing",
        "best",
        "target",
    ):
        assert word in svg
    page, text = check_page(run / "report.html")
    assert "CartPole-v1 · a2c · seed 7" in text
    assert "limelight train CartPole-v1 --env-kwargs a '<b>'" in text
    assert "reached return" in text
    for value in (
        "498.2",
        "499.5",
        "30,769.2",
        "200,000",
        "policy loss",
        "entropy",
        "time/fps",
        "1, yes",
        "a: 1",
    ):
        assert value in text, value
    assert '<th scope="row">algorithm.gamma</th><td class=changed>0.9</td>' in page
    assert '<th scope="row">algorithm.gae_lambda</th><td>0.95</td>' in page
    assert '<th scope="row">solved at step</th><td>–</td>' in page
    assert page.count("<svg") == 2 + NAMESPACE
    assert "--accent: #1f6fc4" in page  # the style sheet is a part of the page
    assert "currentColor" in page
    assert plots.INK not in re.sub(r"<style>.*?</style>", "", page, flags=re.DOTALL)


def test_the_final_evaluation_has_the_digits_of_its_spread(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "summary.json").write_text(json.dumps({**SUMMARY, "final_eval_return": 0.961, "final_eval_std": 0.012}))
    assert "0.961 ± 0.012" in check_page(write_report([run]))[1]


def test_several_runs_share_one_figure(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, seed=seed) for seed, name in enumerate(("one/x", "two/x", "_three"))]
    (runs[1] / "summary.json").write_text(json.dumps(SUMMARY))
    folder = tmp_path / "one" / "report-x+x+_three"
    assert write_report(runs) == folder / "report.html"
    svg = check_plots(folder)
    for color in plots.COLORS[:3]:
        assert color in svg
    assert str(runs[0]) in svg
    assert ">three<" in svg
    page, text = check_page(folder / "report.html")
    assert "3 runs" in text
    assert '<th scope="row">seed</th><td>0</td><td class=changed>1</td><td class=changed>2</td>' in page
    assert '<th scope="row">status</th><td>–</td><td>reached_return</td><td>–</td>' in page
    assert not any((run / "report.html").exists() for run in runs)


@pytest.mark.parametrize(
    ("episodes", "rows", "evaluations"),
    [(0, 0, 0), (1, 1, 1), (30, 0, 0), (0, 5, 0), (0, 1, 2), (5000, 600, 0)],
)
def test_runs_of_every_length_have_a_report(tmp_path: Path, episodes: int, rows: int, evaluations: int) -> None:
    run = make_run(tmp_path / "run", episodes, rows, evaluations)
    page, text = check_page(write_report([run]))
    svg = check_plots(run)
    assert ("no episode has finished yet" in svg) == (episodes == evaluations == 0)
    assert ("evaluation" in re.findall(r">([^<>]+)</text>", svg)) == (evaluations > 0)
    assert page.count("<svg") == (2 if rows else 1) + NAMESPACE
    assert " ".join(text).count("broken off (killed, or running on another machine)") == 3, (
        "in header, diagnosis and results"
    )
    with only_process(run):
        _, text = check_page(write_report([run]))
    assert "killed" not in " ".join(text)
    assert "No results yet: running." in text


def test_every_training_metric_has_a_panel(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", rows=0)
    metrics = JsonlLogger(run / "metrics.jsonl")
    names = [f"train/metric_{i}" for i in range(5)]
    for step in (100, 200):
        metrics.log(step, 1.0, {**dict.fromkeys(names, 1.0), "rollout/episodes": 3})
    metrics.close()
    with plots.style():
        figure = plots.training_metrics([read_run(run)])
    assert figure is not None
    assert [ax.get_title(loc="left") for ax in figure.axes] == [f"metric {i}" for i in range(5)]
    labelled = [any(label.get_visible() for label in ax.get_xticklabels()) for ax in figure.axes]
    assert labelled == [False, True, True, True, True]  # each column's lowest


def make_async_run(folder: Path, workers: int = 2, restarts: tuple[int, ...] = (0, 0, 1, 3)) -> Path:
    """Make an asynchronous run with a row for each of ``restarts``; it was resumed where the count falls to 0."""
    run = make_run(folder, rows=0, algo="a3c", asynchronous=True, num_workers=workers)
    metrics = JsonlLogger(run / "metrics.jsonl")
    for i, count in enumerate(restarts, 1):
        updates = {f"async/worker_{w}/updates_per_second": 10.0 * w + i for w in range(workers)}
        steps = {f"async/worker_{w}/steps_per_second": 640.0 for w in range(workers)}
        lag = {"async/policy_lag": 1.5, "async/policy_lag_max": 4 + i}
        counts = {"async/worker_restarts": count, "async/skipped_updates": 0}
        metrics.log(100 * i, 1.0 * i, {"train/entropy": 0.6, **lag, **counts, **updates, **steps})
    metrics.close()
    return run


def drawn(ax: Axes) -> list[tuple[list[float], str, object]]:
    """Return the values, the style and the colour of every line of a panel."""
    return [(list(line.get_ydata()), line.get_linestyle(), line.get_color()) for line in ax.get_lines()]  # type: ignore[arg-type]


def test_policy_lag_and_updates_per_second_are_drawn(tmp_path: Path) -> None:
    run = make_async_run(tmp_path / "run", workers=3)
    with plots.style():
        figure = plots.worker_metrics([read_run(run)])
        others = plots.training_metrics([read_run(run)])
    assert figure is not None
    assert others is not None
    assert [ax.get_title(loc="left") for ax in others.axes] == ["entropy"]  # not one for each worker
    lag, rates = figure.axes
    assert [(values, style) for values, style, _ in drawn(lag)] == [([1.5] * 4, "-"), ([5, 6, 7, 8], "--")]
    assert [values for values, _, _ in drawn(rates)] == [[10.0 * w + i for i in range(1, 5)] for w in range(3)]
    assert len({color for _, _, color in drawn(rates)}) == 3
    page, text = check_page(write_report([run]))
    assert page.count("<svg") == 3 + NAMESPACE
    for words in ("Workers", "policy lag, in updates by other workers", "restarted workers"):
        assert words in text, words
    assert '<th scope="row">restarted workers</th><td class=changed>3</td>' in page
    assert '<th scope="row">updates skipped (not finite)</th><td>0</td>' in page


def test_only_runs_with_workers_have_a_lag(tmp_path: Path) -> None:
    """Each run has one colour."""
    runs = [make_run(tmp_path / "a2c"), make_async_run(tmp_path / "a3c"), make_async_run(tmp_path / "more", workers=9)]
    with plots.style():
        figure = plots.worker_metrics([read_run(run) for run in runs])
    assert figure is not None
    lag, rates = figure.axes
    assert [len(values) for values, _, _ in drawn(lag)] == [0, 0, 4, 4, 4, 4]
    assert [color for _, _, color in drawn(rates)] == [plots.COLORS[1]] * 2 + [plots.COLORS[2]] * 9
    page, _ = check_page(write_report(runs))
    assert '<th scope="row">restarted workers</th><td>–</td><td class=changed>3</td><td class=changed>3</td>' in page


@pytest.mark.parametrize("rows", [1, 2])
def test_the_lag_of_one_worker_is_drawn_at_zero(tmp_path: Path, rows: int) -> None:
    """An axis with nothing but zeros starts at 0 as well."""
    run = make_run(tmp_path / "run", rows=0)
    metrics = JsonlLogger(run / "metrics.jsonl")
    for step in range(1, rows + 1):
        metrics.log(step, 1.0, {"async/policy_lag": 0.0, "async/policy_lag_max": 0})
    metrics.close()
    with plots.style():
        figure = plots.worker_metrics([read_run(run)])
    assert figure is not None
    assert [values for values, _, _ in drawn(figure.axes[0])] == [[0.0] * rows] * 2
    assert all(low == 0.0 < high for low, high in (ax.get_ylim() for ax in figure.axes))
    write_report([run])


def test_a_report_without_workers_has_no_section_on_workers(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    with plots.style():
        assert plots.worker_metrics([read_run(run)]) is None
    _, text = check_page(write_report([run]))
    assert "Workers" not in text
    assert "restarted workers" not in text


def add_video(run: Path, name: str, size: int = 100, **info: object) -> None:
    """Add an MP4 file of that size to a run, with its VideoInfo if any of ``info`` is given."""
    (run / "videos").mkdir(exist_ok=True)
    (run / "videos" / f"{name}.mp4").write_bytes(bytes(size))
    if info:
        defaults = {
            "which": "best",
            "step": None,
            "seed": 0,
            "sampled": False,
            "returns": [1.0],
            "lengths": [9],
            "cut": False,
        }
        (run / "videos" / f"{name}.json").write_text(json.dumps({**defaults, **info}))


def captions(page: str) -> list[str]:
    return re.findall("<figcaption>(.*?)</figcaption>", page)


def test_videos_are_embedded_in_the_page_by_step(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_video(run, "best-evaluate-seed3", seed=3, returns=[-20.5, 7.0], lengths=[900, 400], sampled=True)
    add_video(run, "best-2000000-seed7", step=2_000_000, returns=[21.0], lengths=[1684], cut=True)
    add_video(run, "best-300000-seed7", step=300_000, returns=[3.0], lengths=[200])
    add_video(run, "a <b>", 50)
    (run / "videos" / ".half.mp4.tmp").write_bytes(b"not yet a video")
    page, text = check_page(write_report([run]))
    assert captions(page) == [
        "step 300,000 · return 3 · 200 steps",
        "step 2,000,000 · return 21 · 1,684 steps · cut",
        "a &lt;b&gt;",
        "best agent, seed 3, sampled actions · returns -20.5, 7 · 1,300 steps",
    ]
    sources = re.findall('<video [^>]*src="data:video/mp4;base64,([^"]*)"', page)
    assert [len(b64decode(source)) for source in sources] == [100, 100, 50, 100]
    assert "Videos" in text


def test_large_videos_are_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "_EMBED_EACH", 1_000)
    monkeypatch.setattr(report, "_EMBED_TOTAL", 1_500)
    runs = [make_run(tmp_path / "one"), make_run(tmp_path / "two")]
    add_video(runs[0], "best-1-seed0", 1_001, step=1)
    add_video(runs[0], "best-2-seed0", 1_000, step=2)
    add_video(runs[1], "best 3", 600, step=3)  # small, but there is no room left
    page = write_report(runs).read_text(encoding="utf-8")
    assert [source[:10] for source in re.findall('<video [^>]*src="([^"]*)"', page)] == [
        "../one/vid", "data:video", "../two/vid",
    ]  # fmt: skip
    for source in re.findall('<video [^>]*src="([^d][^"]*)"', page):
        assert (tmp_path / "report-one+two" / unquote(source)).is_file()
    assert [caption.split(" · ")[0] for caption in captions(page)] == ["one", "one", "two"]


def test_a_report_without_videos_has_no_section_on_videos(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "videos").mkdir()
    page, text = check_page(write_report([run]))
    assert "<video" not in page
    assert "Videos" not in text


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "not a JSON object"), ('{"step": 1, "cut": false}', "no which, seed, sampled, returns, lengths")],
)
def test_a_damaged_file_beside_a_video_is_named(content: str, words: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    add_video(run, "best-1-seed0", step=1)
    (run / "videos" / "best-1-seed0.json").write_text(content)
    with pytest.raises(CheckpointError, match=rf"best-1-seed0\.json: damaged \({words}"):
        write_report([run])


def test_counters_that_restart_with_a_resumed_run_add_up(tmp_path: Path) -> None:
    run = read_run(make_async_run(tmp_path / "run", restarts=(0, 2, 5, 0, 1, 1)))
    assert run.total("async/worker_restarts") == 6
    assert run.total("async/skipped_updates") == 0
    assert run.total("async/never_seen") is None
    assert read_run(make_async_run(tmp_path / "late", restarts=(2, 2))).total("async/worker_restarts") == 2


def test_the_report_of_a_killed_run_has_its_whole_lines(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    for name in ("monitor.csv", "metrics.jsonl"):
        (run / name).write_bytes((run / name).read_bytes()[:-7])  # the last line is cut short
    whole = read_run(run)
    assert len(whole.episodes.values) == 299
    assert len(whole.series("eval/mean_reward").values) == 3
    (run / "monitor.csv").unlink()
    (run / "metrics.jsonl").write_text("")
    write_report([run])
    assert "no episode has finished yet" in check_plots(run)


def test_an_evaluation_without_spread_is_drawn(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", evaluations=0)
    metrics = JsonlLogger(run / "metrics.jsonl")
    metrics.log(10, 1.0, {"eval/mean_reward": math.nan})  # no spread, and no best to mark
    metrics.close()
    write_report([run])
    assert "evaluation" in check_plots(run)


def test_a_run_is_read_back(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "run"))
    assert run.episodes.steps[:3].tolist() == [0, 100, 200]
    assert run.episodes.seconds[:3].tolist() == [0, 0.1, 0.2]
    assert run.episodes.values[:3].tolist() == [0, 1, 2]
    assert run.metric_names()[:4] == ["train/policy_loss", "train/entropy", "time/fps", "eval/mean_reward"]
    loss = run.series("train/policy_loss")
    assert loss.steps.tolist() == [2000.0 * i for i in range(1, 11)]
    assert np.isnan(loss.values[2])
    assert run.series("nothing").values.shape == (0,)


def test_episodes_reported_together_are_spread_over_the_time_before(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", episodes=0)
    monitor = MonitorCsvLogger(run / "monitor.csv", "E", 0.0)
    for step, seconds, returns in ((40, 4.0, [1.0, 2.0]), (100, 5.0, [3.0]), (400, 9.0, [4.0, 5.0, 6.0])):
        monitor.episodes(step, seconds, [Episode(0, value, 20, True, step) for value in returns])
    monitor.close()
    episodes = read_run(run).episodes
    assert episodes.values.tolist() == [1, 2, 3, 4, 5, 6]
    np.testing.assert_allclose(episodes.steps, [20, 40, 100, 200, 300, 400])
    np.testing.assert_allclose(episodes.seconds, [2, 4, 5, 5 + 4 / 3, 5 + 8 / 3, 9])


def test_episodes_of_several_rollouts_in_one_report_are_spread_over_its_time(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", episodes=0)
    monitor = MonitorCsvLogger(run / "monitor.csv", "E", 0.0)
    monitor.episodes(100, 4.0, [Episode(0, float(step), 20, True, step) for step in (40, 60, 60, 90)])
    monitor.episodes(200, 6.0, [Episode(0, float(step), 20, True, step) for step in (80, 120)])  # of a slower worker
    monitor.close()
    episodes = read_run(run).episodes
    assert episodes.values.tolist() == [40, 60, 60, 80, 90, 120]
    np.testing.assert_allclose(episodes.steps, [40, 50, 60, 80, 90, 120])
    np.testing.assert_allclose(episodes.seconds, [4 / 3, 8 / 3, 4, 6, 4, 6])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("summary.json", "{", r"summary\.json: damaged"),
        ("system.json", "[1]", r"system\.json: damaged"),
        ("metrics.jsonl", '{"step": 1, "seconds": 1}\n{"step": 2}\n', r"metrics\.jsonl: line 2 is damaged"),
        ("metrics.jsonl", "oops\n", r"metrics\.jsonl: line 1 is damaged"),
        ("monitor.csv", "#{}\nr,l,t\n1,2,3\n", r"monitor\.csv: damaged"),
        ("monitor.csv", "#{}\nr,l,t,step,env,worker\n1,2,x,4,0,0\n", r"monitor\.csv: damaged"),
        ("config.yaml", "gamma: [", r"config\.yaml: not readable"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    run = make_run(tmp_path / "run", 1, 1, 1)
    (run / name).write_text(content)
    with pytest.raises(LimelightError, match=message):
        write_report([run])


def test_a_folder_that_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere: no such folder"):
        write_report([tmp_path / "nowhere"])
    with pytest.raises(CheckpointError, match=r"no config\.yaml there"):
        write_report([tmp_path])
    with pytest.raises(ConfigError, match="at least one run folder"):
        write_report([])


def test_a_report_loads_neither_pyplot_nor_torch_and_warns_of_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    program = (
        "import sys; from pathlib import Path; from limelight.viewing.report import write_report\n"
        f"write_report([Path({str(run)!r})])\n"
        "print([name for name in ('matplotlib.pyplot', 'torch', 'gymnasium') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_report_of_a_run_is_the_same_to_the_byte(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    first = write_report([run]).read_bytes()
    assert write_report([run]).read_bytes() == first


# --------------------------------------------------------------------------- arithmetic


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (-0.05, "−0.05"),
        (999, "999"),
        (20_000, "20k"),
        (31_500, "31.5k"),
        (1.5e6, "1.5M"),
        (-2e9, "−2G"),
    ],
)
def test_tick_labels_are_short(value: float, text: str) -> None:
    assert plots.short_number(value) == text


@pytest.mark.parametrize(("seconds", "unit"), [(0, "seconds"), (179, "seconds"), (180, "minutes"), (10_800, "hours")])
def test_the_unit_of_the_time_axis_fits_its_length(seconds: float, unit: str) -> None:
    assert plots._time_unit(seconds)[1] == unit


def test_evaluations_stand_where_as_many_episodes_had_finished(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "r", episodes=300, evaluations=4))  # an episode every 100 steps
    np.testing.assert_array_equal(plots._at_episodes(run, run.episodes), np.arange(1, 301))
    evaluations = run.series("eval/mean_reward")
    np.testing.assert_array_equal(plots._at_episodes(run, evaluations), [51, 101, 151, 201])
    figure = plots.learning_curve([run], ["r"], 0.9)
    assert [ax.get_xlabel() for ax in figure.axes] == [
        "environment steps", "wall-clock time of training (seconds)", "training episodes",
    ]  # fmt: skip


def test_the_smoothing_is_a_setting_and_an_argument(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", smoothing=0.5)
    for given, shown in ((None, "0.5"), (0.9, "0.9")):
        page = write_report([run], smoothing=given).read_text(encoding="utf-8")
        assert f"exponential smoothing ({shown})" in page


# --------------------------------------------------------------------------- letters of any script

LETTERS = "中文 مرحبا שלום \U00012000"  # cuneiform, which no usual font has


def test_names_of_any_letters_raise_no_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    folder = tmp_path / LETTERS
    runs = [make_run(folder / f"{LETTERS}{seed}", env_id=f"{LETTERS}:make", seed=seed) for seed in (1, 2)]
    write_report(runs[:1])
    write_report([folder])
    assert (folder / "plots" / "seeds.pdf").exists()
    assert [str(warning.message) for warning in recwarn] == []
    svg = (runs[0] / "plots" / "learning_curve.svg").read_text(encoding="utf-8")
    assert LETTERS in svg
    with plots.style(), pytest.warns(UserWarning, match="others"):  # all other warnings stay
        warnings.warn("others", UserWarning, stacklevel=1)


def test_a_font_with_other_letters_is_used_where_one_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A font that is not installed would be a warning for each text."""
    monkeypatch.setattr(plots.fontManager, "ttflist", [])
    with plots.style():
        assert mpl.rcParams["font.family"] == ["DejaVu Sans"]
    installed = [FontEntry(name="Noto Sans CJK SC"), FontEntry(name="Comic Sans")]
    monkeypatch.setattr(plots.fontManager, "ttflist", installed)
    with plots.style():
        assert mpl.rcParams["font.family"] == ["DejaVu Sans", "Noto Sans CJK SC"]
