"""Whole runs: their files, that they repeat, that they resume exactly, that nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import limelight
from helpers.toys import Corridor
from limelight.errors import ConfigError, EnvError, NonFiniteError, WorkerError
from limelight.runners.sync import SyncRunner
from limelight.runs.checkpoint import latest_checkpoint, read_state
from limelight.settings.io import load_yaml
from limelight.training.evaluator import Evaluator
from limelight.training.run import run

QUICK: dict[str, Any] = {
    "quiet": True,
    "tensorboard": False,
    "eval_every": 0,
    "final_episodes": 0,
    "num_envs": 4,
    "num_steps": 8,
}


class Breaks(gym.Wrapper[Any, Any, Any, Any]):
    """CartPole that raises, or turns its observation to NaN, in step ``after``."""

    def __init__(self, after: int, nan: bool = False) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.after, self.nan, self.steps = after, nan, 0

    def step(self, action: Any) -> Any:
        self.steps += 1
        obs, *rest = self.env.step(action)
        if self.steps == self.after:
            if not self.nan:
                raise RuntimeError("the simulator broke")
            obs = np.array([0.0, np.nan, 0.0, 0.0], np.float32)
        return (obs, *rest)


def tensors(run_dir: Path) -> dict[str, Any]:
    """Return the content of the newest checkpoint that must be equal between equal runs."""
    newest = latest_checkpoint(run_dir)
    assert newest is not None
    state = read_state(newest)
    del state["config"]["run_dir"], state["training"]["runner"]["seconds"]
    state["training"]["evaluator"].pop("solved_at")
    return state


def assert_same(a: Any, b: Any, where: str = "") -> None:
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    elif isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b, err_msg=where)
    else:
        assert a == b, where


@pytest.mark.parametrize(("quiet", "episodes", "announced"), [(False, 2, True), (True, 2, False), (False, 0, False)])
def test_the_final_evaluation_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], quiet: bool, episodes: int, announced: bool
) -> None:
    """It can take minutes, in which the progress display does not move."""
    limelight.train(
        "CartPole-v1", run_dir=str(tmp_path / "r"), quiet=quiet, total_timesteps=200, eval_every=0, seed=1,
        final_episodes=episodes, tensorboard=False,
    )  # fmt: skip
    printed = "".join(capsys.readouterr())
    assert (f"final evaluation: {episodes} greedy episodes" in printed) == announced


def test_a_run_leaves_all_its_files(tmp_path: Path) -> None:
    result = limelight.train(
        "CartPole-v1", run_dir=str(tmp_path / "r"), quiet=True, total_timesteps=3_000, eval_every=1_000, seed=4,
        eval_episodes=3, final_episodes=5, log_every=500,
    )  # fmt: skip
    assert result.status == "completed"
    names = {p.name.split(".")[0] if p.name.startswith("events") else p.name for p in result.run_dir.iterdir()}
    assert names == {
        "config.yaml", "command.txt", "system.json", "metrics.jsonl", "events", "monitor.csv", "checkpoints", "best",
        "plots", "report.html", "summary.json", "lock",
    }  # fmt: skip
    summary = json.loads((result.run_dir / "summary.json").read_text())
    assert summary == result.summary
    for key in (
        "env_id", "algorithm", "seed", "total_timesteps", "wall_seconds", "steps_per_second", "best_eval_return",
        "final_eval_return", "solved_at_step", "solved_at_seconds", "status",
    ):  # fmt: skip
        assert key in summary
    assert 3_000 <= summary["total_timesteps"] < 3_000 + 256
    rows = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    train_rows = [row for row in rows if "train/entropy" in row]
    assert len(train_rows) == 6
    for key in (
        "rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "train/policy_loss", "train/value_loss",
        "train/entropy", "train/explained_variance", "train/grad_norm", "train/learning_rate",
    ):  # fmt: skip
        assert all(key in row for row in train_rows[1:]), key
    assert sum("eval/mean_reward" in row for row in rows) == 3
    assert 0.0 < train_rows[0]["train/entropy"] <= np.log(2) + 1e-6
    action, state = result.agent.predict(np.zeros(4, np.float32))
    assert action in (0, 1)
    assert state is None


def test_the_saved_config_runs_again_to_the_same_parameters(tmp_path: Path) -> None:
    first = limelight.train("CartPole-v1", run_dir=str(tmp_path / "a"), total_timesteps=2_000, seed=3, **QUICK)
    config = load_yaml(first.run_dir / "config.yaml")
    again = run(limelight.settings.io.with_settings(config, {"run_dir": str(tmp_path / "b")}), quiet=True)
    assert_same(tensors(first.run_dir), tensors(again.run_dir))
    other = limelight.train("CartPole-v1", run_dir=str(tmp_path / "c"), total_timesteps=2_000, seed=5, **QUICK)
    assert not np.array_equal(tensors(first.run_dir)["params"], tensors(other.run_dir)["params"])


@pytest.mark.parametrize(
    ("env_id", "settings"),
    [
        ("CartPole-v1", {"num_envs": 8}),
        ("CartPole-v1", {"optimizer": "adam", "normalize_obs": True, "normalize_advantages": "batch"}),
        ("CartPole-v1", {"critic": "target", "num_envs": 1, "num_steps": 1, "target_update_every": 3}),
        ("CartPole-v1", {"algo": "ac", "num_envs": 1, "num_steps": 1, "normalize_advantages": "running"}),
        ("CartPole-v1", {"autoreset_mode": "same_step", "backend": "sync"}),
        ("Acrobot-v1", {"max_episode_steps": 50, "backend": "sync"}),
        ("FrozenLake-v1", {"optimizer": "rmsprop_tf", "lr_schedule": "constant"}),
        ("CartPole-v1", {"normalize_rewards": True, "normalize_obs": True}),
        ("Pendulum-v1", {"normalize_rewards": True, "normalize_obs": True, "noise_correlation": 0.5}),
        pytest.param(
            "Pendulum-v1",
            {"action_std": "softplus", "action_bounds": "squash", "preset": "plain"},
            marks=pytest.mark.slow,
        ),
        ("Pendulum-v1", {"action_std": "gsde", "noise_correlation": 0.8}),
        pytest.param("CartPole-v1", {"algo": "stream-ac", "num_envs": 1, "num_steps": 1}, marks=pytest.mark.slow),
        pytest.param("Pendulum-v1", {"algo": "stream-ac", "num_envs": 1, "num_steps": 1}, marks=pytest.mark.slow),
    ],
)
def test_resume_continues_bit_for_bit(env_id: str, settings: dict[str, Any], tmp_path: Path) -> None:
    whole = limelight.train(
        env_id, run_dir=str(tmp_path / "whole"), total_timesteps=1_500, checkpoint_every=500, keep_last=9,
        **{**QUICK, "eval_every": 600, "eval_episodes": 2, **settings},
    )  # fmt: skip
    for kept in (1, 2):  # killed before the first step, and after 500
        killed = killed_run(whole.run_dir, tmp_path / f"killed-{kept}", kept)
        assert limelight.resume(killed, quiet=True).status == "completed"
        assert_same(tensors(whole.run_dir), tensors(killed))
        assert rows(whole.run_dir) == rows(killed)


def killed_run(whole: Path, folder: Path, kept: int) -> Path:
    """Return a copy of a run with its first checkpoints alone."""
    shutil.copytree(whole, folder)
    checkpoints = sorted((folder / "checkpoints").iterdir())
    assert len(checkpoints) > kept
    for later in checkpoints[kept:]:
        shutil.rmtree(later)
    return folder


def rows(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds" and not k.startswith("time/")} for line in lines]


class Opaque(gym.Wrapper[Any, Any, Any, Any]):
    """Its state cannot be saved."""

    def __init__(self) -> None:
        super().__init__(gym.make("CartPole-v1"))
        self.engine = object()


def test_before_the_first_step_nothing_of_an_environment_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = limelight.train(Opaque, run_dir=str(tmp_path / "r"), total_timesteps=300, **QUICK)
    killed = killed_run(whole.run_dir, tmp_path / "killed", 1)
    limelight.resume(killed, quiet=True, env=Opaque)
    assert "resumed at step 0\n" in capsys.readouterr().err
    assert_same(tensors(whole.run_dir), tensors(killed))
    assert rows(whole.run_dir) == rows(killed)


def test_a_checkpoint_is_written_before_the_evaluation_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, newest = Evaluator.evaluate, list[str]()

    def noted(evaluator: Evaluator, step: int, seconds: float) -> Any:
        newest.append(max(path.name for path in (tmp_path / "r" / "checkpoints").iterdir()))
        return evaluate(evaluator, step, seconds)

    monkeypatch.setattr(Evaluator, "evaluate", noted)
    settings = {**QUICK, "total_timesteps": 300, "eval_every": 10_000, "eval_episodes": 1, "checkpoint_every": 0}
    result = limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), **settings)
    assert newest == [f"step_{result.summary['total_timesteps']:012d}"]


def test_a_run_that_begins_with_an_agent_has_it_in_its_first_checkpoint(tmp_path: Path) -> None:
    first = limelight.train("CartPole-v1", run_dir=str(tmp_path / "a"), total_timesteps=300, **QUICK)
    whole = limelight.train(
        "CartPole-v1", run_dir=str(tmp_path / "b"), total_timesteps=300, init_agent=first.run_dir, **QUICK
    )
    killed = killed_run(whole.run_dir, tmp_path / "killed", 1)
    limelight.resume(killed, quiet=True)
    assert_same(tensors(whole.run_dir), tensors(killed))


def test_a_message_says_that_an_environment_cannot_be_restored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = limelight.train(Opaque, run_dir=str(tmp_path / "r"), total_timesteps=300, **QUICK)
    config = load_yaml(first.run_dir / "config.yaml")
    config = limelight.settings.io.with_settings(config, {"total_timesteps": 600})
    result = run(config, factory=Opaque, resume_from=first.run_dir, quiet=True)
    assert result.summary["total_timesteps"] >= 600
    assert "episodes restart" in capsys.readouterr().err


def test_steps_taken_while_a_checkpoint_waits_for_workers_are_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asynchronous workers on a busy machine may reach the end meanwhile."""
    get_state = SyncRunner.get_state

    def at_the_end(runner: SyncRunner) -> Any:
        if 0 < runner.num_steps < runner.budget.timesteps:
            runner.advance(runner.budget.timesteps, np.inf)
        return get_state(runner)

    monkeypatch.setattr(SyncRunner, "get_state", at_the_end)
    settings = {"num_envs": 2, "num_steps": 5, "total_timesteps": 300, "log_every": 100, "checkpoint_every": 285}
    result = limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), **{**QUICK, **settings})
    steps = [json.loads(line)["step"] for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == result.summary["total_timesteps"] >= 300
    assert max(steps[:-1]) < 285


def test_resume_may_not_change_how_it_learns(tmp_path: Path) -> None:
    first = limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), total_timesteps=100, **QUICK)
    with pytest.raises(ConfigError, match=r"gamma = 0\.5: cannot change on resume"):
        limelight.resume(first.run_dir, gamma=0.5)


