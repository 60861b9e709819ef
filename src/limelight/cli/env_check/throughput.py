"""The fastest number of environments, backend and workers for an environment and a network, by short trials."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

from limelight.envs.make import num_cores
from limelight.envs.source import EnvSource, resolve_env
from limelight.errors import LimelightError
from limelight.settings.io import get_setting, with_settings
from limelight.settings.schema import NO_STEP_BUDGET, TrainConfig
from limelight.settings.values import to_text
from limelight.threads import single_threaded

SECONDS = 20.0
"""Of all trials together."""
TRIALS = 14
"""About how many trials there are, among which the time is shared out."""
MOST_ROWS, MOST_ROLLOUT_SECONDS = 2_048, 0.5
"""Steps of a rollout in a trial, and seconds that its environment may take, beyond which a trial has shorter ones."""
MOST_PROCESSES = 32
"""Environments from which a process for each is not tried."""


class Trial(NamedTuple):
    """One choice of settings and its speed."""

    changes: Mapping[str, Any]
    """Settings, by plain name, that differ from those that training would have."""
    num_envs: int
    backend: str
    workers: int | None
    """None: the process of the run alone."""
    speed: float | None
    """Environment steps per second of training; None where it was not measured."""
    note: str = ""
    """Why it was not."""


def try_settings(config: TrainConfig, source: EnvSource, seconds: float = SECONDS) -> list[Trial]:
    """Measure backends, then more environments with the fastest of them, then workers, for so long in all.

    Raises: LimelightError where not even the settings that training would have can be run.
    """
    deadline = time.perf_counter() + seconds
    base = _shortened(config, source)
    trials = [_measure(base, source, {}, deadline, must_work=True)]
    num_envs, backend = config.env.num_envs, trials[0].backend
    others = [name for name in _backends() if name != backend and (name != "async" or num_envs <= MOST_PROCESSES)]
    trials += [_measure(base, source, {"backend": name}, deadline) for name in others]
    fastest = _best(trials).changes
    for factor in (4, 16):
        many = {**fastest, "num_envs": factor * num_envs}
        if fastest.get("backend", backend) != "async" or factor * num_envs <= MOST_PROCESSES:
            trials.append(_measure(base, source, many, deadline))
    if not (config.workers.asynchronous or config.workers.runner == "ray"):
        workers = {"asynchronous": True, "num_workers": num_cores()}
        sizes = dict.fromkeys((num_envs, _best(trials).num_envs))
        for size in sizes:
            size_change = {} if size == num_envs else {"num_envs": size}
            trials.append(_measure(base, source, {**workers, **size_change}, deadline))
    return trials


def _backends() -> list[str]:
    names = ["sync", "vector", *(["async"] if num_cores() > 1 else [])]
    return [*names, "envpool"] if find_spec("envpool") is not None else names


def _best(trials: list[Trial]) -> Trial:
    return max(trials, key=lambda trial: trial.speed or 0.0)


def _shortened(config: TrainConfig, source: EnvSource) -> TrainConfig:
    """Return settings without a budget, whose rollouts are short enough to be tried in."""
    source.play_once()
    play = source.inspection.play
    step_seconds = 0.0 if play is None else play.step_seconds
    steps, num_envs = config.algorithm.num_steps, config.env.num_envs
    most = MOST_ROWS // num_envs
    if step_seconds:
        most = min(most, int(MOST_ROLLOUT_SECONDS / (step_seconds * num_envs)))
    shorter = min(steps, max(1, most))
    minibatches = max(1, config.algorithm.num_minibatches * shorter // steps)
    changes = {"total_timesteps": NO_STEP_BUDGET, "total_episodes": None, "num_steps": shorter}
    return with_settings(config, {**changes, "num_minibatches": minibatches})


def _measure(
    base: TrainConfig, source: EnvSource, changes: Mapping[str, Any], deadline: float, must_work: bool = False
) -> Trial:
    """Return a trial for its share of the time that is left; without speed where the settings do not fit."""
    from limelight.settings.rules import validate
    from limelight.training.prepare import prepare
    from limelight.training.run import build

    num_envs = int(changes.get("num_envs", base.env.num_envs))
    workers = changes.get("num_workers", base.workers.num_workers)
    left = deadline - time.perf_counter()
    if left <= 0.0 and not must_work:
        return Trial(changes, num_envs, str(changes.get("backend", "auto")), workers, None, "no time left")
    try:
        config = validate(with_settings(base, dict(changes)))
        config = prepare(config, resolve_env(config.env, source))
        with single_threaded():
            runner, _ = build(config, resolve_env(config.env, source))
            try:
                speed = _speed(runner, min(SECONDS / TRIALS, max(left, 0.2)), deadline)
            finally:
                runner.close()
    except LimelightError as error:
        if must_work:
            raise
        backend = str(changes.get("backend", base.env.backend))
        return Trial(changes, num_envs, backend, workers, None, " ".join(str(error).split()))
    number = config.workers.num_workers if config.workers.asynchronous else None
    return Trial(changes, num_envs, config.env.backend, number, speed, "" if speed else "no time left")


def _speed(runner: Any, seconds: float, deadline: float) -> float | None:
    """Return the steps per second after some rollouts; None where no step was made before the deadline."""
    while not runner.num_steps:
        if time.perf_counter() > deadline:
            return None
        runner.advance(NO_STEP_BUDGET, 0.05)
    runner.advance(NO_STEP_BUDGET, 0.2 * seconds)
    step, start = runner.num_steps, runner.seconds
    runner.advance(NO_STEP_BUDGET, 0.8 * seconds)
    passed = runner.seconds - start
    return (runner.num_steps - step) / passed if passed > 0.0 and runner.num_steps > step else None


def as_lines(trials: list[Trial], config: TrainConfig, asked: Mapping[str, Any]) -> list[str]:
    """Return the table, fastest first, what could not be tried, and the fastest flags as a command line.

    ``asked``: the settings on the command line, which the command repeats.
    """
    measured = sorted((trial for trial in trials if trial.speed), key=lambda trial: -(trial.speed or 0.0))
    rows = [("steps/s", "num_envs", "backend", "workers", "")]
    for trial in measured:
        note = "as training would have it" if not trial.changes else ""
        workers = "–" if trial.workers is None else str(trial.workers)
        rows.append((f"{trial.speed:,.0f}", str(trial.num_envs), trial.backend, workers, note))
    widths = [max(len(row[k]) for row in rows) for k in range(4)]
    lines = [
        f"{row[0]:>{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]:>{widths[3]}}  {row[4]}".rstrip()
        for row in rows
    ]
    lines += [f"not tried: {_flags(trial.changes)} ({trial.note})" for trial in trials if not trial.speed]
    best = measured[0] if measured else trials[0]
    lines.append(f"fastest: limelight train {config.env.env_id} {_flags({**asked, **best.changes})}".rstrip())
    if "num_envs" in best.changes or "asynchronous" in best.changes:
        before = get_setting(config, "num_envs")
        lines.append(
            f"more environments than {before}, and workers, change the updates as well as the speed: "
            "compare what is learned (limelight compare)"
        )
    return lines


def _flags(settings: Mapping[str, Any]) -> str:
    """Return settings as the command line takes them."""
    return " ".join(f"--{name.replace('_', '-')} {_words(value)}" for name, value in settings.items())


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{shlex.quote(str(key))} {shlex.quote(to_text(item))}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return " ".join(shlex.quote(to_text(item)) for item in value)
    return shlex.quote(to_text(value))
