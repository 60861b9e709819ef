"""Files that are cut, altered or made of anything: a typed error at worst."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import limelight
from helpers.altered_files import cut_or_altered, paths_of, plain, put
from helpers.saved_runs import copy_of_run, rewrite
from limelight.errors import LimelightError
from limelight.runs.listing import list_runs
from limelight.runs.origin import read_origin
from limelight.runs.reader import read_run
from limelight.settings.io import load_yaml
from limelight.settings.rules import load_valid
from limelight.viewing.explain.diagnosis import explain
from limelight.viewing.report import write_report

FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MANY = settings(FEW, max_examples=1_500)
TEXTS = ("metrics.jsonl", "monitor.csv", "summary.json", "config.yaml")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return copy_of_run(tmp_path)


@contextlib.contextmanager
def typed() -> Iterator[None]:
    """Allow errors of this library."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of NumPy and Matplotlib, on numbers near the largest
        with contextlib.suppress(LimelightError):
            yield


def read_all(run: Path) -> None:
    """Read the files of a run as every command but report does."""
    with typed():
        explain(read_run(run))
    with typed():
        list_runs(run.parent)
    with typed():
        read_origin(f"{run}:best")


def try_altered_files(run: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(TEXTS))
    original = (run / name).read_bytes()
    (run / name).write_bytes(cut_or_altered(original, data.draw))
    try:
        read_all(run)
    finally:
        (run / name).write_bytes(original)


def try_any_rows(run: Path, data: st.DataObject) -> None:
    original = (run / "metrics.jsonl").read_text()
    row = json.loads(original.splitlines()[0])
    for key in data.draw(st.lists(st.sampled_from([*row, "eval/mean_reward", "train/entropy"]), max_size=4)):
        row[key] = data.draw(plain)
    (run / "metrics.jsonl").write_text(original + json.dumps(row) + "\n")
    summary = json.loads((run / "summary.json").read_text())
    changed = {key: data.draw(plain) for key in data.draw(st.lists(st.sampled_from([*summary, "error"]), max_size=2))}
    (run / "summary.json").write_text(json.dumps({**summary, **changed}))
    try:
        read_all(run)
    finally:
        (run / "metrics.jsonl").write_text(original)
        (run / "summary.json").write_text(json.dumps(summary))


def try_any_agent(run: Path, data: st.DataObject) -> None:
    shutil.copytree(run / "best", run / "altered", dirs_exist_ok=True)

    def change(content: dict[str, Any]) -> None:
        path = data.draw(st.sampled_from(paths_of(content)[1:]))
        finite = plain.filter(lambda value: "NaN" not in json.dumps(value) and "Infinity" not in json.dumps(value))
        put(content, path, data.draw(finite))

    rewrite(run / "altered", change)
    with typed():
        limelight.load(run / "altered").predict([0.0, 0.0, 0.0, 0.0])


def try_any_settings(folder: Path, data: st.DataObject) -> None:
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for path in data.draw(st.lists(st.sampled_from(paths_of(config)[1:]), min_size=1, max_size=2)):
        with contextlib.suppress(LookupError, TypeError):
            put(config, path, data.draw(plain))
    (folder / "other.yaml").write_text(yaml.safe_dump(config))
    with typed():
        load_valid(folder / "other.yaml")


COLUMNS = b"#{}\nr,l,t,step,env,worker\n"
DAMAGE = {
    "a summary with a list": ("summary.json", b'{"status": []}', "summary.json: damaged (status = "),
    "a summary of 1e308 s": (
        "summary.json",
        b'{"wall_seconds": 1e308}',
        "summary.json: damaged (wall_seconds = ",
    ),
    "a summary that is a list": ("summary.json", b"[1]", "summary.json: damaged (not a JSON object)"),
    "a summary that is cut": ("summary.json", b'{"status": "com', "summary.json: damaged (not a JSON object)"),
    "a row with NaN": ("metrics.jsonl", b'{"step": 1, "seconds": NaN}\n', "metrics.jsonl: line 1 is damaged"),
    "a row with a text": (
        "metrics.jsonl",
        b'{"step": 1, "seconds": 0, "x": ""}\n',
        "metrics.jsonl: line 1 is damaged",
    ),
    "a row without a step": ("metrics.jsonl", b'{"seconds": 0}\n', "metrics.jsonl: line 1 is damaged"),
    "an episode with a text": ("monitor.csv", COLUMNS + b"1,x,1,1,0,0\n", "monitor.csv: damaged"),
    "an episode with an infinity": (
        "monitor.csv",
        COLUMNS + b"inf,1,1,1,0,0\n",
        "monitor.csv: damaged",
    ),
    "settings that are cut": ("config.yaml", b"seed: [1, ", "config.yaml: not readable as YAML"),
    "settings that are a list": ("config.yaml", b"- 1\n", "config.yaml: must be a mapping"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_each_kind_of_damage_is_named(kind: str, run: Path) -> None:
    name, content, words = DAMAGE[kind]
    (run / name).write_bytes(content)
    with pytest.raises(LimelightError, match=re.escape(words)):
        read_run(run)


def test_a_saved_agent_of_another_form_is_named(run: Path) -> None:
    rewrite(run / "best", lambda content: content["state"].update(normalizer=[1], params=None))
    with pytest.raises(LimelightError, match="best: not what this version of limelight saves"):
        limelight.load(run)


@FEW
@given(data=st.data())
def test_files_that_are_cut_or_altered(run: Path, data: st.DataObject) -> None:
    try_altered_files(run, data)


@FEW
@given(data=st.data())
def test_rows_and_summaries_of_any_values(run: Path, data: st.DataObject) -> None:
    try_any_rows(run, data)


@FEW
@given(data=st.data())
def test_saved_agents_with_any_value_anywhere(run: Path, data: st.DataObject) -> None:
    try_any_agent(run, data)


@FEW
@given(data=st.data())
def test_settings_with_any_value_anywhere(run: Path, data: st.DataObject) -> None:
    try_any_settings(run, data)


@FEW
@given(text=st.text(max_size=60))
def test_settings_of_any_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text, encoding="utf-8", errors="replace")
    with typed():
        load_yaml(tmp_path / "config.yaml")


@pytest.mark.faults
@pytest.mark.parametrize("attempt", [try_altered_files, try_any_rows, try_any_agent, try_any_settings])
def test_many_of_each(run: Path, attempt: Any) -> None:
    @MANY
    @given(data=st.data())
    def try_many(data: st.DataObject) -> None:
        attempt(run, data)

    try_many()


@pytest.mark.parametrize(
    "share", [pytest.param(0.3, marks=pytest.mark.faults), 0.6, pytest.param(0.95, marks=pytest.mark.faults)]
)
def test_a_report_of_rows_that_are_cut_short_is_drawn(run: Path, share: float) -> None:
    for name in ("metrics.jsonl", "monitor.csv"):
        data = (run / name).read_bytes()
        (run / name).write_bytes(data[: int(len(data) * share)])
    if share > 0.5:
        (run / "summary.json").unlink()
    assert write_report([run]).exists()
    assert explain(read_run(run))


@pytest.mark.faults
@pytest.mark.parametrize("value", ["1e308", "-1e308", "1e-320", "null"])
def test_a_report_of_extreme_numbers_is_drawn(run: Path, value: str) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    row = {name: json.loads(value) for name in json.loads(lines[-1]) if name not in ("step", "seconds")}
    lines.append(json.dumps({"step": 10**6, "seconds": 1e3, **row}))
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with typed():
        assert write_report([run]).exists()