def test_a_failing_environment_leaves_a_loadable_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(EnvError, match="the simulator broke"):
        limelight.train(
            lambda: Breaks(after=300), run_dir=str(tmp_path / "r"), total_timesteps=10_000, backend="sync", **QUICK
        )
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["total_timesteps"] > 500
    agent = limelight.load(tmp_path / "r")
    assert agent.predict(np.zeros((3, 4), np.float32))[0].shape == (3,)


def test_a_nan_observation_stops_the_run_with_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        NonFiniteError, match=r"observation\[1\] = nan in environment \d, step \d+ of its episode"
    ) as info:
        limelight.train(
            lambda: Breaks(after=100, nan=True), run_dir=str(tmp_path / "r"), total_timesteps=9_000, backend="sync",
            **QUICK,
        )  # fmt: skip
    assert "\n" not in str(info.value)
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["status"] == "failed"


def test_stop_at_return_is_confirmed_and_kept_as_the_best(tmp_path: Path) -> None:
    result = limelight.train(
        "CartPole-v1", run_dir=str(tmp_path / "r"), quiet=True, tensorboard=False, total_timesteps=200_000, seed=1,
        stop_at_return=60.0, eval_every=2_000, eval_episodes=5, confirm_episodes=20, final_episodes=20,
    )  # fmt: skip
    assert result.status == "reached_return"
    assert result.summary["solved_at_step"] == result.summary["total_timesteps"] < 100_000
    assert result.summary["best_eval_return"] >= 60.0


