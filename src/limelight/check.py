"""Does an environment keep Gymnasium's contract, and can it be trained on? For cli.py; prints nothing."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Space

from limelight.config import ConfigError, EnvConfig
from limelight.envs.make import choose_backend
from limelight.envs.masks import random_action
from limelight.envs.normalize import make_normalizer
from limelight.envs.resolve import EnvFactory, resolve_env
from limelight.envs.spaces import check_spaces, describe_space
from limelight.presets import explain_preset, resolve

Env = gym.Env[Any, Any]

SEED = 1
# Random play stops at whichever comes first: several episodes of a usual environment, a look at a slow one.
MAX_STEPS, MAX_SECONDS = 2_000, 2.0
REPEATED_STEPS = 100
# Beyond this, rewards and observations make the first updates of a tanh network too large.
LARGE = 10.0


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    message: str
    """One line; what would mend it, where it is not ok."""


class _BrokenError(Exception):
    """The environment cannot be played any further; carries what to say. Does not leave this module."""

    def __init__(self, subject: str, message: str) -> None:
        super().__init__(message)
        self.finding = Finding("fail", subject, message)


@dataclass
class _Play:
    """What random play has seen."""

    rewards: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    terminated: int = 0
    truncated: int = 0
    largest_obs: float = 0.0
    odd_obs: str = ""
    """What is not as the space says, though training gets by with it."""
    seconds: float = 0.0


def check_env(config: EnvConfig) -> list[Finding]:
    """Findings about the environment of ``config``, in the order they were looked at; none of them raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's own checker would say the same again, in other words
        try:
            factory = resolve_env(config)
            env = factory()
        except Exception as error:
            text = str(error) if isinstance(error, ConfigError) else _raised("it", error)
            return [Finding("fail", "make", " ".join(text.split()))]
        findings = [
            Finding("ok", "make", f"{config.env_id} is a {type(env.unwrapped).__name__}"),
            _spaces(env, config),
        ]
        try:
            _check_contract(env)
            findings.append(Finding("ok", "contract", "reset and step return what they must"))
            play = _play(env)
            findings += [
                _seeding(env),
                _limit(env, config, play),
                _rewards(play),
                _observations(play),
                _speed(play),
            ]
        except _BrokenError as broken:
            findings.append(broken.finding)
        finally:
            env.close()
    if all(finding.level != "fail" for finding in findings):
        findings += _plan(config, factory)
    return findings


