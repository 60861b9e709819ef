"""A new run from the checkpoint of another one: which parts of its state go on under the new settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from limelight.envs.episode_info import sum_keys
from limelight.errors import CheckpointError, ConfigError
from limelight.runners.base import budget_of
from limelight.runners.worker_metrics import Counter
from limelight.runs.agent import Agent, agent_in
from limelight.runs.checkpoint import fitting
from limelight.runs.origin import Origin, describe_changes, has_other_env
from limelight.seeds import Stream, derive_seed
from limelight.settings.io import all_settings, get_setting, with_settings
from limelight.settings.schema import TrainConfig
from limelight.training.algorithms import get_algorithm
from limelight.training.loop import TrainingLoop
from limelight.typing import State

_PARTS = ("advantage_normalizer", "reward_normalizer", "epochs", "next_actions")
_RANDOM = ("epochs", "next_actions")
"""Parts of a learner that are random streams."""
_SET = {"set_env_attr": "the attributes that callbacks had set", "change_setting": "the settings they had changed"}
"""Kinds of lasting orders in words."""


def branched(origin: Origin, settings: dict[str, Any]) -> TrainConfig:
    """Return the settings of a branch: those of its parent, with ``settings`` over them.

    Another algorithm is its row of settings, in place of that of the parent's.
    """
    parent = with_settings(origin.config, {"run_dir": None})
    algo = settings.get("algo", parent.algorithm.algo)
    if algo != parent.algorithm.algo:
        before = get_algorithm(parent.algorithm.algo).settings
        defaults = {name: all_settings()[name].default for name in [*before, "num_workers"]}
        settings = {**defaults, **get_algorithm(algo).settings, **settings}
    return with_settings(parent, settings)


def changed_settings(before: TrainConfig, after: TrainConfig) -> dict[str, list[Any]]:
    """Return the settings that differ, by name: before and after; the folder and the settings of logs do not count."""
    names = [name for name, s in all_settings().items() if name != "run_dir" and s.section != "log"]
    pairs = {name: [get_setting(before, name), get_setting(after, name)] for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def require_fitting(origin: Origin, agent: Agent, config: TrainConfig) -> None:
    """Refuse a branch whose network has other parameters, or whose budget is used up.

    Raises: CheckpointError or ConfigError.
    """
    before, after = shapes_of(agent_in(origin.name, origin.state, origin.run_dir)), shapes_of(agent)
    if before != after:
        odd = next(name for name in [*after, *before] if before.get(name) != after.get(name))
        raise CheckpointError(
            f"from = {origin.name}: {odd} is {_shape(before.get(odd))} in its network and {_shape(after.get(odd))} in "
            "that of these settings; leave the settings of the model as they are, or use "
            f"--init-agent {origin.run_dir}, which takes over what fits"
        )
    with fitting(origin.name):
        episodes, budget = int(origin.state["training"]["episodes"]["count"]), budget_of(config)
    if budget.is_used_up(origin.step, episodes):
        name = "total_timesteps" if origin.step >= budget.timesteps else "total_episodes"
        done = f"{origin.step} steps" if name == "total_timesteps" else f"{episodes} episodes"
        raise ConfigError(
            f"{name} = {getattr(config, name)}: the parent has done {done} already, which count; give a larger number"
        )


def shapes_of(agent: Agent) -> dict[str, tuple[int, ...]]:
    """Return the shape of each parameter of an agent's network, by name."""
    return {name: tuple(p.shape) for name, p in agent.model.named_parameters()}


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "×".join(map(str, shape)) or "a number"


def begin_branch(loop: TrainingLoop, origin: Origin) -> None:
    """Continue from the checkpoint of ``origin`` with a message on what changes and what begins anew; save it."""
    with fitting(origin.name):
        message = _continue_from(loop, origin)
    loop.logger.message(message)
    loop.save_checkpoint()


