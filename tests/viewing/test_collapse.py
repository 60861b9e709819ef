"""A run that collapses is noticed: by synthetic rows, by short runs made to fail, and not in healthy rows."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

import limelight
from helpers.manual_workers import draw_no_report
from limelight.settings.io import with_settings
from limelight.settings.schema import TrainConfig
from limelight.spaces.exploration import greatest_entropy, num_actions
from limelight.spaces.packed import Packed
from limelight.viewing.collapse import FIRST_EPISODES, CollapseWatch

LEVER = Discrete(4)
FIRST = [float(i % 5) for i in range(FIRST_EPISODES)]
"""Returns of mean 2 and deviation 1.4."""


def make_watch(space: Any = LEVER, has_mask: bool = False, **settings: Any) -> CollapseWatch:
    watch = CollapseWatch(with_settings(TrainConfig(), settings), space, has_mask)
    watch.episodes(FIRST)
    return watch


def rows(watch: CollapseWatch, count: int, **metrics: float) -> list[str]:
    """Return the lines of ``count`` equal rows; metrics by their names without the section."""
    names = {"entropy": "train/entropy", "value": "train/value_mean", "reward": "train/reward_max",
             "mean": "rollout/ep_rew_mean", "evaluation": "eval/mean_reward"}  # fmt: skip
    row = {names[name]: value for name, value in metrics.items()}
    return [line for i in range(count) for line in watch.row(1_000 * (i + 1), row)]


# --------------------------------------------------------------------------- the entropy is gone


def test_entropy_that_is_gone_before_the_return_rose_is_reported_once_with_settings_to_try() -> None:
    watch = make_watch(ent_coef=0.0, learning_rate=1e-3)
    assert rows(watch, 4, entropy=0.01, mean=2.0) == []
    lines = rows(watch, 20, entropy=0.01, mean=2.0)
    assert len(lines) == 1
    assert lines[0].startswith("step 1,000: the entropy is gone before the return rose (entropy 0.7% of the greatest")
    assert lines[0].endswith("try ent_coef 0.01, learning_rate 0.0005 or normalize_rewards true")


def test_entropy_that_falls_while_the_return_rises_is_not_reported() -> None:
    assert rows(make_watch(), 20, entropy=0.0, mean=3.0) == []
    assert rows(make_watch(), 20, entropy=0.05 * math.log(4), mean=2.0) == []


def test_entropy_at_a_single_state_counts_by_the_median_of_the_rows() -> None:
    watch = make_watch()
    lines = []
    for i in range(50):  # two of five states are decided, as a one-step actor-critic logs them
        lines += watch.row(i, {"train/entropy": 0.0 if i % 5 < 2 else 0.5, "rollout/ep_rew_mean": 2.0})
    assert lines == []


def test_entropy_that_comes_back_and_goes_again_is_reported_again() -> None:
    watch = make_watch()
    assert len(rows(watch, 5, entropy=0.0, mean=2.0)) == 1
    assert rows(watch, 5, entropy=1.0, mean=2.0) == []
    assert len(rows(watch, 5, entropy=0.0, mean=2.0)) == 1


def test_nothing_is_said_before_the_first_episodes_have_finished() -> None:
    watch = CollapseWatch(TrainConfig(), LEVER)
    watch.episodes(FIRST[:-1])
    assert rows(watch, 20, entropy=0.0, mean=2.0) == []
    watch.episodes([1.0, 1_000.0])  # only the first of these is one of the first episodes
    assert watch.evidence.first == [*FIRST[:-1], 1.0]
    assert len(rows(watch, 1, entropy=0.0, mean=2.0)) == 1


def test_sigma_of_continuous_actions_is_compared_with_the_first() -> None:
    start = 2 * 0.5 * math.log(2 * math.pi * math.e)
    for share, count in ((0.04, 1), (0.06, 0)):
        watch = make_watch(Box(-1.0, 1.0, (2,), np.float32))
        assert rows(watch, 1, entropy=start, mean=2.0) == []
        lines = rows(watch, 5, entropy=start + 2 * math.log(share), mean=2.0)
        assert len(lines) == count
        assert all("the σ is gone before the return rose (σ 4.0% of the first" in line for line in lines)


def test_with_an_action_mask_the_greatest_entropy_is_the_greatest_that_was_seen() -> None:
    assert len(rows(make_watch(), 9, entropy=0.03, mean=2.0)) == 1
    masked = make_watch(has_mask=True)
    assert rows(masked, 9, entropy=0.03, mean=2.0) == []
    assert rows(masked, 1, entropy=1.2, mean=2.0) == []
    assert len(rows(masked, 9, entropy=0.03, mean=2.0)) == 1
    assert rows(make_watch(Discrete(1)), 9, entropy=0.0, mean=2.0) == []  # there is nothing to choose


def test_greatest_entropy_is_that_of_equally_likely_actions() -> None:
    assert greatest_entropy(Discrete(7)) == pytest.approx(math.log(7))
    assert greatest_entropy(MultiDiscrete([2, 3])) == pytest.approx(math.log(6))
    assert greatest_entropy(MultiBinary(3)) == pytest.approx(math.log(8))
    mixed = Packed(Dict({"a": Discrete(3), "b": Box(-1.0, 1.0, (4,), np.float32)}))
    assert greatest_entropy(mixed) is None
    assert num_actions(mixed) == 4
    assert greatest_entropy(Packed(Dict({"a": Discrete(3), "b": Discrete(5)}))) == pytest.approx(math.log(15))


# --------------------------------------------------------------------------- the values diverge


def test_values_beyond_any_discounted_return_are_reported() -> None:
    watch = make_watch(gamma=0.9, learning_rate=1e-3)
    assert rows(watch, 9, value=-59.0, reward=2.0) == []  # ±20 is possible, and three times that is tolerated
    lines = rows(watch, 9, value=-61.0, reward=2.0)
    assert len(lines) == 1
    assert (
        "the values diverge (mean V -61, where the largest reward learnt from, 2, and gamma 0.9 allow ±20)" in lines[0]
    )
    assert lines[0].endswith("try learning_rate 0.0005, critic separate or normalize_rewards true")
    assert rows(watch, 3, value=10.0, reward=2.0) == []
    assert len(rows(watch, 3, value=1e30, reward=2.0)) == 1


def test_settings_that_the_run_has_already_are_not_tried() -> None:
    watch = make_watch(critic="separate", normalize_rewards=True, gamma=0.9)
    assert rows(watch, 3, value=1e3, reward=1.0)[0].endswith("; try learning_rate 0.00035")


def test_values_are_judged_by_the_largest_reward_of_the_run_and_not_before_there_was_one() -> None:
    watch = make_watch(gamma=0.9)
    assert rows(watch, 9, value=50.0, reward=0.0) == []
    assert rows(watch, 1, value=50.0, reward=3.0) == []
    assert rows(watch, 9, value=50.0, reward=1.0) == []
    assert rows(make_watch(gamma=0.9), 9, value=9.9, reward=1e-3) == []  # as of a network that has learnt nothing
    assert rows(make_watch(gamma=1.0), 9, value=1e9, reward=1.0) == []  # undiscounted: there is no bound


# --------------------------------------------------------------------------- the best is lost


@pytest.mark.parametrize(("name", "noun"), [("mean", "of the last 100 episodes"), ("evaluation", "of evaluations")])
def test_a_return_that_falls_far_below_the_best_and_stays_there_is_reported(name: str, noun: str) -> None:
    watch = make_watch(learning_rate=1e-3)
    assert rows(watch, 3, **{name: 102.0}) == []
    assert rows(watch, 9, **{name: 33.0}) == []  # 31 % of the way from 2 to 102 is left
    assert rows(watch, 2, **{name: 31.0}) == []
    assert rows(watch, 1, **{name: 60.0}) == []  # it does not stay there
    lines = rows(watch, 9, **{name: 31.0})
    assert len(lines) == 1
    assert f"the best is lost (mean return {noun} 31, it was 102); try learning_rate 0.0005" in lines[0]
    assert rows(watch, 3, **{name: 50.0}) + rows(watch, 3, **{name: 31.0}) == []  # not recovered yet
    assert rows(watch, 1, **{name: 80.0}) == []
    assert len(rows(watch, 3, **{name: 31.0})) == 1


def test_a_return_that_never_rose_clearly_cannot_be_lost() -> None:
    watch = make_watch()
    assert rows(watch, 5, mean=3.4) + rows(watch, 9, mean=-10.0) == []
    assert rows(watch, 5, mean=3.5) == []
    assert len(rows(watch, 9, mean=-10.0)) == 1
    # One episode of 50 has a reward: a mean of 0.05 among the first hundreds is luck
    rare = CollapseWatch(TrainConfig(), LEVER)
    rare.episodes([0.0] * 49 + [1.0])
    assert rows(rare, 1, mean=0.05) + rows(rare, 9, mean=0.0) == []


# --------------------------------------------------------------------------- checkpoints and runs


def test_a_resumed_watch_does_not_repeat_a_line() -> None:
    watch = make_watch()
    assert len(rows(watch, 5, entropy=0.0, mean=2.0)) == 1
    resumed = CollapseWatch(watch.config, LEVER)
    resumed.set_state(watch.get_state())
    assert dataclasses.asdict(resumed.evidence) == dataclasses.asdict(watch.evidence)
    assert rows(resumed, 9, entropy=0.0, mean=2.0) == []


class Messages:
    """Stores the messages of a run."""

    def __init__(self) -> None:
        self.collapses: list[str] = []

    def message(self, text: str) -> None:
        if "; try " in text:
            self.collapses.append(text)

    def log(self, *args: Any) -> None: ...

    def episodes(self, *args: Any) -> None: ...

    def close(self) -> None: ...


class Fades(gym.Env[np.ndarray, np.int64]):
    """Pays for the first of two actions, five steps an episode; after 800 steps it pays no more."""

    observation_space = Box(-1.0, 1.0, (1,), np.float32)
    action_space = Discrete(2)
    steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.ones(1, np.float32), {}

    def step(self, action: np.int64) -> Any:
        self.steps += 1
        return np.ones(1, np.float32), float(action == 0 and self.steps < 800), False, self.steps % 5 == 0, {}


SHORT: dict[str, Any] = {
    "algo": "a2c", "total_timesteps": 4_000, "log_every": 200, "num_envs": 2, "num_steps": 8, "tensorboard": False,
    "eval_every": 0, "final_episodes": 0, "checkpoint_every": 0, "seed": 1,
}  # fmt: skip
FAILING: dict[str, tuple[Any, dict[str, Any]]] = {
    "the entropy is gone": ("CartPole-v1", {"learning_rate": 0.1, "ent_coef": 0.0}),
    "the values diverge": ("CartPole-v1", {"critic": "separate", "critic_learning_rate": 5.0}),
    "the best is lost": (Fades, {"learning_rate": 1e-3}),
}


@pytest.mark.parametrize("phrase", FAILING)
def test_a_run_that_collapses_says_so_to_its_loggers_and_not_on_a_quiet_console(
    phrase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_no_report(monkeypatch)
    (env, settings), messages = FAILING[phrase], Messages()
    run_dir = tmp_path / "r"
    limelight.train(env, run_dir=str(run_dir), quiet=True, loggers=[messages], **{**SHORT, **settings})
    said = sum(phrase in line for line in messages.collapses)
    assert 1 <= said <= 3, "once, and again only after it has recovered"
    assert "".join(capsys.readouterr()) == ""
    # Resumed, it does not repeat the line
    resumed = Messages()
    limelight.resume(run_dir, quiet=True, loggers=[resumed], total_timesteps=4_400)
    assert not any(phrase in line for line in resumed.collapses)


def test_a_run_that_learns_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)
    messages = Messages()
    settings = {**SHORT, "total_timesteps": 20_000, "log_every": 500, "num_envs": 16, "num_steps": 16}
    limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), quiet=True, loggers=[messages], **settings)
    assert messages.collapses == []