def test_a_callable_with_discrete_observations_is_learnt(tmp_path: Path) -> None:
    result = limelight.train(
        Corridor, run_dir=str(tmp_path / "r"), total_timesteps=6_000, seed=0, learning_rate=1e-2,
        **{**QUICK, "eval_every": 1_000, "eval_episodes": 4},
    )  # fmt: skip
    evaluation = limelight.evaluate(result.agent, Corridor, episodes=8)
    assert evaluation.mean_return == pytest.approx(1.0)
    assert load_yaml(result.run_dir / "config.yaml").env.env_id == "helpers.toys:Corridor"


def test_a_used_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "mine.txt").write_text("precious")
    with pytest.raises(ConfigError, match="is not empty"):
        limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), **QUICK)
    assert [p.name for p in (tmp_path / "r").iterdir()] == ["mine.txt"]


# --------------------------------------------------------------------------- asynchronous runs


def test_a_script_without_a_guard_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "mine.py"
    script.write_text("import limelight\nlimelight.train(algo='a3c')\n")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(script), raising=False)
    with pytest.raises(ConfigError) as error:
        limelight.train("CartPole-v1", algo="a3c", run_dir=str(tmp_path / "r"), **QUICK)
    text = str(error.value)
    assert text.startswith("algo = a3c: mine.py has no if __name__ == '__main__': guard")
    assert text.endswith("or use algo a2c, which needs no workers")
    assert "\n" not in text
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_an_asynchronous_run_leaves_all_files_and_metrics(tmp_path: Path) -> None:
    result = limelight.train(
        "CartPole-v1", algo="a3c", num_workers=2, run_dir=str(tmp_path / "r"), quiet=True, total_timesteps=4_000,
        eval_every=2_000, eval_episodes=3, final_episodes=3, log_every=500, seed=4,
    )  # fmt: skip
    assert result.status == "completed"
    config = load_yaml(result.run_dir / "config.yaml")
    rollout = config.env.num_envs * config.algorithm.num_steps
    assert 4_000 <= result.summary["total_timesteps"] < 4_000 + 2 * rollout
    rows = [json.loads(line) for line in (result.run_dir / "metrics.jsonl").read_text().splitlines()]
    assert {f"async/worker_{w}/updates_per_second" for w in range(2)} <= {name for row in rows for name in row}
    assert result.agent.predict(np.zeros((3, 4), np.float32))[0].shape == (3,)
    page = (result.run_dir / "report.html").read_text(encoding="utf-8")
    assert "policy lag" in page
    state = tensors(result.run_dir)
    np.testing.assert_array_equal(state["training"]["runner"]["train_states"][0]["params"], state["params"])