def _continue_from(loop: TrainingLoop, origin: Origin) -> str:
    """Set the state of ``loop``; return the message on what changes and what begins anew."""
    changed = changed_settings(origin.config, loop.config)
    training = origin.state["training"]
    fresh = loop.get_state()
    runner, new = transfer(origin, fresh["runner"], loop.config)
    is_same_env = not _of_env(changed)
    episodes = training["episodes"] if is_same_env else {**fresh["episodes"], "count": training["episodes"]["count"]}
    keeps_callbacks = not origin.agent_only and not has_other_env({"changed": changed})
    if training["callbacks"] and not keeps_callbacks:
        new.append("the callbacks")
    state = {
        "runner": runner,
        "evaluator": fresh["evaluator"],
        "episodes": episodes,
        "evaluated_at": training["evaluated_at"],
        "collapse": training["collapse"] if is_same_env and not origin.agent_only else fresh["collapse"],
        "orders": fresh["orders"],
        "callbacks": training["callbacks"] if keeps_callbacks else fresh["callbacks"],
    }
    inexact = loop.set_state(state, derive_seed(loop.config.seed, Stream.ENV, origin.step))
    parts = [f"branched from {origin.name} at step {origin.step:,}", *describe_changes(changed)]
    parts += [f"new: {', '.join(new)}"] if new else []
    parts += [inexact] if inexact and not any("episodes" in text for text in new) else []
    return "; ".join(parts)


# --------------------------------------------------------------------------- the state of the runner


def _of_env(changed: Mapping[str, Sequence[Any]]) -> list[str]:
    """Return the changed settings after which the environments are others; sums of infos begin with an episode."""
    same = ["env_module", "env_threads"]
    if "info_keys" in changed:
        before, after = (sum_keys(keys) for keys in changed["info_keys"])
        same += ["info_keys"] if before == after else []
    return [name for name in changed if all_settings()[name].section.startswith("env") and name not in same]


def _orders(origin: Origin, saved: Sequence[Sequence[Any]], changed: Mapping[str, Any]) -> list[Sequence[Any]]:
    """Return what callbacks had set that still holds: attributes of the same environments, settings that stay."""
    if origin.agent_only:
        return []
    other_env = not changed.keys().isdisjoint(("env_id", "env_kwargs"))
    return [order for order in saved if (not other_env if order[0] == "set_env_attr" else order[1] not in changed)]


def transfer(origin: Origin, fresh: State, config: TrainConfig) -> tuple[State, list[str]]:
    """Return the state that a new runner continues from, and what of it is new, in words.

    Args:
        origin: the checkpoint.
        fresh: the state of the new runner before its first step.
        config: the settings of the new run.
    """
    changed, saved = changed_settings(origin.config, config), origin.state["training"]["runner"]
    new: list[str] = []
    state = {**fresh, **{name: saved[name] for name in ("num_steps", "num_episodes", "seconds")}}
    # Parameters and optimizer
    keeps_optimizer = "optimizer" not in changed and not origin.agent_only
    if not keeps_optimizer:
        new.append("the optimizer's state")
    for name in ("train_state", "train_states"):
        if name in fresh:
            rows = fresh[name] if name == "train_states" else [fresh[name]]
            moved = [_train_state(origin, row, i, keeps_optimizer) for i, row in enumerate(rows)]
            state[name] = moved if name == "train_states" else moved[0]
    # Environments and random streams
    is_same_kind = fresh.keys() == saved.keys() and not origin.agent_only
    keeps_streams = is_same_kind and "seed" not in changed
    keeps_envs = keeps_streams and not _of_env(changed)
    if not keeps_envs:
        new.append("the episodes")
    if not keeps_streams:
        new.append("the random streams")
    # What callbacks had set; a setting that the branch itself changes is listed as such
    orders = saved.get("orders", [])
    kept = _orders(origin, orders, changed) if "orders" in fresh else []
    lost = {order[0] for order in orders if order not in kept and order[1] not in changed}
    new += [words for kind, words in _SET.items() if kind in lost]
    if "orders" in fresh:
        state["orders"] = kept
    # The learner, workers and statistics
    learner = None if origin.agent_only else _learner_of(saved)
    if "learner" in fresh:
        state["learner"] = _learner(learner, fresh["learner"], keeps_streams, keeps_envs)
    if "actor" in fresh:
        state["actor"] = _actor(origin, learner, fresh["actor"], keeps_streams, keeps_envs)
    if "workers" in fresh:
        keeps_workers = keeps_envs and not any(all_settings()[n].section in ("algorithm", "model") for n in changed)
        state["workers"] = saved["workers"] if keeps_workers else fresh["workers"]
    if "moments" in fresh:
        state["moments"] = {**fresh["moments"], **_moments(origin, learner, fresh["moments"])}
    if "counters" in fresh:
        state["counters"] = saved["counters"] if is_same_kind else _counters(fresh["counters"], saved)
    return state, new


