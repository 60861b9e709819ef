"""Checks by random play that an environment keeps Gymnasium's contract and can be trained on."""

from __future__ import annotations

import copy
import time
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Space, Tuple
from gymnasium.utils.env_checker import check_env as check_by_gymnasium
from gymnasium.utils.env_checker import data_equivalence

from limelight.cli.env_check import findings
from limelight.cli.env_check.findings import BrokenError, Finding, RandomPlay
from limelight.envs.faults import seed_spaces, what_happened
from limelight.envs.masks import choices, flat_mask, has_legal_action, random_action
from limelight.envs.packing import PackActions, PackObservations
from limelight.envs.source import EnvSource, resolve_env
from limelight.errors import LimelightError
from limelight.settings.io import all_settings, get_setting
from limelight.settings.schema import EnvConfig, TrainConfig
from limelight.spaces.packed import MASK_KEY, MaskSource, Packed, Path, part_of, path_name, walk
from limelight.training.algorithms import AUTO
from limelight.training.presets import resolve_config

Env = gym.Env[Any, Any]

SEED = 1
# Random play stops at the first of these limits; the second one is for slow environments.
MAX_STEPS, MAX_SECONDS = 2_000, 2.0
REPEATED_STEPS = 100


def check_env(config: EnvConfig) -> list[Finding]:
    """Return findings about the environment of ``config``, in the order of the checks; no fault is raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's own checker would repeat the findings
        try:
            source, run, env = _make(config)
        except (Exception, SystemExit) as error:
            return [Finding("fail", "make", _raised("making the environment", error))]
        try:
            found = _inspect(env, run)
        except (Exception, SystemExit) as error:  # code of its own may run unforeseen
            found = [Finding("fail", "contract", _raised("a look at the environment", error))]
        found += _close(env)
        if all(finding.level != "fail" for finding in found):  # the copy is closed: planning may make another one
            try:
                found += findings.plan(resolve_env(run.env, source), run)
            except (Exception, SystemExit) as error:
                found.append(Finding("fail", "training", _raised("the second copy", error)))
    return found


def _make(config: EnvConfig) -> tuple[EnvSource, TrainConfig, Env]:
    """Return the source of the environment, the configuration that training would have, and a copy."""
    source = resolve_env(config)
    run = _resolve(config, source)  # may make a copy, and closes it
    source = resolve_env(run.env, source)
    return source, run, source.make()


def _close(env: Env) -> list[Finding]:
    """Close the copy; a ``close`` that fails is a finding."""
    try:
        env.close()
    except (Exception, SystemExit) as error:
        return [Finding("warn", "close", f"{_raised('close()', error)}; training notes it and goes on")]
    return []


def _resolve(config: EnvConfig, source: EnvSource) -> TrainConfig:
    """Return the configuration that training would have: the preset's settings, and those of ``config``."""
    asked = TrainConfig(env=config)
    settings = {s.name: get_setting(asked, s.name) for s in all_settings().values() if s.is_under("env")}
    given = {name: value for name, value in settings.items() if value != all_settings()[name].default}
    return resolve_config(config.env_id, AUTO, "auto", given, source)


def _inspect(env: Env, run: TrainConfig) -> list[Finding]:
    """Return findings about the environment itself, up to the first fault that prevents playing it."""
    source = env.observation_space.mask_source if isinstance(env.observation_space, Packed) else None
    while isinstance(env, PackObservations | PackActions):  # check the spaces under the wrappers
        env = env.env
    space = env.observation_space
    found = [
        Finding("ok", "make", f"{run.env.env_id} is {_with_article(type(env.unwrapped).__name__)}"),
        *findings.game(env, run.env),
        findings.spaces(env, run.env.env_id),
    ]
    if found[-1].level == "fail":
        return found
    try:
        found += findings.actions(env.action_space, run)
        _check_contract(env)
        found.append(Finding("ok", "contract", "reset and step return valid results"))
        play = _random_play(env, source)
        found += [
            _seeding(env),
            findings.time_limit(env, run.env, play),
            *findings.masks(env, source, play),
            findings.rewards(play, run.algorithm),
            findings.observations(space, play, run.env),
            findings.speed(play),
            *_gymnasium_checker(env),
        ]
    except BrokenError as broken:
        found.append(broken.finding)
    return found


def _gymnasium_checker(env: Env) -> list[Finding]:
    """Return what Gymnasium's own checker refuses, as a warning; nothing where it passes."""
    try:
        check_by_gymnasium(env.unwrapped, skip_render_check=True, skip_close_check=True)
    except (Exception, SystemExit) as error:
        if "share an object" not in str(error):  # observations are copied at every step
            return [Finding("warn", "gymnasium", f"its check_env {what_happened(error)}")]
    return []


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


