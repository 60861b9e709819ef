"""``check_env``: every breach of the contract is one finding that says what to change."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, Text

from limelight import check
from limelight.check import Finding, check_env
from limelight.config import EnvConfig

OBS = np.array([0.5, -0.5], np.float32)


class Faulty(gym.Env[Any, Any]):
    """Episodes of up to 40 steps; ``fault`` names what is wrong with it."""

    def __init__(self, fault: str = "", ends: str = "terminated", reward: float = 1.0) -> None:
        self.fault, self.ends, self.reward, self.t = fault, ends, reward, 0
        self.length = 0
        self.observation_space = Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = Text(3) if fault == "words" else Discrete(2)
        if fault == "large_obs":
            self.observation_space = Box(-np.inf, np.inf, (2,), np.float32)
        if fault == "constructor":
            raise RuntimeError("no such map\nand more")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        self.length = 40 if self.ends == "fixed" else int(self.np_random.integers(20, 41))
        if self.fault == "reset_raises":
            raise KeyError("level")
        if self.fault == "reset_obs_only":
            return self._obs()
        if self.fault == "reset_info":
            return self._obs(), None
        return self._obs(), {}

    def _obs(self) -> Any:
        wrong: dict[str, Any] = {
            "shape": np.zeros(3, np.float32),
            "text": np.array(["a", "b"]),
            "float64": OBS.astype(np.float64),
            "outside": OBS * 3,
            "large_obs": OBS * 1000,
            "nan": np.array([0.0, np.nan], np.float32),
        }
        if self.fault == "late_nan" and self.t == 5:
            return wrong["nan"]
        if self.fault == "unseeded":
            return np.random.default_rng().uniform(-1, 1, 2).astype(np.float32)
        return wrong.get(self.fault, OBS)

    def step(self, action: Any) -> Any:
        self.t += 1
        over = self.t >= self.length and self.ends != "never"
        ends = {"truncated": (False, over)}.get(self.ends, (over, False))
        if self.fault == "step_raises":
            raise ZeroDivisionError
        if self.fault == "old_step":
            return self._obs(), 1.0, over, {}
        reward: Any = {"reward_text": "1", "reward_array": np.ones(1), "reward_inf": np.inf}.get(
            self.fault, self.reward
        )
        if self.fault == "reward_inf" and self.t < 3:
            reward = 1.0
        if self.fault == "flag":
            return self._obs(), reward, 0, False, {}
        return self._obs(), reward, *ends, ["info"] if self.fault == "info" else {}


def not_an_env() -> int:
    return 3


def findings(name: str = "Faulty", **kwargs: Any) -> dict[str, Finding]:
    found = check_env(EnvConfig(env_id=f"{__name__}:{name}", env_kwargs=kwargs))
    by_subject = {finding.subject: finding for finding in found}
    assert len(by_subject) == len(found), "two findings about the same thing"
    assert all(f.message and "\n" not in f.message for f in found)
    return by_subject


@pytest.mark.parametrize(
    ("fault", "subject", "parts"),
    [
        ("reset_raises", "reset", ["reset() raised KeyError", "level"]),
        ("reset_obs_only", "reset", ["a ndarray", "must be (observation, info)"]),
        ("reset_info", "reset", ["(ndarray, NoneType)", "info a dict"]),
        ("step_raises", "step", ["step() raised ZeroDivisionError"]),
        ("old_step", "step", ["4 values", "terminated, truncated"]),
        ("reward_text", "step", ["'1'", "must be a number"]),
        ("reward_array", "step", ["array", "must be a number"]),
        ("reward_inf", "reward", ["step 3", "inf", "must be finite"]),
        ("flag", "step", ["terminated = 0", "True or False"]),
        ("info", "step", ["info = ['info']", "must be a dict"]),
        ("shape", "observation", ["shape (3,)", "(2,)"]),
        ("text", "observation", ["dtype <U1", "float32"]),
        ("nan", "observation", ["nan at (1,)", "must be finite"]),
        ("late_nan", "observation", ["step 5", "nan at (1,)"]),
        ("words", "spaces", ["action space", "Discrete"]),
    ],
)
def test_a_breach_fails_and_says_what_to_change(fault: str, subject: str, parts: list[str]) -> None:
    found = findings(fault=fault)
    assert found[subject].level == "fail"
    for part in parts:
        assert part in found[subject].message
    assert "backend" not in found, "no plan for an environment that cannot be trained on"


@pytest.mark.parametrize(
    ("kwargs", "subject", "part"),
    [
        ({"fault": "float64"}, "observations", "return obs.astype(np.float32)"),
        ({"fault": "outside"}, "observations", "with 1.5 at (0,): observation_space says [-1, 1]; widen it"),
        ({"fault": "large_obs"}, "observations", "normalize_obs"),
        ({"fault": "unseeded"}, "seeding", "super().reset(seed=seed)"),
        ({"ends": "never"}, "time limit", "no episode ended in 300 random steps"),
        (
            {"ends": "fixed"},
            "time limit",
            "after exactly 40 steps; if that is a time limit, return truncated",
        ),
        ({"ends": "terminated"}, "time limit", "set max_episode_steps"),
        ({"reward": 2500.0}, "rewards", "set reward_scale to about 0.001"),
        ({"reward": 0.0}, "rewards", "all 0 in 300 random steps"),
    ],
)
def test_what_can_be_trained_on_but_may_go_wrong_is_a_warning(
    kwargs: dict[str, Any], subject: str, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "MAX_STEPS", 300)
    found = findings(**kwargs)
    assert found[subject].level == "warn"
    assert part in found[subject].message
    assert not [f for f in found.values() if f.level == "fail"]
    assert found["backend"].message.startswith(("sync", "async"))  # by the time a step takes


def test_an_environment_that_truncates_by_itself_is_fine() -> None:
    found = findings(ends="truncated")
    assert {f.level for f in found.values()} == {"ok"}
    assert "truncates by itself" in found["time limit"].message


def test_max_episode_steps_is_a_time_limit() -> None:
    found = check_env(EnvConfig(env_id=f"{__name__}:Faulty", env_kwargs={"ends": "never"}, max_episode_steps=7))
    limit = next(f for f in found if f.subject == "time limit")
    assert (limit.level, "7 steps" in limit.message) == ("ok", True)


@pytest.mark.parametrize(
    ("name", "kwargs", "part"),
    [
        ("Faulty", {"fault": "constructor"}, "no such map"),
        ("Faulty", {"colour": 1}, "colour"),
        ("not_an_env", {}, "int"),
        ("nothing", {}, "nothing"),
    ],
)
def test_an_environment_that_cannot_be_made_is_the_only_finding(name: str, kwargs: dict[str, Any], part: str) -> None:
    found = findings(name, **kwargs)
    assert list(found) == ["make"]
    assert found["make"].level == "fail"
    assert part in found["make"].message


def test_a_slow_environment_is_only_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MAX_SECONDS", 0.0)
    found = findings(ends="truncated")
    assert "1 random steps" in found["rewards"].message
    assert found["speed"].level == "ok"


def test_cartpole_passes_with_its_vectorised_class() -> None:
    found = {f.subject: f for f in check_env(EnvConfig(env_id="CartPole-v1"))}
    assert {f.level for f in found.values()} == {"ok"}
    assert found["make"].message == "CartPole-v1 is a CartPoleEnv"
    assert found["spaces"].message == "Box(4,) float32 → Discrete(2)"
    assert found["backend"].message.startswith("vector")
    assert "500 steps" in found["time limit"].message
