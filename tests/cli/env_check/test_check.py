"""``check_env``: every breach of the contract is one finding that names the change to make."""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Space, Text, Tuple

from helpers.composite_envs import Doors
from limelight.cli.env_check import check
from limelight.cli.env_check.check import check_env
from limelight.cli.env_check.findings import BrokenError, Finding, RandomPlay
from limelight.cli.env_check.findings import rewards as judge_rewards
from limelight.settings.schema import AlgorithmConfig, EnvConfig

OBS = np.array([0.5, -0.5], np.float32)


class Faulty(gym.Env[Any, Any]):
    """Episodes of up to 40 steps; ``fault`` names the fault of the environment."""

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
        if self.fault == "late_space":
            self.action_space = Discrete(9)
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
        reward: Any = {
            "reward_text": "1",
            "reward_array": np.ones(1),
            "reward_two": np.ones(2),
            "reward_inf": np.inf,
        }.get(self.fault, self.reward)
        if self.fault == "reward_inf" and self.t < 3:
            reward = 1.0
        flags = {"flag": 0, "flag_text": "no", "late_flag": None if self.t == 5 else False}
        if self.fault in flags:
            return self._obs(), reward, flags[self.fault], False, {}
        return self._obs(), reward, *ends, ["info"] if self.fault == "info" else {}


NESTED = Dict(
    {
        "camera": Box(0, 255, (4, 5, 3), np.uint8),
        "inside": Tuple([Discrete(3), Dict({"speed": Box(-1.0, 1.0, (2,)), "lamp": Box(0, 1, (2,), np.bool_)})]),
    }
)


class Nested(Faulty):
    """Observations of nested parts; ``fault`` names the fault of one of them, from the third step on."""

    def __init__(self, fault: str = "") -> None:
        super().__init__(fault, ends="truncated")
        self.observation_space = Dict(dict(NESTED.spaces))
        if fault == "text":
            self.observation_space = Dict({"inside": Tuple([Discrete(3), Text(3)])})

    def _obs(self) -> Any:
        speed: Any = np.array([0.5, -0.5], np.float32)
        camera: Any = np.zeros((4, 5, 3), np.uint8)
        if self.t >= 3:
            wrong = {
                "nan": np.array([0.5, np.nan], np.float32),
                "shape": np.zeros(3, np.float32),
                "float64": speed.astype(np.float64),
            }
            speed = wrong.get(self.fault, speed)
            camera = camera + 0.5 if self.fault == "fractions" else camera
        inside: dict[str, Any] = {"speed": speed, "lamp": np.zeros(2, np.bool_)}
        if self.t >= 3 and self.fault == "missing":
            del inside["speed"]
        if self.t >= 3 and self.fault in ("extra", "extra_and_nan"):
            inside["height"] = 1.0
        if self.fault == "text":
            return {"inside": (0, "abc")}
        door = 3 if self.fault == "value" and self.t >= 3 else 0
        obs: dict[str, Any] = {"camera": camera, "inside": (np.int64(door), inside)}
        if self.t >= 3 and self.fault == "longer":
            obs["inside"] = (*obs["inside"], 5)
        return obs


class Reused(Faulty):
    """Returns the same array every time, with other numbers in it."""

    def __init__(self) -> None:
        super().__init__(ends="truncated")
        self.array, self.counter = OBS.copy(), 0

    def _obs(self) -> Any:
        self.counter += 1
        self.array[0] = self.counter % 997 / 1000
        return self.array


class Shaped(Faulty):
    """Other spaces, with observations of zeros."""

    def __init__(self, observations: str = "", actions: str = "", info_key: str = "") -> None:
        super().__init__(ends="truncated" if info_key != "TimeLimit.truncated" else "terminated")
        spaces: dict[str, Space[Any]] = {
            "image": Box(0.0, 1.0, (40, 50, 3)),
            "counts": Box(-1000, 1000, (2,), np.int64),
            "pixels": Box(0, 255, (84, 84, 3), np.uint8),
            "integers": Box(-3, 3, (2,), np.int64),
            "unbounded": Box(-np.inf, np.inf, (2,)),
            "one side": Box(0.0, np.inf, (2,)),
            "wide": Box(-1e9, 1e9, (2,)),
            "one value": Box(np.array([-1.0, 2.0], np.float32), np.array([1.0, 2.0], np.float32)),
            "fine": Box(-2.0, 3.0, (2,)),
            "parts": Dict({"arm": Box(-2.0, 3.0, (2,)), "hand": Tuple([Discrete(2), Box(0.0, np.inf, (1,))])}),
            "masked box": Dict({"action_mask": MultiBinary(2), "x": Box(-1.0, 1.0, (2,))}),
        }
        self.observation_space = spaces.get(observations, self.observation_space)
        self.action_space = spaces.get(actions, self.action_space)
        self.info_key = info_key

    def _obs(self) -> Any:
        space = self.observation_space
        if isinstance(space, Dict):
            return {key: np.zeros(part.shape or (), part.dtype) for key, part in space.spaces.items()}
        return np.full(space.shape or (), 200 if space.dtype == np.int64 else 0, space.dtype)

    def step(self, action: Any) -> Any:
        *most, info = super().step(action)
        return (*most, {**info, self.info_key: True} if self.info_key else info)


