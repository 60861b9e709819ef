"""The checkpoint that RUN, RUN:best, RUN:last or RUN:STEP names, and the words on a parent."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.settings import one_line, train_config
from limelight.errors import CheckpointError, ConfigError, LimelightError
from limelight.runs.checkpoint import save_checkpoint
from limelight.runs.origin import describe_parent, has_other_env, read_origin, read_parent
from limelight.settings.io import save_yaml, to_dict


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    save_yaml(train_config(), folder / "config.yaml")
    for step in (100, 200):
        state = {"config": to_dict(train_config(gamma=step / 1000)), "training": {"runner": {"num_steps": step}}}
        save_checkpoint(folder, step, state, keep_last=3)
    return folder


def test_a_checkpoint_is_named_by_its_step_and_brings_its_settings(run: Path) -> None:
    assert read_origin(f"{run}:100").step == 100
    assert read_origin(f"{run}:100").config.algorithm.gamma == 0.1
    for name in (str(run), f"{run}:last"):
        assert read_origin(name).step == 200
    assert read_origin(f"{run}:1_00").step == 100


def test_a_damaged_checkpoint_is_named_with_the_one_to_ask_for(run: Path) -> None:
    newest = sorted((run / "checkpoints").iterdir())[-1]
    (newest / "state.json").write_text("{", encoding="utf-8")
    with pytest.raises(CheckpointError, match=rf"{newest / 'state.json'}: damaged .*; give {run}:100, which is intact"):
        read_origin(str(run))
    assert read_origin(f"{run}:100").step == 100


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("{run}:150", CheckpointError, "no checkpoint at step 150; there are 100, 200"),
        ("{run}:best", CheckpointError, "no evaluation has saved a best agent; give {run}:last"),
        ("{run}:bset", ConfigError, "bset is no checkpoint; give {run}, {run}:best, {run}:last or {run}:STEP"),
        ("{run}x", CheckpointError, "is no folder of a run"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_those_that_do(
    name: str, kind: type[LimelightError], message: str, run: Path
) -> None:
    with pytest.raises(kind) as error:
        read_origin(name.format(run=run))
    assert message.format(run=run) in one_line(error)


def test_a_parent_is_told_in_a_line() -> None:
    parent = {"from": "runs/a:best", "step": 1500, "changed": {"gamma": [0.99, 0.9], "total_episodes": [None, 5]}}
    assert describe_parent(parent) == (
        "branched from runs/a:best at step 1,500; gamma 0.99 → 0.9; total_episodes none → 5"
    )
    assert not has_other_env(parent)
    assert has_other_env({**parent, "changed": {"env_kwargs": [{}, {"a": 1}]}})


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    assert read_parent(tmp_path) is None
    (tmp_path / "parent.json").write_text('{"step": 1}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"parent\.json: damaged"):
        read_parent(tmp_path)
