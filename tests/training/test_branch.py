"""Runs that begin from a checkpoint of another one: exactly, with changed settings, and what does not fit."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import limelight
from helpers.callbacks import Recorder
from helpers.settings import one_line
from limelight.errors import CheckpointError, ConfigError
from limelight.runs.checkpoint import latest_checkpoint, read_state
from limelight.runs.folder import read_json
from limelight.runs.reader import read_run
from limelight.viewing.report import write_report

QUIET: dict[str, Any] = {
    "quiet": True, "tensorboard": False, "eval_every": 0, "final_episodes": 0, "num_envs": 4, "num_steps": 8,
    "log_every": 100,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _no_reports() -> Iterator[None]:
    """Drawing takes longer than these runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("limelight.training.run"), "draw_report", lambda run_dir: None)
        yield


def params(run_dir: Path) -> Any:
    newest = latest_checkpoint(run_dir)
    assert newest is not None
    return read_state(newest)["params"]


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of about 640 steps with checkpoints at about 320 and at its end, normalised."""
    folder = tmp_path_factory.mktemp("runs") / "parent"
    limelight.train(
        "Acrobot-v1", algo="a2c", preset="plain", total_timesteps=640, checkpoint_every=320, normalize_obs=True,
        normalize_rewards=True, run_dir=str(folder), seed=3, **QUIET,
    )  # fmt: skip
    return folder


def first_step(parent: Path) -> int:
    return int(sorted((parent / "checkpoints").iterdir())[0].name.removeprefix("step_"))


@pytest.mark.parametrize(
    ("env_id", "settings"),
    [
        ("Acrobot-v1", {"normalize_obs": True, "normalize_rewards": True, "optimizer": "adam"}),
        ("Pendulum-v1", {"core": "gru", "num_epochs": 2, "num_minibatches": 2, "clip_ratio": 0.2}),
    ],
)
def test_a_branch_with_the_same_settings_equals_the_uninterrupted_run(
    env_id: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    whole = limelight.train(
        env_id, algo="a2c", preset="plain", total_timesteps=640, checkpoint_every=320, run_dir=str(tmp_path / "whole"),
        **QUIET, **settings,
    )  # fmt: skip
    child = limelight.branch(
        f"{whole.run_dir}:{first_step(whole.run_dir)}", run_dir=str(tmp_path / "child"), quiet=True
    )
    assert child.summary["total_timesteps"] == whole.summary["total_timesteps"]
    np.testing.assert_array_equal(params(child.run_dir), params(whole.run_dir))
    rows = [
        [row["train/entropy"] for row in read_run(run.run_dir).metrics if "train/entropy" in row]
        for run in (whole, child)
    ]
    assert rows[0] == rows[1]
    assert (read_run(child.run_dir).episodes.values == read_run(whole.run_dir).episodes.values).all()


def test_the_parent_and_the_changes_are_recorded(parent: Path, tmp_path: Path) -> None:
    child = limelight.branch(parent, total_timesteps=900, learning_rate=1e-5, run_dir=str(tmp_path / "c"), quiet=True)
    record = read_json(child.run_dir / "parent.json")
    assert record["run"] == str(parent.resolve())
    assert record["changed"].keys() == {"total_timesteps", "learning_rate"}
    assert child.summary["parent"] == str(parent)
    run = read_run(child.run_dir)
    assert run.metrics[0]["step"] < record["step"] < run.metrics[-1]["step"]
    assert [row["step"] for row in run.metrics] == sorted(row["step"] for row in run.metrics)
    page = write_report([child.run_dir]).read_text(encoding="utf-8")
    assert "branched from its parent" in page, "the line in the curve"
    assert f"branched from {parent} at step" in page
    again = limelight.resume(child.run_dir, total_timesteps=1_000, quiet=True)
    assert again.summary["parent_step"] == record["step"]


@pytest.mark.parametrize(
    ("settings", "new"),
    [
        ({"optimizer": "adam"}, {"the optimizer's state"}),
        ({"num_envs": 2}, {"the episodes"}),
        ({"max_episode_steps": 50}, {"the episodes"}),
        ({"seed": 9}, {"the episodes", "the random streams"}),
        ({"normalize_rewards": False, "gamma": 0.9}, set()),
        ({"normalize_obs": False}, {"the episodes"}),
        ({"critic": "target"}, None),
        ({"num_epochs": 2, "num_minibatches": 2, "clip_ratio": 0.2, "normalize_advantages": "running"}, set()),
        pytest.param({"algo": "a3c", "num_workers": 1}, {"the episodes", "the random streams"}, marks=pytest.mark.slow),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "new",
)
def test_any_setting_can_change_and_what_begins_anew_is_said(
    settings: dict[str, Any], new: set[str] | None, parent: Path, tmp_path: Path
) -> None:
    lines: list[str] = []
    options = {"total_timesteps": 800, "run_dir": str(tmp_path / "c"), "quiet": True, "loggers": [Messages(lines)]}
    if new is None:
        with pytest.raises(CheckpointError, match=r"critic.* in its network"):
            limelight.branch(parent, **options, **settings)
        assert not (tmp_path / "c").exists()
        return
    result = limelight.branch(parent, **options, **settings)
    assert result.summary["total_timesteps"] >= 800
    (line,) = [line for line in lines if line.startswith("branched from")]
    said = {part for text in line.split("; ") if text.startswith("new: ") for part in text[5:].split(", ")}
    assert said == new
    for name in settings.keys() - {"algo", "num_workers"}:
        assert f"{name} " in line


@pytest.mark.slow
def test_a_run_with_workers_goes_on_without_them(tmp_path: Path) -> None:
    asynchronous = limelight.train(
        "Acrobot-v1", algo="a3c", preset="plain", num_workers=1, total_timesteps=320, normalize_obs=True,
        run_dir=str(tmp_path / "a"), **QUIET,
    )  # fmt: skip
    child = limelight.branch(
        asynchronous.run_dir,
        algo="a2c",
        total_timesteps=600,
        learning_rate=1e-12,
        run_dir=str(tmp_path / "c"),
        quiet=True,
    )
    assert child.summary["algorithm"] == "a2c"
    before = read_state(latest_checkpoint(asynchronous.run_dir) or tmp_path)
    np.testing.assert_allclose(params(child.run_dir), before["params"], atol=1e-6)
    after = read_state(latest_checkpoint(child.run_dir) or tmp_path)
    assert after["normalizer"]["count"] > before["normalizer"]["count"] > 0


def test_the_best_agent_has_its_own_step(tmp_path: Path) -> None:
    settings = {**QUIET, "eval_every": 200, "eval_episodes": 1, "max_episode_steps": 40}
    run = limelight.train(
        "Acrobot-v1", algo="a2c", preset="plain", total_timesteps=640, run_dir=str(tmp_path / "p"), checkpoint_every=0,
        **settings,
    )  # fmt: skip
    path = run.run_dir / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    evaluated = [row for row in rows if "eval/mean_reward" in row]
    evaluated[0]["eval/mean_reward"] = 1e6  # the first is the best
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    child = limelight.branch(f"{run.run_dir}:best", run_dir=str(tmp_path / "c"), quiet=True)
    assert child.summary["parent_step"] == evaluated[0]["step"]


def test_a_branch_that_cannot_work_is_refused_in_one_line(parent: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        limelight.branch(parent, quiet=True)
    assert "the parent has done" in one_line(error)
    with pytest.raises(CheckpointError) as wrong:
        limelight.branch(parent, hidden_sizes=(32,), total_timesteps=900, quiet=True)
    assert "--init-agent" in one_line(wrong)
    with pytest.raises(ConfigError, match="gama: no such setting; did you mean gamma"):
        limelight.branch(parent, gama=1.0, quiet=True)


def test_a_run_from_another_device_and_another_folder_goes_on_here(parent: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "run"
    shutil.copytree(parent, moved)
    config = moved / "config.yaml"
    config.write_text(config.read_text().replace("device: cpu", "device: cuda"))
    lines: list[str] = []
    result = limelight.resume(moved, total_timesteps=800, quiet=True, loggers=[Messages(lines)])
    assert result.run_dir == moved
    assert any("device cpu: PyTorch sees no CUDA device here" in line for line in lines)


class Messages:
    """A logger that keeps the messages."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    def message(self, text: str) -> None:
        self.lines.append(text)

    def log(self, *_: Any) -> None: ...
    def episodes(self, *_: Any) -> None: ...
    def close(self) -> None: ...


