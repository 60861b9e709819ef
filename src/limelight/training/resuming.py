"""A run that is continued: which checkpoint, whether it fits the run, and what goes on from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from limelight.errors import CheckpointError, ConfigError
from limelight.runners.base import budget_of
from limelight.runs.agent import Agent
from limelight.runs.checkpoint import checkpoints, fitting, has_state, newest_state, read_state
from limelight.runs.folder import CONFIG, SUMMARY
from limelight.seeds import Stream, derive_seed
from limelight.settings.io import from_dict, save_yaml
from limelight.settings.schema import TrainConfig
from limelight.training.loop import ERROR, TrainingLoop


def read_checkpoint(
    run_dir: Path, notify: Callable[[str], None] = lambda note: None, fallback: bool = False
) -> dict[str, Any]:
    """Read the newest checkpoint of a run; with ``fallback`` the newest intact one, and ``notify`` gets a line on it.

    Raises: CheckpointError if there is none.
    """
    if not checkpoints(run_dir):
        begin = f"--config {run_dir / CONFIG} begins a run with its settings"
        if has_state(run_dir / "best"):
            begin = f"--init-agent {run_dir} begins a new run with its best agent"
        raise CheckpointError(f"resume = {run_dir}: no checkpoint in {run_dir / 'checkpoints'}; {begin}")
    _, state, skipped = newest_state(run_dir, fallback)
    if skipped is not None:
        notify(skipped)
    return state


def require_best(run_dir: Path, state: dict[str, Any], notify: Callable[[str], None], fallback: bool) -> None:
    """Refuse a damaged best agent, which the end of the run would need; with ``fallback`` the run goes on without it.

    Raises: CheckpointError naming its file.
    """
    best = run_dir / "best"
    if not has_state(best):
        return
    try:
        read_state(best)
    except CheckpointError as error:
        reason = str(error).partition("; use another")[0]
        if not fallback:
            raise CheckpointError(f"{reason}; with fallback the next evaluation saves a new best agent") from None
        notify(f"{reason}; the next evaluation saves a new best agent")
        with fitting(run_dir):
            state["training"]["evaluator"]["best_return"] = None
        shutil.rmtree(best)


def require_own(state: Mapping[str, Any], agent: Agent, run_dir: Path) -> None:
    """Refuse a checkpoint of another environment or network than the run's.

    Raises: CheckpointError.
    """
    where = f"resume = {run_dir}: its newest checkpoint"
    with fitting(where):
        env_id, own = state["config"]["env"]["env_id"], agent.get_state()
        if env_id != agent.config.env.env_id:
            raise CheckpointError(f"{where} is of {env_id}, the run of {agent.config.env.env_id}; it is of another run")
        for name in ("observation_space", "action_space"):
            if state[name] != json.loads(json.dumps(own[name])):
                raise CheckpointError(f"{where} has another {name} than the environment; it is of another run")
        if len(state["params"]) != len(own["params"]):
            counts = f"{len(state['params'])} parameters, the network {len(own['params'])}"
            raise CheckpointError(f"{where} has {counts}; it is of another run")


def require_budget(config: TrainConfig, state: dict[str, Any]) -> None:
    """Refuse another budget that the checkpoint has passed already; the same one is a finished run, evaluated again.

    Raises: ConfigError.
    """
    done = {"total_timesteps": step_of(state), "total_episodes": int(state["training"]["episodes"]["count"])}
    for name, number in done.items():
        budget, before = getattr(config, name), state["config"][name]
        if budget is not None and budget != before and budget <= number:
            unit = name.removeprefix("total_").replace("timesteps", "steps")
            raise ConfigError(f"{name} = {budget}: the run has done {number} {unit} already; give a larger number")


def step_of(state: Mapping[str, Any]) -> int:
    """Return the environment steps of a checkpoint."""
    return int(state["training"]["runner"]["num_steps"])


def restore(loop: TrainingLoop, state: dict[str, Any]) -> None:
    """Continue from a checkpoint, with a message that says so, and what is not exact about it; save the settings.

    Once the checkpoint is accepted, the summary of the end before is removed: a run that is killed from here on has
    none.
    """
    restart_seed = derive_seed(loop.config.seed, Stream.ENV, step_of(state))
    inexact = loop.set_state(state["training"], restart_seed)
    save_yaml(loop.config, loop.run_dir / CONFIG)
    (loop.run_dir / SUMMARY).unlink(missing_ok=True)
    step, episodes, budget = loop.runner.num_steps, loop.runner.num_episodes, budget_of(loop.config)
    parts = [f"resumed at step {step:,}", *_moved(state["config"], loop.config)]
    if ended_by := state["training"].get(ERROR):
        kind = ended_by.partition(":")[0]
        parts.append(f"the checkpoint was saved when {kind} ended the run, so it may not repeat exactly")
    if step >= budget.timesteps:
        parts.append(f"the budget of {budget.timesteps:,} steps is used up; set total_timesteps to train further")
    elif budget.is_used_up(step, episodes):
        parts.append(f"the budget of {budget.episodes:,} episodes is used up; set total_episodes to train further")
    loop.logger.message("; ".join([*parts, inexact] if inexact else parts))


def _moved(saved: dict[str, Any], config: TrainConfig) -> list[str]:
    """Return what another machine or command has changed, after which a run does not repeat exactly."""
    before, after = from_dict(saved), config
    pairs = {
        "device": (before.device, after.device),
        "backend": (before.env.backend, after.env.backend),
        "num_workers": (before.workers.num_workers, after.workers.num_workers),
    }
    return [f"{name} was {old}, so it does not repeat exactly" for name, (old, new) in pairs.items() if old != new]