class Closed(Doors):
    """Doors with keyword arguments that the command line can give."""

    def __init__(self, where: str = "info", fault: str = "", two_choices: bool = False) -> None:
        super().__init__(where, fault, (3, 2) if two_choices else (5,))


@pytest.fixture(autouse=True)
def _short_play(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MAX_STEPS", 300)


def not_an_env() -> int:
    return 3


def findings(name: str = "Faulty", **kwargs: Any) -> dict[str, Finding]:
    found = [f for f in check_env(EnvConfig(env_id=f"{__name__}:{name}", env_kwargs=kwargs)) if f.subject != "rule"]
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
        ("reward_text", "reward", ["'1'", "must be a number"]),
        ("reward_two", "reward", ["array", "must be a number"]),
        ("reward_inf", "reward", ["step 3", "inf", "must be finite"]),
        ("flag_text", "terminated", ["terminated = 'no'", "True or False"]),
        ("late_flag", "terminated", ["step 5", "terminated = None", "True or False"]),
        ("late_space", "reset", ["reset() changed action_space"]),
        ("info", "info", ["info = ['info']", "must be a dict"]),
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
    ("fault", "subject", "parts"),
    [
        ("missing", "observation", ["step 3", "no ['inside'][1]['speed']", "has 'lamp'"]),
        ("shape", "observation", ["step 3", "at ['inside'][1]['speed'] of shape (3,)", "has (2,)"]),
        ("nan", "observation", ["step 3", "at ['inside'][1]['speed'] with nan at (1,)", "must be finite"]),
        ("value", "observation", ["step 3", "at ['inside'][0] ", "not in Discrete(3)"]),
        (
            "fractions",
            "observation",
            ["at ['camera'] with 0.5", "uint8", "cut it to 0", "(255 * obs).astype"],
        ),
        ("text", "spaces", ["Text at ['inside'][1] is not supported", "wrap the environment"]),
    ],
)
def test_a_breach_inside_a_composite_observation_is_reported_with_its_path(
    fault: str, subject: str, parts: list[str]
) -> None:
    found = findings("Nested", fault=fault)
    assert found[subject].level == "fail"
    for part in parts:
        assert part in found[subject].message
    assert "backend" not in found


class ManyFaults(Faulty):
    """Breaks the contract in ``reset``, in ``step`` and later in an episode."""

    def __init__(self, late: bool = False) -> None:
        super().__init__(ends="truncated")
        self.late = late
        self.action_space = Box(-3, 3, (2,), np.int64)  # type: ignore[assignment]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        obs, info = super().reset(seed=seed)
        return (obs, info) if self.late else obs

    def step(self, action: Any) -> Any:
        obs, _, terminated, truncated, info = super().step(action)
        if self.late:
            obs = np.full(2, np.nan) if self.t >= 5 else obs
            return obs, np.inf if self.t >= 9 else 1.0, terminated, truncated, info
        return np.zeros(3, np.float32), "1", "no", truncated, None


def test_all_faults_are_found_in_one_pass() -> None:
    """Of the returned values, and what no network can do."""
    failed = [f for f in check_env(EnvConfig(env_id=f"{__name__}:ManyFaults")) if f.level == "fail"]
    assert [f.subject for f in failed] == ["reset", "observation", "reward", "terminated", "info", "network"]
    failed = [
        f for f in check_env(EnvConfig(env_id=f"{__name__}:ManyFaults", env_kwargs={"late": True})) if f.level == "fail"
    ]
    assert [(f.subject, f.message.partition(" of an")[0]) for f in failed[:2]] == [
        ("observation", "step 5"),
        ("reward", "step 9"),
    ]
    assert failed[2].subject == "network"


