"""Checks by random play that an environment keeps Gymnasium's contract and can be trained on."""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space
from gymnasium.utils.env_checker import check_env as check_by_gymnasium
from gymnasium.utils.env_checker import data_equivalence

from limelight.cli.env_check import findings
from limelight.cli.env_check.contract import (
    SEED,
    Env,
    Faults,
    bare_env,
    call,
    check_contract,
    check_ends,
    check_obs,
    check_reward,
    odd_form,
    raised,
)
from limelight.cli.env_check.findings import BrokenError, Finding, RandomPlay, warn_or_ok
from limelight.envs.faults import one_number, seed_spaces, what_happened
from limelight.envs.masks import choices, flat_mask, has_legal_action, random_action
from limelight.envs.packing import PackActions, PackObservations
from limelight.envs.source import EnvSource, resolve_env
from limelight.errors import EnvError
from limelight.settings.io import all_settings, get_setting
from limelight.settings.schema import EnvConfig, TrainConfig
from limelight.spaces.packed import MASK_KEY, MaskSource, Packed, part_of, walk
from limelight.training.algorithms import AUTO
from limelight.training.presets import resolve_config

# Random play stops at the first of these limits; the second one is for slow environments.
MAX_STEPS, MAX_SECONDS = 2_000, 2.0
REPEATED_STEPS = 100


def check_env(config: EnvConfig, probed: Mapping[str, Any] | None = None) -> list[Finding]:
    """Return findings about the environment of ``config``, in the order of the checks; no fault is raised.

    Args:
        config: the environment.
        probed: settings to train with on tasks with known values; None: nothing is trained.
    Raises: ConfigError for settings of ``probed`` that cannot work.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Gymnasium's own checker would repeat the findings
        try:
            source, run, env = _make(config)
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            return [Finding("fail", "make", raised("making the environment", error))]
        try:
            found = _inspect(env, run)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # code of its own may run unforeseen
            found = [Finding("fail", "contract", raised("a look at the environment", error))]
        found += _close(env)
        if probed is not None and not _broken(found) & {"spaces"}:
            run = _asked(source, run, probed)
        found += _plan(found, source, run)  # the copy is closed: planning may make another one
        return found + (_probe(found, source, run) if probed is not None else [])


def _broken(found: list[Finding]) -> set[str]:
    """Return the subjects in which there are faults."""
    return {finding.subject for finding in found if finding.level == "fail"}


def _asked(source: EnvSource, run: TrainConfig, probed: Mapping[str, Any]) -> TrainConfig:
    """Return the configuration that training would have with the settings of the command line."""
    try:
        algo, preset = probed.get("algo", AUTO), probed.get("preset", "auto")
        return resolve_config(run.env.env_id, algo, preset, dict(probed), resolve_env(run.env, source))
    except EnvError:  # the checks say more
        return run


def _probe(found: list[Finding], source: EnvSource, run: TrainConfig) -> list[Finding]:
    """Return what the settings learn of tasks in the spaces of the environment, where it has spaces to learn in."""
    broken = _broken(found)
    if broken & {"spaces", "network"}:
        return [Finding("warn", "at fault", "the environment: nothing can be trained in its spaces")]
    from limelight.cli.env_check.known_values import probe_settings

    return probe_settings(run, resolve_env(run.env, source), bool(broken))


def _plan(found: list[Finding], source: EnvSource, run: TrainConfig) -> list[Finding]:
    """Return what training would do, or what else it would refuse where faults were found."""
    broken = _broken(found)
    if "spaces" in broken:
        return []
    try:
        source = resolve_env(run.env, source)
        if not broken:
            return findings.plan(source, run)
        return [finding for finding in [findings.network(source, run)] if finding.level == "fail"]
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return [] if broken else [Finding("fail", "training", raised("the second copy", error))]


def _make(config: EnvConfig) -> tuple[EnvSource, TrainConfig, Env]:
    """Return the source of the environment, the configuration that training would have, and a copy."""
    source = resolve_env(config)
    try:
        run = _resolve(config, source)  # may make a copy, and closes it
    except EnvError:  # the checks say more
        run = TrainConfig(env=config)
    source = resolve_env(run.env, source)
    try:
        return source, run, source.make()
    except EnvError:
        source.inspection.masks_in_info = False  # a reset that fails is a finding, and tells of no mask
        return source, run, source.make()


def _close(env: Env) -> list[Finding]:
    """Close the copy; a ``close`` that fails is a finding."""
    try:
        env.close()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return [Finding("warn", "close", f"{raised('close()', error)}; training notes it and goes on")]
    return []


def _resolve(config: EnvConfig, source: EnvSource) -> TrainConfig:
    """Return the configuration that training would have: the preset's settings, and those of ``config``."""
    asked = TrainConfig(env=config)
    settings = {s.name: get_setting(asked, s.name) for s in all_settings().values() if s.is_under("env")}
    given = {name: value for name, value in settings.items() if value != all_settings()[name].default}
    return resolve_config(config.env_id, AUTO, "auto", given, source)


