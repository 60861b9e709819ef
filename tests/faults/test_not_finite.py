"""Numbers that are not finite: named where they begin, and what the run does about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

import limelight
from conftest import LearnerFactory, RolloutFactory
from helpers.commands import refusal
from helpers.manual_workers import draw_no_report
from helpers.nonfinite_envs import BadAt
from limelight.algo.learner import Learner
from limelight.errors import NonFiniteError
from limelight.runs.checkpoint import checkpoints, read_state


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)


SPACE = Box(-1.0, 1.0, (3,), np.float32)
QUICK: dict[str, Any] = {
    "quiet": True, "tensorboard": False, "eval_every": 0, "final_episodes": 0, "backend": "sync", "num_envs": 2,
    "num_steps": 5, "hidden_sizes": (4,), "report_every": 0, "log_every": 50, "preset": "plain",
}  # fmt: skip


def refused(learner: Learner, rollout: Any) -> str:
    """The message of the update, which must leave the parameters as they are."""
    before = learner.train_state.params.clone()
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError) as error:
        learner.update(rollout, 0.0)
    assert torch.equal(torch.nan_to_num(before), torch.nan_to_num(learner.train_state.params))
    return str(error.value)


def spoil(learner: Learner, part: str, value: float = float("nan")) -> None:
    """Put ``value`` into the first parameter whose name begins so."""
    with torch.no_grad():
        next(p for name, p in learner.model.named_parameters() if name.startswith(part)).view(-1)[0] = value
    learner.network.parameters_changed()


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_log_probability_that_is_not_finite_is_named(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, engine: Any, epochs: int
) -> None:
    learner = make_learner(SPACE, engine, critic="separate", num_epochs=epochs)
    spoil(learner, "policy_head")
    assert "it begins with log π = nan in row 0 of environment 0" in refused(learner, make_rollout(SPACE))


def test_a_value_that_is_not_finite_is_named(make_learner: LearnerFactory, make_rollout: RolloutFactory) -> None:
    learner = make_learner(SPACE, critic="separate")
    spoil(learner, "critic")
    assert "it begins with V(s) = nan in row 0 of environment 0" in refused(learner, make_rollout(SPACE))


def test_a_loss_that_overflows_is_named(make_learner: LearnerFactory, make_rollout: RolloutFactory) -> None:
    learner, rollout = make_learner(SPACE, vf_coef=1e6), make_rollout(SPACE)
    rollout.rewards[:] *= 1e33
    assert "it begins with the value loss = inf" in refused(learner, rollout)


def test_a_return_that_overflows_is_named(make_learner: LearnerFactory, make_rollout: RolloutFactory) -> None:
    learner, rollout = make_learner(SPACE, gae_lambda=1.0), make_rollout(SPACE)
    rollout.rewards[:] = 3e38
    assert "it begins with the return target = " in refused(learner, rollout)


def test_a_gradient_that_is_not_finite_is_named(
    make_learner: LearnerFactory, make_rollout: RolloutFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = make_learner(SPACE)
    backward = learner.network.backward

    def spoiled(*args: Any) -> Any:
        result = backward(*args)
        learner.flat.grads[-1] = float("inf")
        return result

    monkeypatch.setattr(learner.network, "backward", spoiled)
    last = [name for name, _ in learner.model.named_parameters()][-1]
    assert f"it begins with the gradient of parameter {last}; " in refused(learner, make_rollout(SPACE))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["reward", "observation"])
def test_what_an_environment_returns_is_named(tmp_path: Path, where: str, value: float) -> None:
    kwargs = {"where": where, "value": float(value)}
    with pytest.raises(NonFiniteError, match=rf"{where}(\[1\])? = {value} in environment 0, step 10 of its episode"):
        limelight.train(BadAt, env_kwargs=kwargs, total_timesteps=1_000, run_dir=str(tmp_path / "r"), **QUICK)


def test_an_observation_beyond_float32_is_told_from_an_infinity(tmp_path: Path) -> None:
    kwargs = {"where": "observation", "value": 1e300}
    with pytest.raises(NonFiniteError, match=r"observation\[1\] = inf .* a number beyond float32"):
        limelight.train(BadAt, env_kwargs=kwargs, total_timesteps=1_000, run_dir=str(tmp_path / "r"), **QUICK)


# --------------------------------------------------------------------------- the reactions


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("where", ["reward", "observation"])
def test_skipping_leaves_out_the_rollout_and_counts_it(tmp_path: Path, where: str) -> None:
    result = limelight.train(
        BadAt, env_kwargs={"where": where}, total_timesteps=800, run_dir=str(tmp_path / "r"), on_nonfinite="skip",
        **QUICK,
    )  # fmt: skip
    assert (result.status, result.summary["total_timesteps"] >= 800) == ("completed", True)
    assert rows(tmp_path / "r")[-1]["train/skipped_updates"] >= 2
    assert np.isfinite(read_state(checkpoints(tmp_path / "r")[-1])["params"]).all()


def test_skipping_ends_where_nothing_else_comes(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"reward = nan.*; 100 in a row, the most that on_nonfinite leaves out"):
        limelight.train(
            BadAt, env_kwargs={"every": 1}, total_timesteps=800, run_dir=str(tmp_path / "r"), on_nonfinite="skip",
            **QUICK,
        )  # fmt: skip


def test_going_back_learns_on_from_the_checkpoint(tmp_path: Path) -> None:
    """The parameters are spoiled after every update but the first few, so that a checkpoint is needed."""

    class Spoils:
        done = 0

        def on_rollout(self, run: Any) -> None:
            if run.step >= 300 and self.done < 2:
                self.done += 1
                loop = run._loop
                loop.runner.actor_learner.learner.train_state.params[0] = float("nan")
                loop.runner.actor_learner.learner.network.parameters_changed()

    result = limelight.train(
        BadAt, env_kwargs={"every": 10**9}, total_timesteps=800, run_dir=str(tmp_path / "r"), checkpoint_every=100,
        on_nonfinite="rollback", callbacks=[Spoils()], **QUICK,
    )  # fmt: skip
    assert result.status == "completed"
    written = rows(tmp_path / "r")
    assert [row["step"] for row in written] == sorted(row["step"] for row in written)
    assert written[-1]["train/rollbacks"] >= 1
    assert np.isfinite(read_state(checkpoints(tmp_path / "r")[-1])["params"]).all()


def test_going_back_ends_where_it_does_not_help(tmp_path: Path) -> None:
    told = "reward = nan.*; the run went back to step_0+ 3 times, the most with .*rollback; --on-nonfinite skip leaves"
    with pytest.raises(NonFiniteError, match=told):
        limelight.train(
            BadAt, env_kwargs={"every": 3}, total_timesteps=800, run_dir=str(tmp_path / "r"), on_nonfinite="rollback",
            **QUICK,
        )  # fmt: skip


@pytest.mark.parametrize(("algo", "mode"), [("a3c", "rollback"), ("a2c", "ignore")])
def test_a_reaction_that_cannot_work_is_one_line(
    algo: str, mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(
        capsys, "train", "CartPole-v1", "--algo", algo, "--on-nonfinite", mode, "--run-dir", str(tmp_path / "r")
    )
    assert f"on_nonfinite = {mode}" in line or "--on-nonfinite" in line