def _raised(call: str, error: BaseException) -> str:
    if isinstance(error, LimelightError):  # its message is complete
        return " ".join(str(error).split())
    return f"{call} {what_happened(error)}"


def _call(subject: str, function: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return function(*args, **kwargs)
    except (Exception, SystemExit) as error:  # a user's environment may raise anything, and all of it is a finding
        raise BrokenError(subject, _raised(f"{subject}()", error)) from None


# --------------------------------------------------------------------------- the contract of reset and step


def _check_contract(env: Env) -> None:
    """Check one reset and one step without the wrappers, which would hide a wrong return value or fail on it."""
    bare = env.unwrapped
    result = _call("reset", bare.reset, seed=SEED)
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[1], dict)):
        raise BrokenError("reset", f"reset() returned {_shape_of(result)}: must be (observation, info), info a dict")
    _check_obs(bare.observation_space, result[0], "reset() returned an observation")
    bare.action_space.seed(SEED)
    result = _call("step", bare.step, random_action(bare, *result))
    if not (isinstance(result, tuple) and len(result) == 5):
        must = "must be (observation, reward, terminated, truncated, info)"
        raise BrokenError("step", f"step() returned {_shape_of(result)}: {must}")
    obs, reward, terminated, truncated, info = result
    _check_obs(bare.observation_space, obs, "step() returned an observation")
    if np.ndim(reward) != 0 or not np.issubdtype(np.asarray(reward).dtype, np.number):
        raise BrokenError("step", f"step() returned the reward {reward!r}: must be a number, e.g. float(reward)")
    for name, flag in (("terminated", terminated), ("truncated", truncated)):
        if not isinstance(flag, bool | np.bool_):
            raise BrokenError("step", f"step() returned {name} = {flag!r}: must be True or False")
    if not isinstance(info, dict):
        raise BrokenError("step", f"step() returned info = {info!r}: must be a dict")


def _shape_of(result: Any) -> str:
    if isinstance(result, tuple):
        return f"{len(result)} values ({', '.join(type(value).__name__ for value in result)})"
    return f"a {type(result).__name__}"


def _check_obs(space: Space[Any], obs: Any, what: str) -> str:
    """Check an observation part by part; return a warning about one that can be trained on, or an empty string.

    Raises: BrokenError about one that cannot be trained on.
    """
    problems: list[str] = []
    for path, part in walk(space):
        try:
            value = part_of(obs, path)
        except ValueError as error:
            raise BrokenError("observation", f"{what}: {error}") from None
        at = f"{what} at {path_name(path)}" if path else what
        if isinstance(part, Box):
            problems.append(_check_box(part, value, at))
        elif not part.contains(value):
            raise BrokenError("observation", f"{at} {value!r}: not in {part}")
    return next(filter(None, problems), "") or _unknown_part(space, obs, what)


def _check_box(space: Box, value: Any, what: str) -> str:
    array = np.asarray(value)
    if array.shape != space.shape:
        raise BrokenError("observation", f"{what} of shape {array.shape}: observation_space has {space.shape}")
    if array.dtype.kind not in "biuf":
        raise BrokenError("observation", f"{what} of dtype {array.dtype}: observation_space has {space.dtype}")
    if not np.isfinite(array).all():
        where = _first(~np.isfinite(array))
        raise BrokenError("observation", f"{what} with {array[where]} at {where}: must be finite")
    hint = f"return obs.astype(np.{space.dtype})"
    if space.dtype.kind in "biu" and array.dtype.kind == "f" and (array % 1 != 0).any():
        where = _first(array % 1 != 0)
        cut = f"observation_space has {space.dtype}, which would cut it to {int(array[where])}; make it a float32 Box"
        raise BrokenError("observation", f"{what} with {array[where]:g} at {where}: {cut}")
    outside = (array < space.low) | (array > space.high)
    if outside.any():
        where = _first(outside)
        bounds = f"[{space.low[where]:g}, {space.high[where]:g}]"
        return f"{what} with {array[where]:g} at {where}: observation_space says {bounds}; widen it"
    if array.dtype != space.dtype:
        return f"{what} of dtype {array.dtype}: observation_space has {space.dtype}; {hint}"
    return ""


def _first(wrong: Any) -> tuple[int, ...]:
    return tuple(int(i) for i in np.argwhere(wrong)[0])


