"""Random play: the facts are those of scripted environments, and do not depend on the copy."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete

from limelight.envs.packing import pack_env
from limelight.envs.probe import probe, real_parts
from limelight.envs.source import resolve_env
from limelight.errors import EnvError
from limelight.settings.schema import EnvConfig


class Scripted(gym.Env[Any, Any]):
    """Episodes of five steps; step t shows 10 t beside a code and pays 2 on the third step, else 0."""

    observation_space = Dict(code=Discrete(100, start=900), level=Box(0.0, 100.0, (1,)))
    action_space = Discrete(2)
    fails = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def observe(self) -> dict[str, Any]:
        return {"code": 950, "level": np.array([10.0 * self.t], np.float32)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self.fails:
            raise RuntimeError("broken")
        self.t += 1
        return self.observe(), 2.0 * (self.t == 3), self.t == 5, False, {}


class Broken(Scripted):
    fails = True


def test_facts_of_random_play() -> None:
    facts = probe(pack_env(Scripted(), "scripted", None), "scripted", 23, 60.0)
    assert (facts.steps, facts.episode_lengths) == (23, (5, 5, 5, 5))
    assert (facts.lowest_reward, facts.highest_reward) == (0.0, 2.0)
    assert (facts.rewarded_ends, facts.end_share) == (0.0, 0.0)
    assert facts.largest_observation == 50.0  # the code is no number
    assert facts.step_seconds > 0


@pytest.mark.parametrize(
    ("paid_at", "steps", "ends", "share"), [(5, 23, 1.0, 1.0), (5, 4, 0.0, 0.0), (4, 23, 0.0, 0.0)]
)
def test_rewards_at_the_ends_of_episodes(paid_at: int, steps: int, ends: float, share: float) -> None:
    class Late(Scripted):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            obs, _, terminated, truncated, info = super().step(action)
            return obs, -3.0 * (self.t == paid_at), terminated, truncated, info

    facts = probe(pack_env(Late(), "late", None), "late", steps, 60.0)
    assert (facts.rewarded_ends, facts.end_share) == (ends, share)


def test_rewards_may_be_any_form_of_one_number() -> None:
    class Arrays(Scripted):
        def step(self, action: Any) -> Any:
            obs, reward, *rest = super().step(action)
            return obs, np.array([reward]), *rest

    assert probe(pack_env(Arrays(), "scripted", None), "scripted", 5, 60.0).highest_reward == 2.0


def test_time_bounds_random_play() -> None:
    assert probe(pack_env(Scripted(), "scripted", None), "scripted", 10**9, 0.0).steps == 2


def test_codes_are_no_real_parts() -> None:
    assert [part.shape for part, _ in real_parts(pack_env(Scripted(), "scripted", None).observation_space)] == [(1,)]
    assert not list(real_parts(Discrete(3)))
    assert not list(real_parts(Box(0, 255, (8, 8, 3), np.uint8)))


def test_a_source_plays_once_and_closes_the_copy() -> None:
    source = resolve_env(EnvConfig(), Scripted)
    source.play_once()
    play = source.inspection.play
    assert play is not None
    assert play.steps == 1_000
    source.play_once()
    assert source.inspection.play is play
    assert source.inspection.step_seconds == play.step_seconds


def test_an_environment_that_cannot_be_played_has_no_facts() -> None:
    source = resolve_env(EnvConfig(), Broken)
    with pytest.raises(EnvError, match=r"step\(\) raised RuntimeError: broken .* in step 1 of an episode of random"):
        probe(Broken(), "broken", 5, 1.0)
    source.play_once()
    assert source.inspection.play is None
