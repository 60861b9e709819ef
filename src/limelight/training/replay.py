"""A run replayed from its last exact checkpoint to the first number that is not finite."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from limelight.algo.learner import Learner
from limelight.envs.recorded import RecordedEnvs, RecordedRow
from limelight.envs.source import resolve_env
from limelight.errors import CheckpointError, FirstNonFiniteError, NonFiniteError
from limelight.nn.checked_network import CheckedNetwork
from limelight.runners.base import ENV_STATE_NOT_RESTORED
from limelight.runners.sync import SyncRunner
from limelight.runs.checkpoint import checkpoints, fitting, read_state
from limelight.runs.folder import CONFIG, SUMMARY, as_folder, read_json
from limelight.runs.origin import PARENT, Origin
from limelight.seeds import Stream, derive_seed
from limelight.settings.rules import load_valid
from limelight.settings.schema import TrainConfig, WorkersConfig
from limelight.threads import single_threaded
from limelight.training.branch import transfer
from limelight.training.loop import ERROR
from limelight.training.order_history import Ordered, OrderHistory
from limelight.training.prepare import prepare
from limelight.training.run import build

LAST_ACTIONS = 10
_ORDERS_LOST = "what its callbacks set, called or changed is not known in full, and is left out"
_SAY_EVERY = 10.0
"""Seconds between two lines on the progress."""


@dataclass(frozen=True)
class Replay:
    """The end of a replay."""

    found: FirstNonFiniteError | None
    """None: every number was finite."""
    step: int
    """Environment steps of the run before the row of the number, or at the end."""
    update: int
    num_envs: int
    env: int
    """Of the number; where it belongs to none, the first."""
    actions: list[RecordedRow]
    """The last steps before the number, oldest first."""


def replay(
    run_dir: str | Path,
    *,
    env: Callable[[], gym.Env[Any, Any]] | None = None,
    at: int | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> Replay:
    """Replay a run with a check of every layer, loss, gradient and parameter, and of all that environments return.

    Args:
        run_dir: the folder of the run.
        env: the callable that makes the environment, where the run was given one that has no name.
        at: the step of the checkpoint to begin at; 0: the beginning of the run; None: the last one before the error,
            or the first there is of a run that has not failed.
        notify: called with a line about the checkpoint, what is not exact, and the progress.
    Raises: LimelightError where there is nothing to begin with, or the environment cannot be made.
    """
    folder = as_folder(run_dir)
    config = load_valid(folder / CONFIG)
    source = resolve_env(config.env, env)
    state = _checkpoint(folder, at)
    end = _last_step(folder)
    has_workers = config.workers.asynchronous or config.workers.runner == "ray"
    if has_workers:
        config = dataclasses.replace(config, workers=WorkersConfig(num_workers=1))
        notify(
            "a run with workers cannot be replayed exactly, as the order of their updates is not recorded; "
            "replayed with one worker, which may meet another number, or none"
        )
    config = prepare(config, source, notify, is_resumed=True)
    with single_threaded(), np.errstate(all="ignore"):  # each is checked
        runner, _ = build(config, source)
        assert isinstance(runner, SyncRunner)
        try:
            with fitting(folder):
                inexact = None if state is None else _restore(runner, state, config, has_workers)
                orders = _orders_after(folder, state)
            start = runner.num_steps
            whole = "" if start == 0 or _has_failed(folder) else "; it has not failed, and --at 0 replays all of it"
            if orders is None:
                inexact = "; ".join([*([inexact] if inexact else []), _ORDERS_LOST])
            notify(f"replaying from step {start:,}" + (f", not exactly: {inexact}" if inexact else whole))
            if has_workers:
                end += end - start
            return _run_to(runner, end, orders or [], notify)
        finally:
            runner.close()


def _checkpoint(folder: Path, at: int | None) -> dict[str, Any] | None:
    """Return the state to begin at; None: the beginning of the run.

    Raises: CheckpointError if there is none.
    """
    found = {int(path.name.removeprefix("step_")): path for path in checkpoints(folder)}
    if at == 0 or (at is None and not found):
        if (folder / PARENT).exists():
            raise CheckpointError(f"{folder}: began from another run; give the step of a checkpoint: {_list(found)}")
        return None
    if at is not None and at not in found:
        raise CheckpointError(
            f"at = {at}: no checkpoint at this step; there are {_list(found)}, and 0 is the beginning"
        )
    for step in sorted(found, reverse=_has_failed(folder)) if at is None else [at]:
        try:
            state = read_state(found[step])
        except CheckpointError:
            if at is not None:
                raise
            continue
        with fitting(found[step]):
            if at is not None or state["training"].get(ERROR) is None:
                return state
    if (folder / PARENT).exists():
        raise CheckpointError(f"{folder}: no intact checkpoint from before the error, and it began from another run")
    return None


def _orders_after(folder: Path, state: dict[str, Any] | None) -> list[Ordered] | None:
    """Return what callbacks ordered after the state a replay begins at; None where the run does not know it."""
    newest = next((read for path in reversed(checkpoints(folder)) if (read := _readable(path)) is not None), None)
    if newest is None:
        return []
    history, before = OrderHistory(), OrderHistory()
    history.set_state(newest["training"]["orders"])
    if state is not None:
        before.set_state(state["training"]["orders"])
    return history.since(before.count)


def _readable(path: Path) -> dict[str, Any] | None:
    try:
        return read_state(path)
    except CheckpointError:
        return None


def _list(found: dict[int, Path]) -> str:
    return ", ".join(map(str, found)) or "none"


def _has_failed(folder: Path) -> bool:
    return read_json(folder / SUMMARY).get("status") == "failed"


def _last_step(folder: Path) -> int:
    """Return the last step from which a rollout of the run has begun."""
    summary = read_json(folder / SUMMARY)
    steps = [int(path.name.removeprefix("step_")) for path in checkpoints(folder)]
    end = max([int(summary.get("total_timesteps") or 0), *steps])
    return end if _has_failed(folder) else end - 1


def _restore(runner: SyncRunner, state: dict[str, Any], config: TrainConfig, has_workers: bool) -> str | None:
    """Continue from a checkpoint; return a phrase on what is not exact."""
    saved = state["training"]["runner"]
    seed = derive_seed(config.seed, Stream.ENV, int(saved["num_steps"]))
    if not has_workers:
        inexact = runner.set_state(saved, seed)
        hint = "; --at 0 replays the whole run, exactly"
        return inexact and inexact + (hint if inexact == ENV_STATE_NOT_RESTORED else "")
    origin = Origin(Path(), "", state, int(saved["num_steps"]), config)
    runner.set_state(transfer(origin, runner.get_state(), config)[0], seed)
    return None


# --------------------------------------------------------------------------- the replay


def _run_to(runner: SyncRunner, end: int, orders: Sequence[Ordered], notify: Callable[[str], None]) -> Replay:
    """Run to the first number that is not finite; the last rollout begins at the step ``end`` or before.

    ``orders``: of callbacks, carried out between the same rollouts as in the run.
    """
    actor_learner, learner = runner.actor_learner, runner.actor_learner.learner
    collector = actor_learner.collector
    envs = RecordedEnvs(collector.envs, collector.num_steps + LAST_ACTIONS)
    network = CheckedNetwork(learner.network, learner.flat.grads)
    collector.envs = envs
    learner.network = actor_learner.policy.network = network
    actor_learner.policy.begin_rollout = network.begin_rollout
    said = time.monotonic()
    first = 0
    waiting = deque(orders)
    while runner.num_steps <= end:
        while waiting and waiting[0].step <= runner.num_steps:
            runner.follow(waiting.popleft().order)
        before, first = runner.num_steps, envs.count
        try:
            runner.advance(before + 1, math.inf)
            _require_train_state(learner, network)
        except NonFiniteError as error:
            return _result(runner, envs, _first_of(error, network, learner), first)
        if runner.num_steps == before:  # the budget is used up
            break
        if time.monotonic() - said > _SAY_EVERY:
            said = time.monotonic()
            notify(f"replayed to step {runner.num_steps:,} of {end:,}: all finite")
    return _result(runner, envs, None, first)


def _first_of(error: NonFiniteError, network: CheckedNetwork, learner: Learner) -> tuple[FirstNonFiniteError, bool]:
    """Return the first number of a failed rollout, and whether its row is that of the recorded steps.

    An action or an observation that is not finite may follow from a layer's output in an earlier row.
    """
    if isinstance(error, FirstNonFiniteError):
        if not _is_of_env(error):
            return error, False
        try:
            network.require_acted()
        except FirstNonFiniteError as earlier:
            return earlier, False
        return error, True
    if not str(error).startswith("learning_rate"):
        return FirstNonFiniteError(str(error).partition(" = ")[0], math.nan), False
    # Every gradient is finite, but not the sum of their squares
    gradients = {name: p.grad for name, p in learner.model.named_parameters() if p.grad is not None}
    largest = max(gradients, key=lambda name: float(gradients[name].abs().max()))
    return FirstNonFiniteError(f"the norm of the gradient, largest in parameter {largest},", math.inf), False


def _is_of_env(error: FirstNonFiniteError) -> bool:
    return error.place.endswith("of the environment")


def _require_train_state(learner: Learner, network: CheckedNetwork) -> None:
    """Check the parameters and the optimizer's state after an update."""
    network.require_parameters()
    for name, tensor in learner.train_state.optimizer_state.items():
        if not torch.isfinite(tensor).all():
            index = int(torch.nonzero(~torch.isfinite(tensor.reshape(-1)))[0])
            of = next((n for n, p in learner.model.named_parameters() if _holds(learner, p, index)), "")
            raise FirstNonFiniteError(f"the optimizer's {name} of parameter {of}", float(tensor.reshape(-1)[index]))


def _holds(learner: Learner, parameter: torch.nn.Parameter, index: int) -> bool:
    span = learner.flat.span([parameter])
    return span.start <= index < span.stop


def _result(
    runner: SyncRunner, envs: RecordedEnvs, first: tuple[FirstNonFiniteError, bool] | None, rollout_at: int
) -> Replay:
    """Return the end of a replay, with the actions before the row of the number."""
    updates = runner.actor_learner.learner.num_updates
    if first is None:
        return Replay(None, runner.num_steps, updates, envs.num_envs, 0, [])
    found, is_recorded = first
    # The number of the first step that does not come before the number
    until = envs.count
    if found.row is not None:
        has_acted = found.place.startswith("the loss")  # which is of the row's own action and reward
        until = found.row + 1 if is_recorded else rollout_at + found.row + has_acted
    rows = [row for row in envs.rows if row.number < until]
    env = found.env or 0
    valid = sum(int(np.count_nonzero(row.valid)) for row in rows if row.number >= rollout_at)
    own = [row for row in rows if row.valid[env]]
    return Replay(found, runner.num_steps + valid, updates, envs.num_envs, env, own[-LAST_ACTIONS:])