def _raised(what: str, error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{what} raised {type(error).__name__}" + (f": {lines[0]}" if lines else "")


def _call(subject: str, function: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except Exception as error:  # anything can come out of a user's environment; all of it is a finding
        raise _BrokenError(subject, _raised(f"{subject}()", error)) from None


def _spaces(env: Env, config: EnvConfig) -> Finding:
    try:
        check_spaces(env.observation_space, env.action_space, config.env_id)
    except ConfigError as error:
        return Finding("fail", "spaces", str(error))
    seen = f"{describe_space(env.observation_space)} → {describe_space(env.action_space)}"
    return Finding("ok", "spaces", seen)


# --------------------------------------------------------------------------- the contract of reset and step


def _check_contract(env: Env) -> None:
    """One step without the wrappers, which would hide a wrong return value or trip over it."""
    bare = env.unwrapped
    result = _call("reset", bare.reset, seed=SEED)
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        raise _BrokenError("reset", f"reset() returned {_shape_of(result)}: must be (observation, info), info a dict")
    _check_obs(bare.observation_space, result[0], "reset() returned an observation")
    bare.action_space.seed(SEED)
    result = _call("step", bare.step, random_action(bare, *result))
    if not (isinstance(result, tuple) and len(result) == 5):
        must = "must be (observation, reward, terminated, truncated, info)"
        raise _BrokenError("step", f"step() returned {_shape_of(result)}: {must}")
    obs, reward, terminated, truncated, info = result
    _check_obs(bare.observation_space, obs, "step() returned an observation")
    if np.ndim(reward) != 0 or not np.issubdtype(np.asarray(reward).dtype, np.number):
        raise _BrokenError("step", f"step() returned the reward {reward!r}: must be a number, e.g. float(reward)")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, bool | np.bool_):
            raise _BrokenError("step", f"step() returned {name} = {flag!r}: must be True or False")
    if not isinstance(info, dict):
        raise _BrokenError("step", f"step() returned info = {info!r}: must be a dict")


def _shape_of(result: Any) -> str:
    if isinstance(result, tuple):
        return f"{len(result)} values ({', '.join(type(value).__name__ for value in result)})"
    return f"a {type(result).__name__}"


def _check_obs(space: Space[Any], obs: Any, what: str) -> str:
    """What is odd about an observation that can be trained on all the same; raises about one that cannot."""
    if not isinstance(space, Box):
        if not space.contains(obs):
            raise _BrokenError("observation", f"{what} {obs!r}: not in {space}")
    else:
        array = np.asarray(obs)
        if array.shape != space.shape:
            raise _BrokenError("observation", f"{what} of shape {array.shape}: observation_space has {space.shape}")
        if not np.issubdtype(array.dtype, np.number):
            raise _BrokenError("observation", f"{what} of dtype {array.dtype}: observation_space has {space.dtype}")
        if not np.isfinite(array).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise _BrokenError("observation", f"{what} with {array[where]} at {where}: must be finite")
        outside = (array < space.low) | (array > space.high)
        if outside.any():
            where = tuple(int(i) for i in np.argwhere(outside)[0])
            bounds = f"[{space.low[where]:g}, {space.high[where]:g}]"
            return f"{what} with {array[where]:g} at {where}: observation_space says {bounds}; widen it"
        if array.dtype != space.dtype:
            mend = f"return obs.astype(np.{space.dtype})"
            return f"{what} of dtype {array.dtype}: observation_space has {space.dtype}; {mend}"
    return ""


# --------------------------------------------------------------------------- random play


def _play(env: Env) -> _Play:
    play, normalizer = _Play(), make_normalizer(env.observation_space)
    env.action_space.seed(SEED)
    obs, info = _call("reset", env.reset, seed=SEED)
    started, length = time.perf_counter(), 0
    while not play.rewards or (len(play.rewards) < MAX_STEPS and time.perf_counter() - started < MAX_SECONDS):
        action = random_action(env, obs, info)
        before = time.perf_counter()
        obs, reward, terminated, truncated, info = _call("step", env.step, action)
        play.seconds += time.perf_counter() - before
        length += 1
        odd = _check_obs(env.observation_space, obs, f"step {length} of an episode returned an observation")
        play.odd_obs = play.odd_obs or odd
        if not np.isfinite(reward):
            raise _BrokenError("reward", f"step {length} of an episode returned the reward {reward}: must be finite")
        play.rewards.append(float(reward))
        if normalizer is not None:
            play.largest_obs = max(play.largest_obs, float(np.abs(normalizer.numbers(obs)).max(initial=0)))
        if terminated or truncated:
            play.terminated += bool(terminated)
            play.truncated += bool(truncated)
            play.lengths.append(length)
            length = 0
            obs, info = _call("reset", env.reset)
    return play


def _seeding(env: Env) -> Finding:
    """Whether the same seed and actions give the same episodes."""
    first, second = _trace(env), _trace(env)
    for t, (a, b) in enumerate(zip(first, second, strict=False)):
        if not all(np.array_equal(x, y) for x, y in zip(a, b, strict=True)):
            mend = "draw from self.np_random and call super().reset(seed=seed)"
            return Finding("warn", "seeding", f"one seed gave two different episodes at step {t}; {mend}")
    return Finding("ok", "seeding", f"the same seed gave the same {len(first)} observations")


def _trace(env: Env) -> list[tuple[Any, ...]]:
    env.action_space.seed(SEED)
    obs, info = _call("reset", env.reset, seed=SEED)
    trace: list[tuple[Any, ...]] = [(obs,)]
    while len(trace) <= REPEATED_STEPS:
        obs, *others, info = _call("step", env.step, random_action(env, obs, info))
        trace.append((obs, *others))
        if others[1] or others[2]:
            obs, info = _call("reset", env.reset)
            trace.append((obs,))
    return trace


# --------------------------------------------------------------------------- what play has shown


def _limit(env: Env, config: EnvConfig, play: _Play) -> Finding:
    limit = config.max_episode_steps or (env.spec.max_episode_steps if env.spec else None)
    if limit:
        return Finding("ok", "time limit", f"episodes are truncated after {limit} steps")
    if play.truncated:
        return Finding("ok", "time limit", f"truncates by itself ({play.truncated} of {len(play.lengths)} episodes)")
    mend = "set max_episode_steps"
    if not play.lengths:
        steps = len(play.rewards)
        return Finding("warn", "time limit", f"there is none, and no episode ended in {steps} random steps; {mend}")
    if len(play.lengths) > 1 and len(set(play.lengths)) == 1 and play.lengths[0] > 1:
        said = f"all {len(play.lengths)} episodes terminated after exactly {play.lengths[0]} steps"
        return Finding("warn", "time limit", f"{said}; if that is a time limit, return truncated, not terminated")
    return Finding("warn", "time limit", f"there is none, so a good agent's episode may never end; {mend}")


def _rewards(play: _Play) -> Finding:
    low, high, mean = min(play.rewards), max(play.rewards), float(np.mean(play.rewards))
    seen = f"from {low:.4g} to {high:.4g}, mean {mean:.4g} in {len(play.rewards)} random steps"
    largest = max(abs(low), abs(high))
    if largest > LARGE:
        return Finding("warn", "rewards", f"{seen}: large; set reward_scale to about {_power_of_ten(largest):g}")
    if largest == 0:
        return Finding(
            "warn",
            "rewards",
            f"all 0 in {len(play.rewards)} random steps: hard to find; a higher ent_coef helps",
        )
    return Finding("ok", "rewards", seen)


def _observations(play: _Play) -> Finding:
    if play.odd_obs:
        return Finding("warn", "observations", play.odd_obs)
    if play.largest_obs > LARGE:
        return Finding("warn", "observations", f"reach ±{play.largest_obs:.4g}: large; set normalize_obs")
    return Finding("ok", "observations", "in their space, finite, of a fit scale")


def _power_of_ten(largest: float) -> float:
    return float(10.0 ** -np.floor(np.log10(largest)))


def _speed(play: _Play) -> Finding:
    per_step = play.seconds / len(play.rewards)
    return Finding("ok", "speed", f"{per_step * 1e6:,.0f} µs a step, {1 / per_step:,.0f} steps/s in one environment")


def _plan(config: EnvConfig, factory: EnvFactory) -> list[Finding]:
    """What ``limelight train`` would do with it."""
    backend = choose_backend(config, factory)
    preset = resolve(config.env_id, "a2c", "auto", {}, factory).preset
    return [
        Finding("ok", "backend", f"{backend}, for {config.num_envs} environments side by side"),
        Finding("ok", "preset", explain_preset(config.env_id, preset)),
    ]
