"""Groups of runs, their scores and curves, and the files of a comparison; on run folders with known numbers."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from limelight.errors import CheckpointError, ConfigError
from limelight.runs.reader import read_run
from limelight.runs.statistics import iqm
from limelight.settings.io import save_yaml, with_settings
from limelight.settings.schema import TrainConfig
from limelight.viewing.compare import tables_of, write_comparison
from limelight.viewing.groups import (
    common_score,
    curve_noun,
    curves_of,
    differ_by_seed_only,
    differing_settings,
    read_groups,
    run_folders,
    steps_to,
)
from limelight.viewing.jsonl import JsonlLogger
from limelight.viewing.report import write_report

STEPS = (1_000, 2_000, 3_000)


def make_run(
    folder: Path, evaluations: Sequence[float], final: float | None = None, steps: Sequence[int] = STEPS,
    status: str = "completed", **settings: object,
) -> Path:  # fmt: skip
    """Make a run folder with these evaluations, and the summary of a finished run if it has a final evaluation."""
    folder.mkdir(parents=True)
    save_yaml(with_settings(TrainConfig(), settings), folder / "config.yaml")
    metrics = JsonlLogger(folder / "metrics.jsonl")
    for step, value in zip(steps, evaluations, strict=False):
        metrics.log(step, step / 100, {"eval/mean_reward": value, "eval/std_reward": 1.0})
    metrics.close()
    if final is not None:
        summary = {"status": status, "final_eval_return": final, "solved_at_step": None}
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def make_group(folder: Path, finals: Sequence[float], **settings: object) -> Path:
    """Make a folder of runs, whose evaluations rise to their final score."""
    for seed, final in enumerate(finals):
        make_run(folder / f"seed-{seed}", [0.0, final / 2, final], final, seed=seed, **settings)
    return folder


# --------------------------------------------------------------------------- groups


def test_runs_of_a_folder_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for seed in (10, 9, 2):
        make_run(tmp_path / f"seed-{seed}", [1.0])
    assert [path.name for path in run_folders(tmp_path)] == ["seed-2", "seed-9", "seed-10"]
    assert run_folders(tmp_path / "seed-2") == [tmp_path / "seed-2"]


def test_a_folder_without_runs_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.yaml there or in a folder in it; give the folder of a run"):
        run_folders(tmp_path)


def test_single_runs_with_equal_settings_form_a_group(tmp_path: Path) -> None:
    one = [make_run(tmp_path / f"a{seed}", [1.0], 1.0, seed=seed) for seed in range(2)]
    other = make_run(tmp_path / "b", [1.0], 1.0, gamma=0.5)
    groups = read_groups([one[0], other, one[1]])
    assert [[run.folder.name for run in group.runs] for group in groups] == [["a0", "a1"], ["b"]]
    assert differ_by_seed_only(groups[0].runs)
    assert not differ_by_seed_only([groups[0].runs[0], groups[1].runs[0]])
    assert not differ_by_seed_only([groups[0].runs[0], groups[0].runs[0]])  # the same seed twice
    assert differing_settings(groups) == [("gamma", [[0.99], [0.5]])]


# --------------------------------------------------------------------------- scores and curves


def test_the_score_is_one_that_every_finished_run_has(tmp_path: Path) -> None:
    finished = make_group(tmp_path / "a", [10.0, 20.0])
    (groups,) = read_groups([finished])
    assert common_score([groups]).noun == "final evaluation of the best agent"
    assert common_score([groups]).scores(groups) == [10.0, 20.0]
    make_run(finished / "seed-2", [3.0, 2.0], seed=2)  # still running: it has no final evaluation yet
    (groups,) = read_groups([finished])
    assert common_score([groups]).scores(groups) == [10.0, 20.0]
    running = make_run(tmp_path / "b", [3.0, 2.0], seed=2)
    (other,) = read_groups([running])
    score = common_score([groups, other])
    assert score.noun == "best evaluation"
    assert score.scores(other) == [3.0]
    with pytest.raises(ConfigError, match="c: no episode has ended in any of its runs"):
        common_score(read_groups([make_run(tmp_path / "c", [])]))


def test_steps_to_a_score_are_those_of_the_first_evaluation_that_reaches_it(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "a", [1.0, 5.0, 4.0], 5.0))
    assert steps_to(run, 5.0) == 2_000
    assert steps_to(run, 4.5) == 2_000
    assert steps_to(run, 6.0) is None
    assert steps_to(run, None) is None


def test_curves_are_read_at_common_steps(tmp_path: Path) -> None:
    """The first begins later, the second ends earlier; between measurements a line is drawn."""
    make_run(tmp_path / "g" / "0", [10.0, 30.0], 30.0, steps=(1_000, 3_000), seed=0)
    make_run(tmp_path / "g" / "1", [0.0, 2.0, 4.0], 4.0, steps=(500, 1_500, 2_500), seed=1)
    (group,) = read_groups([tmp_path / "g"])
    curves = curves_of(group, curve_noun([group]))
    assert curves.steps.tolist() == [1_000, 1_500, 2_500]
    np.testing.assert_allclose(curves.values, [[10.0, 15.0, 25.0], [1.0, 2.0, 4.0]])


def test_a_run_that_stopped_at_its_target_stays_there(tmp_path: Path) -> None:
    make_run(tmp_path / "g" / "0", [10.0, 30.0], 30.0, seed=0, status="reached_return")
    make_run(tmp_path / "g" / "1", [0.0, 2.0, 4.0], 4.0, seed=1)
    (group,) = read_groups([tmp_path / "g"])
    curves = curves_of(group, curve_noun([group]))
    assert curves.steps.tolist() == [1_000, 2_000, 3_000]
    assert curves.values[0].tolist() == [10.0, 30.0, 30.0]


def test_runs_without_a_common_step_have_no_mean(tmp_path: Path) -> None:
    make_run(tmp_path / "g" / "0", [10.0, 30.0], 30.0, steps=(100, 200), seed=0)
    make_run(tmp_path / "g" / "1", [0.0, 2.0], 2.0, steps=(500, 600), seed=1)
    (group,) = read_groups([tmp_path / "g"])
    assert curves_of(group, curve_noun([group])).steps.tolist() == []


# --------------------------------------------------------------------------- the comparison


def test_a_comparison_has_its_tables_and_figures(tmp_path: Path) -> None:
    """Five seeds a side that do not overlap: the probability is 1 and so are the ends of its interval."""
    good = make_group(tmp_path / "good", [90.0, 100.0, 110.0, 95.0, 105.0], learning_rate=0.001)
    bad = make_group(tmp_path / "bad_one", [10.0, 20.0, 30.0, 15.0, 25.0], learning_rate=0.1)
    summary = next(bad.glob("*/summary.json"))
    summary.write_text(summary.read_text().replace('"status"', '"state"'))  # nothing tells of its end
    folder, text = write_comparison([good, bad], score=50.0)
    assert folder == tmp_path / "compare-good+bad_one"
    figures = {f"plots/{name}.{kind}" for name in ("curves", "scores") for kind in ("png", "svg", "pdf")}
    names = {"compare.md", "compare.tex", "compare.csv", "pairs.csv", "settings.csv", "scores.csv"}
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.*")} == figures | names
    assert (folder / "compare.md").read_text() == text + "\n"
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]
    middle = float(iqm(np.array([90.0, 100.0, 110.0, 95.0, 105.0])))
    assert cells[2][:3] == ["good", "5", f"{middle:g}"]
    assert cells[2][5] == "2,000 (5 of 5)"  # two seeds need another evaluation
    assert cells[3][5] == "never (0 of 5)"
    assert cells[6][:4] == ["good above bad_one", "1.00", "1.00 to 1.00", "80"]
    assert cells[9] == ["learning_rate", "0.001", "0.1"]
    rows = list(csv.DictReader((folder / "scores.csv").read_text().splitlines()))
    assert len(rows) == 10
    assert rows[0]["score"] == "90.0"
    assert {row["status"] for row in rows} == {"completed", "broken_off"}, "the words of limelight list runs"
    assert r"bad\_one" in (folder / "compare.tex").read_text()
    assert (folder / "plots" / "curves.pdf").read_bytes().startswith(b"%PDF")


def test_groups_with_names_of_any_letters_raise_no_warning(tmp_path: Path) -> None:
    """Warnings are errors here; no usual font has cuneiform letters."""
    good, bad = (
        make_group(tmp_path / f"{name} 中文\U00012000", [1.0, 2.0], gamma=float(name)) for name in ("0.5", "1")
    )
    folder, _ = write_comparison([good, bad])
    assert "中文\U00012000" in (folder / "plots" / "scores.svg").read_text(encoding="utf-8")


def test_the_number_of_further_seeds_counts_those_there_are(tmp_path: Path) -> None:
    groups = read_groups([make_group(tmp_path / "a", [1.0, 3.0]), make_group(tmp_path / "b", [1.0, 3.0], gamma=0.5)])
    tables, _ = tables_of(groups, 2.0 * 0.5**0.5, None)  # one standard deviation: 17 seeds a side
    assert tables[1].rows[0][1:3] == ["0.50", "0.00 to 1.00"]
    assert tables[1].rows[0][4] == "15 + 15 to show 1.414 (17 a side)"
    tables, _ = tables_of(groups, None, None)
    assert tables[1].rows[0][4] == "no difference"


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    groups = read_groups([make_group(tmp_path / "a", [1.0]), make_group(tmp_path / "b", [2.0, 3.0], gamma=0.5)])
    tables, _ = tables_of(groups, None, None)
    assert tables[0].rows[0][3] == "–"
    assert tables[1].rows[0][2] == "–"
    assert tables[1].rows[0][4].startswith("unknown")


def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path: Path) -> None:
    a = make_group(tmp_path / "a", [1.0, 2.0])
    pendulum = make_group(tmp_path / "p", [1.0], env_id="Pendulum-v1")
    with pytest.raises(ConfigError, match=r"run_dirs: one group of runs \(a\); give two folders"):
        write_comparison([a])
    with pytest.raises(ConfigError, match=r"env_id: CartPole-v1 and Pendulum-v1: returns of different environments"):
        write_comparison([a, pendulum])
    b = make_group(tmp_path / "b", [1.0], gamma=0.5)
    with pytest.raises(ConfigError, match=r"difference = -1: must be above 0"):
        write_comparison([a, b], difference=-1.0)
    with pytest.raises(ConfigError, match=r"output = .*: cannot be made"):
        write_comparison([a, b], output=a / "seed-0" / "config.yaml")


def test_the_report_of_several_seeds_begins_with_their_mean(tmp_path: Path) -> None:
    folder = make_group(tmp_path / "a", [1.0, 2.0, 6.0])
    path = write_report([folder])
    assert path == folder / "report.html"
    page = path.read_text()
    assert page.index("<h2>Over seeds</h2>") < page.index("<h2>Learning curve</h2>")
    assert (folder / "plots" / "seeds.pdf").exists()
    assert '<th scope="row">IQM</th><td>3</td>' in page
    make_run(folder / "seed-9", [1.0, 2.0], seed=9, gamma=0.5)
    assert "Over seeds" not in write_report([folder]).read_text()  # another setting: these are no seeds of one