def _train_state_of(saved: State, row: int) -> State:
    """Return the parameters and the optimizer of a runner's state; workers with their own have a row each."""
    if "train_state" in saved:
        found: State = saved["train_state"]
        return found
    rows: list[State] = saved["train_states"]
    return rows[row % len(rows)]


def _train_state(origin: Origin, fresh: State, row: int, keeps_optimizer: bool) -> State:
    saved = _train_state_of(origin.state["training"]["runner"], row)
    params = origin.state["params"] if origin.agent_only else saved["params"]
    target = saved["target_params"]
    if fresh["target_params"] is None:
        target = None
    elif target is None or origin.agent_only:  # it begins as a copy of the critic, the last part of the vector
        target = params[-len(fresh["target_params"]) :]
    return {
        "params": params,
        "target_params": target,
        "optimizer": saved["optimizer"] if keeps_optimizer else fresh["optimizer"],
    }


def _learner_of(saved: State) -> State | None:
    """Return the learner of a runner's state, of the first worker that has one."""
    if "learner" in saved:
        found: State = saved["learner"]
        return found
    actors = [saved["actor"]] if "actor" in saved else saved["workers"]
    return next((actor["learner"] for actor in actors if actor is not None), None)


def _learner(saved: State | None, fresh: State, keeps_streams: bool, keeps_envs: bool) -> State:
    """Return the state of a learner: the saved one, but for parts that one of the two does not have."""
    if saved is None:
        return fresh
    parts = {}
    for name in _PARTS:
        both = saved[name] is not None and fresh[name] is not None
        parts[name] = saved[name] if both and (keeps_streams or name not in _RANDOM) else fresh[name]
    rewards = parts["reward_normalizer"]
    if rewards is not None and not keeps_envs:  # the returns so far are of episodes that do not go on
        parts["reward_normalizer"] = {**rewards, "returns": None}
    return {**saved, **parts}


def _actor(origin: Origin, learner: State | None, fresh: State, keeps_streams: bool, keeps_envs: bool) -> State:
    """Return the state of the only process of a synchronous run."""
    normalizer = origin.state["normalizer"]
    state = {
        **fresh,
        "learner": _learner(learner, fresh["learner"], keeps_streams, keeps_envs),
        "normalizer": fresh["normalizer"] if normalizer is None or fresh["normalizer"] is None else normalizer,
        "envs": None,
    }
    if not keeps_streams:
        return state
    saved = origin.state["training"]["runner"]["actor"]
    noise = saved["policy"]["noise"] if keeps_envs else None
    state["policy"] = {"rng": saved["policy"]["rng"], "noise": noise}
    if keeps_envs:
        state["collector"], state["envs"] = saved["collector"], saved["envs"]
    return state


def _moments(origin: Origin, learner: State | None, fresh: State) -> dict[str, Any]:
    """Return the running statistics that workers share, of those the parent has."""
    saved = origin.state["training"]["runner"].get("moments", {})
    rewards = None if learner is None else learner["reward_normalizer"]
    known = {
        "observations": origin.state["normalizer"],
        "returns": saved.get("returns") or (None if rewards is None else rewards["statistics"]),
    }
    return {name: known[name] for name in fresh if known.get(name) is not None}


def _counters(fresh: Any, saved: State) -> Any:
    """Return the counts of steps and episodes of a run that had no workers."""
    counters = np.zeros_like(fresh)
    counters[Counter.STEPS], counters[Counter.EPISODES] = saved["num_steps"], saved["num_episodes"]
    return counters