# --------------------------------------------------------------------------- callbacks, and numbers of the environment

INFORMS = "helpers.informing_envs:Informs"
ONCE = "helpers.callbacks:Once(level=2.0, at=100)"


def informed(folder: Path, algo: str = "a2c", **settings: Any) -> Path:
    """Return the folder of a run whose callback has set an attribute and the step size."""
    workers = {"num_workers": 1} if algo == "a3c" else {}
    options = {**QUIET, **workers, "callback": [ONCE], "checkpoint_every": 160, **settings}
    return limelight.train(
        INFORMS, algo=algo, preset="plain", total_timesteps=320, run_dir=str(folder), **options
    ).run_dir


def test_what_callbacks_had_set_and_their_states_go_on_in_a_branch(tmp_path: Path) -> None:
    whole = informed(tmp_path / "whole")
    middle = first_step(whole)
    child = limelight.branch(f"{whole}:{middle}", run_dir=str(tmp_path / "child"), quiet=True).run_dir
    np.testing.assert_array_equal(params(child), params(whole))
    runs = [read_run(folder).episodes.values for folder in (whole, child)]
    assert (runs[0] == runs[1]).all()
    assert runs[0][-1] == 6.0, "the level of the callback, over three steps"


@pytest.mark.slow
def test_what_callbacks_had_set_goes_on_with_workers(tmp_path: Path) -> None:
    asynchronous = informed(tmp_path / "a", "a3c")
    child = limelight.branch(asynchronous, total_timesteps=480, run_dir=str(tmp_path / "c"), quiet=True).run_dir
    assert read_run(child).episodes.values[-1] == 6.0
    alone = limelight.branch(
        asynchronous, algo="a2c", total_timesteps=480, callback=[], run_dir=str(tmp_path / "d"), quiet=True
    ).run_dir
    assert read_run(alone).episodes.values[-1] == 6.0