def _unknown_part(space: Space[Any], obs: Any, what: str, path: Path = ()) -> str:
    """Return a warning about the first part of an observation that its space lacks; agents do not receive it."""
    if isinstance(space, Dict):
        parts: list[tuple[str | int, Space[Any]]] = list(space.spaces.items())
        extra: list[str | int] = [key for key in obs if key not in space.spaces]
    elif isinstance(space, Tuple):
        parts, extra = list(enumerate(space.spaces)), list(range(len(space.spaces), len(obs)))
    else:
        return ""
    if extra:
        return f"{what} with {path_name((*path, extra[0]))}: not in observation_space, so it is left out; add it there"
    inner = (_unknown_part(part, obs[key], what, (*path, key)) for key, part in parts)
    return next(filter(None, inner), "")


def _check_mask(env: Env, source: MaskSource, obs: Any, info: dict[str, Any], what: str) -> int:
    """Return the number of actions that the mask after this step allows.

    Raises: BrokenError if it is not a mask of the actions.
    """
    if source == "info" and MASK_KEY not in info:
        raise BrokenError("action mask", f"{what} info without {MASK_KEY}: must have it at every reset and step")
    mask = info[MASK_KEY] if source == "info" else obs[MASK_KEY]
    flat, sizes = flat_mask(mask), choices(env.action_space)
    if len(flat) != sum(sizes):
        raise BrokenError("action mask", f"{what} {MASK_KEY} of {len(flat)} numbers: there are {sum(sizes)} actions")
    if not np.isin(flat, (0, 1)).all():
        raise BrokenError("action mask", f"{what} {MASK_KEY} {mask!r}: must be 0 or 1 for each action")
    if not has_legal_action(flat, sizes):
        hint = "at least one must be legal, or the episode must end"
        raise BrokenError("action mask", f"{what} {MASK_KEY} without a legal action: {hint}")
    return int(flat.sum())


# --------------------------------------------------------------------------- random play


def _random_play(env: Env, mask_source: MaskSource | None) -> RandomPlay:
    play = RandomPlay()
    env.action_space.seed(SEED)
    obs, info = _call("reset", env.reset, seed=SEED)
    started, length = time.perf_counter(), 0
    while not play.rewards or (len(play.rewards) < MAX_STEPS and time.perf_counter() - started < MAX_SECONDS):
        play.info_keys.update(info)
        if mask_source is not None:
            play.legal_counts.append(_check_mask(env, mask_source, obs, info, f"step {length} of an episode returned"))
        action = random_action(env, obs, info)
        before = time.perf_counter()
        obs, reward, terminated, truncated, info = _call("step", env.step, action)
        play.seconds += time.perf_counter() - before
        length += 1
        _record(play, env.observation_space, obs, reward, f"step {length} of an episode returned")
        if terminated or truncated:
            play.terminated += bool(terminated)
            play.truncated += bool(truncated)
            play.lengths.append(length)
            length = 0
            obs, info = _call("reset", env.reset)
    return play


def _record(play: RandomPlay, space: Space[Any], obs: Any, reward: Any, what: str) -> None:
    problem = _check_obs(space, obs, f"{what} an observation")
    play.obs_problem = play.obs_problem or problem
    if not np.isfinite(reward):
        raise BrokenError("reward", f"{what} the reward {reward}: must be finite")
    play.rewards.append(float(reward))
    for path, part in walk(space):
        if isinstance(part, Box):
            size = float(np.abs(np.asarray(part_of(obs, path), np.float64)).max(initial=0.0))
            play.largest[path] = max(play.largest.get(path, 0.0), size)


def _seeding(env: Env) -> Finding:
    """Check that the same seed and actions give the same episodes."""
    first, second = _trace(env), _trace(env)
    for t, (a, b) in enumerate(zip(first, second, strict=False)):
        if not data_equivalence(a, b, exact=True):
            hint = "draw from self.np_random and call super().reset(seed=seed)"
            return Finding("warn", "seeding", f"one seed gave two different episodes at step {t}; {hint}")
    return Finding("ok", "seeding", f"the same seed gave the same {len(first)} observations")


def _trace(env: Env) -> list[tuple[Any, ...]]:
    seed_spaces(env, SEED)  # as training does
    obs, info = _call("reset", env.reset, seed=SEED)
    trace: list[tuple[Any, ...]] = [(copy.deepcopy(obs),)]  # some environments reuse one array
    while len(trace) <= REPEATED_STEPS:
        obs, *others, info = _call("step", env.step, random_action(env, obs, info))
        trace.append((copy.deepcopy(obs), *others))
        if others[1] or others[2]:
            obs, info = _call("reset", env.reset)
            trace.append((copy.deepcopy(obs),))
    return trace