def test_failed_workers_leave_a_checkpoint_and_its_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: SyncRunner, until: int, seconds: float) -> dict[str, float]:
        raise WorkerError("worker 0 exited")

    monkeypatch.setattr(SyncRunner, "advance", fail)
    with pytest.raises(WorkerError, match="worker 0 exited") as error:
        limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), total_timesteps=100, **QUICK)
    assert error.value.run_dir == tmp_path / "r"
    assert limelight.load(tmp_path / "r").predict(np.zeros(4, np.float32))[0] in (0, 1)


# --------------------------------------------------------------------------- interruption


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupting_leaves_a_checkpoint_that_resumes(number: signal.Signals, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    command = [
        sys.executable, "-m", "limelight", "train", "CartPole-v1", "--total-timesteps", "50000000", "--run-dir",
        str(folder), "--eval-every", "0", "--final-episodes", "0", "--no-tensorboard",
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    deadline = time.monotonic() + 60
    while not ((folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").stat().st_size):
        assert time.monotonic() < deadline, "the run did not start"
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    assert "Traceback" not in err
    assert "interrupted" in out
    assert "--resume" in out
    step = json.loads((folder / "summary.json").read_text())["total_timesteps"]
    result = limelight.resume(folder, quiet=True, total_timesteps=step + 1)
    assert result.summary["total_timesteps"] > step