def _inspect(env: Env, run: TrainConfig) -> list[Finding]:
    """Return findings about the environment itself: all its faults, or if it has none, how it plays."""
    source = env.observation_space.mask_source if isinstance(env.observation_space, Packed) else None
    while isinstance(env, PackObservations | PackActions):  # check the spaces under the wrappers
        env = env.env
    space = env.observation_space
    found = [
        Finding("ok", "make", f"{run.env.env_id} is {_with_article(type(env.unwrapped).__name__)}"),
        *findings.game(env, run.env),
        *findings.spaces(env, run.env.env_id),
    ]
    if found[-1].level == "fail":
        return found
    found += findings.actions(env.action_space, run)
    faults = Faults(env)
    if check_contract(env, faults):
        play = _random_play(env, source, faults)
    if faults.found:
        return found + faults.found
    try:
        return [
            *found,
            warn_or_ok("contract", [play.odd_form] * bool(play.odd_form), "reset and step return valid results"),
            _seeding(env),
            findings.time_limit(env, run.env, play),
            *findings.masks(env, source, play),
            findings.rewards(play, run.algorithm),
            findings.observations(space, play, run.env),
            findings.speed(play),
            *_gymnasium_checker(env),
        ]
    except BrokenError as broken:
        return [*found, broken.finding]


def _gymnasium_checker(env: Env) -> list[Finding]:
    """Return what Gymnasium's own checker refuses, as a warning; nothing where it passes."""
    try:
        check_by_gymnasium(bare_env(env), skip_render_check=True, skip_close_check=True)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if "share an object" not in str(error):  # observations are copied at every step
            return [Finding("warn", "gymnasium", f"its check_env {what_happened(error)}")]
    return []


def _with_article(name: str) -> str:
    return f"{'an' if name[0] in 'AEIOU' else 'a'} {name}"


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


def _random_play(env: Env, mask_source: MaskSource | None, faults: Faults) -> RandomPlay:
    """Play at random; go on after a fault of a value, and end where the environment raises."""
    play = RandomPlay()
    env.action_space.seed(SEED)
    with faults.collect():
        obs, info = call("reset", env.reset, seed=SEED)
        started, length = time.perf_counter(), 0
        while not play.steps or (play.steps < MAX_STEPS and time.perf_counter() - started < MAX_SECONDS):
            play.info_keys.update(info)
            if mask_source is not None:  # without a legal action there is none to take
                what = f"step {length} of an episode returned"
                play.legal_counts.append(_check_mask(env, mask_source, obs, info, what))
            action = random_action(env, obs, info)
            before = time.perf_counter()
            obs, reward, terminated, truncated, info = call("step", env.step, action)
            play.seconds += time.perf_counter() - before
            play.steps += 1
            length += 1
            what = f"step {length} of an episode returned"
            _record(play, env.observation_space, obs, reward, what, faults)
            ends = check_ends(terminated, truncated, what, faults)
            if not play.odd_form and not faults.found:
                play.odd_form = odd_form(reward, terminated, truncated, what)
            if any(ends):
                play.terminated += ends[0]
                play.truncated += ends[1]
                play.lengths.append(length)
                length = 0
                obs, info = call("reset", env.reset)
    return play


def _record(play: RandomPlay, space: Space[Any], obs: Any, reward: Any, what: str, faults: Faults) -> None:
    with faults.collect():
        check_reward(reward, what)
        play.rewards.append(one_number(reward))
    with faults.collect():
        problem = check_obs(space, obs, f"{what} an observation")
        play.obs_problem = play.obs_problem or problem
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
    obs, info = call("reset", env.reset, seed=SEED)
    trace: list[tuple[Any, ...]] = [(copy.deepcopy(obs),)]  # some environments reuse one array
    while len(trace) <= REPEATED_STEPS:
        obs, *others, info = call("step", env.step, random_action(env, obs, info))
        trace.append((copy.deepcopy(obs), *others))
        if others[1] or others[2]:
            obs, info = call("reset", env.reset)
            trace.append((copy.deepcopy(obs),))
    return trace
