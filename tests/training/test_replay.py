"""Runs that fail with a number that is not finite, replayed to its place."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import limelight
from helpers.settings import one_line
from limelight.errors import CheckpointError, NonFiniteError
from limelight.runs.checkpoint import checkpoints, read_state
from limelight.training.replay import Replay, replay

QUICK: dict[str, Any] = {
    "quiet": True, "tensorboard": False, "eval_every": 0, "final_episodes": 0, "num_envs": 4, "num_steps": 5,
    "preset": "plain", "hidden_sizes": (8, 8), "seed": 1, "algo": "a2c",
}  # fmt: skip
ENV = "helpers.overflowing_envs:Overflows"


@pytest.fixture(autouse=True)
def _no_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("limelight.training.run"), "draw_report", lambda run_dir: None)


def failing(folder: Path, what: str, **settings: Any) -> str:
    """Train until it fails; return the error."""
    env_kwargs = {"what": what, "reals": settings.pop("reals", False)}
    options = {**QUICK, "total_timesteps": 2_000, "checkpoint_every": 60, "run_dir": str(folder), **settings}
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError) as error:
        limelight.train(ENV, env_kwargs=env_kwargs, **options)
    return one_line(error)


def place_of(end: Replay) -> str:
    assert end.found is not None
    return end.found.place


MINIBATCHES: dict[str, Any] = {"num_epochs": 2, "num_minibatches": 2, "clip_ratio": 0.2}


@pytest.mark.parametrize(
    ("what", "settings", "place"),
    [
        ("nan", {}, "observation[1] of the environment"),
        ("reward", {}, "reward of the environment"),
        ("obs", {"activation": "relu"}, "layer encoder.layers.0 (Linear)"),
        ("obs", {"activation": "elu", "critic": "separate"}, "layer encoder.layers.0 (Linear)"),
        ("obs", {"reals": True, "activation": "relu"}, "layer encoder.layers.0 (Linear)"),
        ("obs", {**MINIBATCHES, "activation": "relu"}, "layer encoder.layers.0 (Linear)"),
        ("large", {"reward_scale": 10.0}, "the loss: ∂L/∂V(s), from the return to learn from"),
    ],
    ids=str,
)
def test_the_number_of_an_environment_is_found_at_its_step(
    what: str, settings: dict[str, Any], place: str, tmp_path: Path
) -> None:
    line = failing(tmp_path / "r", what, **settings)
    assert f"limelight replay {tmp_path / 'r'}" in line
    notes: list[str] = []
    end = replay(tmp_path / "r", notify=notes.append)
    assert place_of(end) == place
    assert end.found is not None
    assert end.found.env in range(4)
    assert not any("not exactly" in note for note in notes)
    step = next(note for note in notes if note.startswith("replaying from step"))
    assert int(step.split()[-1]) > 0, "from a checkpoint, and not the one of the error"
    assert len(end.actions) == 10
    assert end.step == 4 * 44, "of the copies together"


def test_the_whole_run_and_its_last_checkpoint_find_the_same_number(tmp_path: Path) -> None:
    failing(tmp_path / "r", "obs", activation="relu")
    late, whole = replay(tmp_path / "r"), replay(tmp_path / "r", at=0)
    assert (place_of(late), late.step, late.env) == (place_of(whole), whole.step, whole.env)
    assert [row.actions.tolist() for row in late.actions] == [row.actions.tolist() for row in whole.actions]


@pytest.mark.parametrize(
    "settings",
    [{"activation": "relu"}, {"activation": "elu"}, {**MINIBATCHES, "activation": "relu"}],
    ids=["numpy", "torch", "minibatches"],
)
def test_a_huge_step_size_is_found_in_parameters_or_the_layers_they_make(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    failing(tmp_path / "r", "nothing", learning_rate=10.0, max_grad_norm=None, hidden_sizes=(8,) * 4, **settings)
    assert place_of(replay(tmp_path / "r")).startswith(
        ("parameter ", "layer ", "the optimizer's ", "the gradient ", "the norm ")
    )


def test_a_checkpoint_of_an_error_says_so_and_the_ones_before_are_kept(tmp_path: Path) -> None:
    failing(tmp_path / "r", "nan", keep_last=1)
    exact, failed = checkpoints(tmp_path / "r")
    assert "error" not in read_state(exact)["training"]
    assert "observation[1]" in read_state(failed)["training"]["error"]


@pytest.mark.slow
def test_a_run_with_workers_is_replayed_with_one_and_says_so(tmp_path: Path) -> None:
    failing(tmp_path / "r", "nan", algo="a3c", num_workers=1, checkpoint_every=0)
    notes: list[str] = []
    end = replay(tmp_path / "r", notify=notes.append)
    assert place_of(end) == "observation[1] of the environment"
    assert any("cannot be replayed exactly" in note for note in notes)


def test_a_sound_run_has_no_such_number(tmp_path: Path) -> None:
    limelight.train(ENV, total_timesteps=100, run_dir=str(tmp_path / "r"), **QUICK)
    end = replay(tmp_path / "r", at=0)
    assert end.found is None
    assert end.step >= 100
    with pytest.raises(CheckpointError, match="at = 3: no checkpoint at this step"):
        replay(tmp_path / "r", at=3)


def test_a_number_that_a_recurrent_core_hides_from_the_loss_is_found_too(tmp_path: Path) -> None:
    settings = {**QUICK, "core": "gru", "core_size": 8, "activation": "relu", "run_dir": str(tmp_path / "r")}
    with np.errstate(all="ignore"):
        limelight.train(ENV, env_kwargs={"what": "obs"}, total_timesteps=240, **settings)
    end = replay(tmp_path / "r", at=0)
    assert place_of(end) == "layer encoder.layers.0 (Linear)"
    assert end.step == 4 * 44


@pytest.mark.parametrize("at", [None, 0])
def test_what_callbacks_ordered_is_repeated(at: int | None, tmp_path: Path) -> None:
    """A reward overflows only where a callback has set the attribute by then."""

    class Break:
        def on_rollout(self, run: Any) -> None:
            if run.step >= 150:
                run.set_env_attr("what", "reward")
                run.change_setting("ent_coef", 0.5)

    error = failing(tmp_path / "r", "nothing", callbacks=[Break()], checkpoint_every=100)
    assert "reward" in error
    notes: list[str] = []
    end = replay(tmp_path / "r", at=at, notify=notes.append)
    assert place_of(end) == "reward of the environment"
    assert end.step >= 150
    assert f"in environment {end.env}" in error
    assert not any("not exactly" in note for note in notes)


def test_orders_that_are_not_known_are_said_to_be_left_out(tmp_path: Path) -> None:
    class Calls:
        def on_start(self, run: Any) -> None:
            run.call_env("take", {1, 2})

    folder = tmp_path / "r"
    failing(folder, "reward", callbacks=[Calls()])
    notes: list[str] = []
    replay(folder, at=0, notify=notes.append)
    assert any("what its callbacks set, called or changed is not known in full" in note for note in notes)