class Declared(Faulty):
    """Declares a limit that its episodes of 20 to 40 steps do not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = gym.envs.registration.EnvSpec("Declared-v0", max_episode_steps=500)


def test_a_limit_that_was_not_reached_is_told_from_what_was_seen() -> None:
    limit = {f.subject: f for f in check_env(EnvConfig(env_id=f"{__name__}:Declared"))}["time limit"]
    assert limit.level == "ok"
    seen = re.fullmatch(
        r"500 steps are declared; the longest of (\d+) episodes took (\d+) in (\d+) random steps", limit.message
    )
    assert seen is not None, limit.message
    episodes, longest, steps = map(int, seen.groups())
    assert 30 < longest <= 40
    assert 20 * episodes <= steps == 300


class TwoForeignSpaces(Faulty):
    def __init__(self) -> None:
        super().__init__()
        self.observation_space, self.action_space = Text(2), Text(3)  # type: ignore[assignment]


def test_both_spaces_are_judged() -> None:
    failed = [f for f in check_env(EnvConfig(env_id=f"{__name__}:TwoForeignSpaces")) if f.level == "fail"]
    assert [f.subject for f in failed] == ["spaces", "spaces"]
    assert "observation space Text" in failed[0].message
    assert "action space Text" in failed[1].message


@pytest.mark.parametrize(
    ("fault", "part"),
    [
        ("extra", "with ['inside'][1]['height']: not in observation_space, so it is left out"),
        ("longer", "with ['inside'][2]: not in observation_space"),
        ("float64", "at ['inside'][1]['speed'] of dtype float64: observation_space has float32"),
    ],
)
def test_a_part_unlike_its_space_is_a_warning_with_its_path(fault: str, part: str) -> None:
    found = findings("Nested", fault=fault)
    assert (found["observations"].level, part in found["observations"].message) == ("warn", True)
    assert "network" in found


def test_a_composite_environment_without_a_fault_is_fine() -> None:
    found = findings("Nested")
    assert {f.level for f in found.values()} == {"ok"}
    assert found["spaces"].message.startswith("Dict(camera: Box(4, 5, 3) uint8, inside: Tuple(Discrete(3), Dict(")
    assert "Box(4, 5, 3) uint8 through the CNN universe" in found["network"].message
    assert found["backend"].message.startswith(("sync", "async"))


def test_an_array_that_the_environment_reuses_does_not_hide_that_episodes_differ() -> None:
    assert findings("Reused")["seeding"].level == "warn"


@pytest.mark.parametrize(
    ("kwargs", "subject", "level", "part"),
    [
        ({"observations": "image"}, "spaces", "warn", "Box(40, 50, 3) float32 is flattened; if it is an image"),
        ({"observations": "pixels"}, "network", "ok", "Box(84, 84, 3) uint8 through the CNN a3c; 675,"),
        ({"observations": "counts"}, "observations", "warn", "reach ±200: large for integers"),
        ({"actions": "integers"}, "network", "fail", "make it a MultiDiscrete"),
        ({"actions": "fine"}, "actions", "ok", "[-1, 1] rescaled to [-2, 3]"),
        ({"actions": "unbounded"}, "actions", "ok", "clipped to [-inf, inf]"),
        ({"actions": "one side"}, "actions", "warn", "clipped to [0, inf]; has a bound on only one side"),
        ({"actions": "wide"}, "actions", "warn", "so wide that an action near 0"),
        ({"actions": "one value"}, "actions", "warn", "a single value; remove it"),
        (
            {"actions": "parts"},
            "actions",
            "warn",
            "['arm'] [-1, 1] rescaled to [-2, 3]; ['hand'][1] clipped to [0, inf]",
        ),
        (
            {"actions": "fine", "info_key": "action_mask"},
            "action mask",
            "warn",
            "cannot be masked; it is ignored",
        ),
        (
            {"observations": "masked box", "actions": "fine"},
            "action mask",
            "warn",
            "action_mask found, but Box(2,)",
        ),
        ({"info_key": "TimeLimit.truncated"}, "time limit", "warn", "return truncated"),
    ],
)
def test_spaces_have_networks_and_bounds(kwargs: dict[str, Any], subject: str, level: str, part: str) -> None:
    found = findings("Shaped", **kwargs)
    assert (found[subject].level, part in found[subject].message) == (level, True), found[subject]


@pytest.mark.parametrize(
    ("kwargs", "part"),
    [
        ({"fault": "missing"}, "step 2 of an episode returned info without action_mask"),
        ({"fault": "shape"}, "step 2 of an episode returned action_mask of 4 numbers: there are 5 actions"),
        ({"fault": "empty"}, "step 2 of an episode returned action_mask without a legal action"),
        ({"fault": "empty", "two_choices": True}, "without a legal action"),
        ({"fault": "empty", "where": "observation"}, "without a legal action"),
    ],
)
def test_an_invalid_mask_fails(kwargs: dict[str, Any], part: str) -> None:
    found = findings("Closed", **kwargs)
    assert (found["action mask"].level, part in found["action mask"].message) == ("fail", True)


def test_a_mask_of_other_numbers_than_0_and_1_fails() -> None:
    env = Doors()
    env.reset(seed=0)
    with pytest.raises(BrokenError, match="must be 0 or 1 for each action"):
        check._check_mask(env, "info", 0, {"action_mask": np.full(5, 0.5)}, "step 1 returned")


@pytest.mark.parametrize("where", ["info", "observation"])
def test_random_play_takes_only_legal_actions_and_reports_their_number(where: str) -> None:
    """The environment raises at any other."""
    found = findings("Closed", where=where)
    assert not [f for f in found.values() if f.level == "fail"]
    place = {"info": "in info", "observation": "in the observation"}[where]
    assert found["action mask"].message == f"{place}; 1 to 5 of 5 actions were legal"


@pytest.mark.parametrize(
    ("kwargs", "subject", "part"),
    [
        ({"fault": "float64"}, "observations", "return obs.astype(np.float32)"),
        ({"fault": "outside"}, "observations", "with 1.5 at (0,): observation_space says [-1, 1]; widen it"),
        ({"fault": "flag"}, "contract", "terminated = 0: taken as False; return bool(terminated)"),
        ({"fault": "reward_array"}, "contract", "taken as 1; return float(reward)"),
        ({"fault": "unseeded"}, "seeding", "super().reset(seed=seed)"),
        ({"ends": "never"}, "time limit", "no episode ended in 300 random steps"),
        (
            {"ends": "fixed"},
            "time limit",
            "after exactly 40 steps; if that is a time limit, return truncated",
        ),
        ({"ends": "terminated"}, "time limit", "set max_episode_steps"),
        ({"reward": 0.0}, "rewards", "all 0 in 300 random steps"),
    ],
)
def test_a_problem_that_training_survives_is_a_warning(kwargs: dict[str, Any], subject: str, part: str) -> None:
    found = findings(**kwargs)
    assert found[subject].level == "warn"
    assert part in found[subject].message
    assert not [f for f in found.values() if f.level == "fail"]
    assert found["backend"].message.startswith(("sync", "async"))  # by the time a step takes


def test_an_environment_that_truncates_its_episodes_is_fine() -> None:
    found = findings(ends="truncated")
    assert {f.level for f in found.values()} == {"ok"}
    assert "episodes were truncated, the longest after" in found["time limit"].message


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


def test_a_slow_environment_is_played_for_a_single_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "MAX_SECONDS", 0.0)
    found = findings(ends="truncated")
    assert "1 random steps" in found["rewards"].message
    assert found["speed"].level == "ok"


def test_settings_of_the_preset_are_not_suggested_again() -> None:
    found = {f.subject: f for f in check_env(EnvConfig(env_id="Pendulum-v1"))}
    assert {f.level for f in found.values()} == {"ok"}
    assert found["rewards"].message.endswith("training sets normalize_rewards")
    assert found["observations"].message.endswith("standardised in training")
    assert found["preset"].message.startswith("pendulum (for Pendulum-v1)")


@pytest.mark.parametrize(
    ("rewards", "message"),
    [
        ([2500.0], "normalize_rewards, or reward_scale to about 1e-05"),
        ([-3.0] * 300, "of one sign, so values grow to about"),
    ],
)
def test_large_rewards_are_a_warning_where_nothing_scales_them(rewards: list[float], message: str) -> None:
    play = RandomPlay(rewards=rewards, lengths=[300])
    assert message in judge_rewards(play, AlgorithmConfig()).message
    assert judge_rewards(play, AlgorithmConfig(normalize_rewards=True)).level == "ok"


def test_rules_scale_what_is_large_and_check_shows_them() -> None:
    found = check_env(EnvConfig(env_id=f"{__name__}:Faulty", env_kwargs={"fault": "large_obs", "reward": 2500.0}))
    rules = [finding.message for finding in found if finding.subject == "rule"]
    assert any(rule.startswith("normalize_obs true: observations reach") for rule in rules)
    assert any(rule.startswith("normalize_rewards true: the reward was 2.5e+03") for rule in rules)
    by_subject = {finding.subject: finding.level for finding in found}
    assert (by_subject["observations"], by_subject["rewards"]) == ("ok", "ok")


def test_cartpole_passes_with_its_vectorised_class() -> None:
    found = {f.subject: f for f in check_env(EnvConfig(env_id="CartPole-v1"))}
    assert {f.level for f in found.values()} == {"ok"}
    assert found["make"].message == "CartPole-v1 is a CartPoleEnv"
    assert found["spaces"].message == "Box(4,) float32 → Discrete(2)"
    assert found["backend"].message.startswith("vector")
    assert "500 steps" in found["time limit"].message
