"""The asynchronous runner with two workers in processes of their own: budget, metrics, checkpoints, resumption."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import limelight
from helpers.manual_workers import assert_same, draw_no_report, quick_config
from limelight.algo.episodes import Episode
from limelight.errors import ConfigError
from limelight.runners.processes.runner import ProcessRunner
from limelight.runners.processes.shared import Control
from limelight.runners.worker_metrics import Counter
from limelight.training.run import build, run
from limelight.typing import Metrics, State

TOTAL, MORE = 4_000, 5_000


@contextmanager
def make_runner(**settings: Any) -> Iterator[ProcessRunner]:
    runner, _ = build(quick_config(**settings), None)
    assert isinstance(runner, ProcessRunner)
    try:
        yield runner
    finally:
        runner.close()


@dataclass
class Run:
    """Metrics, episodes and final state of a run of two workers."""

    rows: list[Metrics]
    episodes: list[Episode]
    counters: np.ndarray
    state: State
    params: np.ndarray


SETTINGS: dict[str, Any] = {"num_workers": 2, "normalize_obs": True, "optimizer": "adam"}


def advance(runner: ProcessRunner, total: int) -> list[Metrics]:
    rows = []
    while runner.num_steps < total:
        rows.append(runner.advance(total, 0.1))
    return [row for row in rows if row]


@pytest.fixture(scope="module")
def finished() -> Run:
    with make_runner(total_timesteps=TOTAL, **SETTINGS) as runner:
        rows = advance(runner, TOTAL)
        state, counters = runner.get_state(), runner.counters.copy()
        assert runner.pop_messages() == []
        return Run(rows, runner.pop_episodes(), counters, state, runner.learner.flat.params.numpy().copy())


def test_a_run_stops_within_one_rollout_of_each_worker(finished: Run) -> None:
    assert TOTAL <= finished.state["num_steps"] < TOTAL + 2 * 2 * 5


def test_steps_and_updates_of_the_workers_add_up(finished: Run) -> None:
    workers = finished.counters[:2]
    assert (workers[:, Counter.STEPS] > 0).all()
    assert workers[:, Counter.STEPS].sum() == finished.state["num_steps"]
    assert not finished.counters[2].any()
    learnt = [worker["learner"]["num_updates"] for worker in finished.state["workers"]]
    assert learnt == workers[:, Counter.UPDATES].tolist()
    assert workers[:, Counter.SKIPPED].sum() == 0
    # Each episode was reported once; those still running are in the states of the workers.
    running = sum(int(np.sum(worker["collector"]["episodes"]["lengths"])) for worker in finished.state["workers"])
    assert sum(episode.length for episode in finished.episodes) + running == finished.state["num_steps"]
    assert {episode.env for episode in finished.episodes} == {0, 1, 2, 3}
    steps = [episode.step for episode in finished.episodes]
    assert steps == sorted(steps)
    assert all(episode.length <= episode.step <= finished.state["num_steps"] for episode in finished.episodes)


def test_two_workers_have_a_policy_lag(finished: Run) -> None:
    assert max(row["async/policy_lag"] for row in finished.rows) > 0
    for row in finished.rows:
        assert 0 <= row["async/policy_lag"] <= row["async/policy_lag_max"]
        assert row["async/worker_restarts"] == row["async/skipped_updates"] == 0
        for worker in (0, 1):
            assert row[f"async/worker_{worker}/steps_per_second"] >= 0
            assert row[f"async/worker_{worker}/updates_per_second"] >= 0


def test_adam_counts_every_update_except_those_lost_to_races(finished: Run) -> None:
    (train_state,) = finished.state["train_states"]
    updates = int(finished.counters[:, Counter.UPDATES].sum())
    assert 0.9 * updates < int(train_state["optimizer"]["step"]) <= updates
    np.testing.assert_array_equal(train_state["params"].numpy(), finished.params)


def test_a_resumed_run_continues_from_its_state(finished: Run) -> None:
    with make_runner(total_timesteps=MORE, **SETTINGS) as runner:
        assert runner.set_state(finished.state, 1) == (
            "the order of asynchronous updates is not reproducible, so this continues the run but does not repeat it"
        )
        assert (runner.num_steps, runner.seconds) == (finished.state["num_steps"], finished.state["seconds"])
        assert_same({**runner.get_state(), "seconds": 0}, {**finished.state, "seconds": 0})
        while not runner.supervisor.start(1.0):
            assert runner.num_steps == finished.state["num_steps"]
        with runner.supervisor.paused() as restored:  # before the first command to run
            for before, after in zip(finished.state["workers"], restored, strict=True):
                assert after is not None
                for key in ("learner", "policy", "collector", "envs"):
                    assert_same(after[key], before[key])
                common = finished.state["moments"]["observations"]
                assert_same(after["normalizer"], common)  # the shared statistics, not those of this worker
        assert runner.pop_messages() == []  # no episode had to be restarted
        advance(runner, MORE)
        later = runner.get_state()
        assert MORE <= later["num_steps"] < MORE + 20
        assert later["seconds"] > finished.state["seconds"]
        gained = later["counters"] - finished.state["counters"]
        assert gained[Counter.STEPS] == later["num_steps"] - finished.state["num_steps"]
        steps = [int(state["train_states"][0]["optimizer"]["step"]) for state in (finished.state, later)]
        assert 0.9 * gained[Counter.UPDATES] < steps[1] - steps[0] <= gained[Counter.UPDATES]
        before, after = (state["moments"]["observations"]["count"] for state in (finished.state, later))
        assert after > before
        assert int(runner.control[Control.LIMIT]) == MORE


def test_reaching_a_return_stops_the_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)
    config = quick_config(
        total_timesteps=1_000_000, run_dir=str(tmp_path / "r"), stop_at_return=9.0, eval_every=500, eval_episodes=2,
        confirm_episodes=4,
    )  # fmt: skip
    result = run(config, quiet=True)
    assert result.status == "reached_return"
    # The workers continue while the agent of that step is evaluated.
    assert 500 <= result.summary["solved_at_step"] <= result.summary["total_timesteps"] < 500_000
    assert limelight.load(result.run_dir).predict(np.zeros(4, np.float32))[0] in (0, 1)


def test_a_runner_can_be_closed_before_it_starts_and_twice() -> None:
    with make_runner() as runner:
        assert runner.get_state()["workers"] == [None]
        runner.close()


def test_too_few_open_files_are_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with make_runner(num_workers=3) as runner:

        def refuse(*_: object, **__: object) -> None:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(runner.supervisor.context, "Pipe", refuse)
        with pytest.raises(ConfigError, match=r"^num_workers = 3: worker 0 cannot be started \(Too many open files\)"):
            runner.advance(10, 1.0)


# --------------------------------------------------------------------------- starting and stopping repeatedly


def cycles(tmp_path: Path, number: int, workers: int, open_files: int) -> None:
    """Run several times in one process, with few open files, a long TMPDIR and a full /dev/shm: nothing may remain."""
    import resource  # which Windows does not have

    tmp = tmp_path / ("x" * (149 - len(str(tmp_path))))
    tmp.mkdir()
    assert len(str(tmp)) == 150

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))

    before = set(os.listdir("/dev/shm"))
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("cycles.py")), str(number), str(workers)],
        capture_output=True, text=True, timeout=900, preexec_fn=limit, env={**os.environ, "TMPDIR": str(tmp)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # above all from the resource tracker
    first, *later = json.loads(done.stdout)
    assert len(later) == number - 1
    assert first["steps"] >= 200
    for cycle in later:
        assert {**cycle, "steps": 0} == {**first, "steps": 0}
        assert cycle["steps"] >= 200
    assert first["children"] == []
    assert first["threads"] == ["MainThread"]
    assert list(tmp.iterdir()) == []
    assert not {name for name in set(os.listdir("/dev/shm")) - before if name.startswith(("pym-", "sem.", "torch_"))}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc and /dev/shm")
def test_starting_and_stopping_leaves_nothing_behind(tmp_path: Path) -> None:
    cycles(tmp_path, number=3, workers=1, open_files=64)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc and /dev/shm")
@pytest.mark.parametrize(("number", "workers"), [(50, 1), (2, 16)])
def test_starting_and_stopping_many_times_leaves_nothing_behind(number: int, workers: int, tmp_path: Path) -> None:
    cycles(tmp_path, number, workers, open_files=256)