@pytest.mark.parametrize(
    ("settings", "new", "level"),
    [
        ({"env_kwargs": {"level": 5.0}}, "the episodes, the attributes that callbacks had set, the callbacks", 5.0),
        ({"learning_rate": 1e-3}, None, 2.0),
        ({"info_keys": ["cost"]}, None, 2.0),
        ({"info_keys": ["sum:cost"]}, "the episodes", 2.0),
    ],
    ids=str,
)
def test_settings_of_a_branch_win_over_what_callbacks_had_set(
    settings: dict[str, Any], new: str | None, level: float, tmp_path: Path
) -> None:
    parent = informed(tmp_path / "p")
    messages: list[str] = []
    child = limelight.branch(
        parent, total_timesteps=480, callback=[], run_dir=str(tmp_path / "c"), quiet=True, lr_schedule="constant",
        loggers=[Messages(messages)], **settings,
    )  # fmt: skip
    (line,) = [line for line in messages if line.startswith("branched from")]
    assert line.partition("; new: ")[2] == (new or "")
    run = read_run(child.run_dir)
    assert run.episodes.values[-1] == 3 * level
    assert run.series("train/learning_rate").values[-1] == pytest.approx(settings.get("learning_rate", 1e-4))


def test_callbacks_of_a_branch_hear_of_the_start_first(tmp_path: Path) -> None:
    recorder = Recorder()
    limelight.branch(
        informed(tmp_path / "p"), total_timesteps=480, run_dir=str(tmp_path / "c"), quiet=True, callbacks=[recorder]
    )
    assert recorder.events[0] == "start"
