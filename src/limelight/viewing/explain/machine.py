"""Rules about workers, numbers that are not finite, and where the time goes."""

from __future__ import annotations

import shlex

import numpy as np

from limelight.runners.time_shares import ENVIRONMENT, EVALUATION
from limelight.viewing.explain.evidence import Evidence, Finding, short, times
from limelight.viewing.time_spent import spent

LAG_PER_WORKER = 4.0
"""Updates per worker that a gradient is behind from which it is old; with equally fast workers it is about one."""
LEAST_SECONDS = 60.0
"""Seconds of training from which it matters where they go."""
FIX = "fix the environment"
"""Words of the errors that an environment is the cause of."""
EVALUATION_SHARE, ENVIRONMENT_SHARE = 0.6, 0.9


def run_failed(run: Evidence) -> Finding | None:
    """The run has ended with an error."""
    error = str(run.run.summary.get("error", ""))
    if not error:
        return None
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    text = f"at step {run.last_step:,}: {lines[0]}" + (f" … {lines[-1]}" if len(lines) > 1 else "")
    env_id = run.config.env.env_id
    if lines[0].partition(": ")[2].startswith("callback ") and FIX not in error:
        command = f"limelight train --resume {shlex.quote(str(run.run.folder))}"
        return Finding(
            "run_failed", text, "the code of the callback, once it is corrected the run goes on", None, command
        )
    if lines[0].startswith("NonFiniteError") and FIX not in error:
        cause, setting = "a number of the network overflows: steps are too large", "learning_rate"
        return Finding("run_failed", text, cause, setting, times(run.setting(setting), 0.3))
    command = "limelight check" if "<" in env_id else f"limelight check {shlex.quote(env_id)}"
    return Finding(
        "run_failed", text, "the error says where; most come from the code of the environment", None, command
    )


def not_finite(run: Evidence) -> Finding | None:
    """Updates were skipped, or metrics are not finite."""
    skipped = run.run.total("async/skipped_updates") or 0
    rows = [row["step"] for row in run.run.metrics if any(v is None for k, v in row.items() if k.startswith("train/"))]
    if not skipped and not rows:
        return None
    texts = [f"{skipped} updates were skipped"] if skipped else []
    texts += [f"metrics of training are not finite from step {rows[0]:,} on, in {len(rows)} rows"] if rows else []
    return Finding(
        "not_finite",
        "; ".join(texts),
        "gradients overflow: the steps or the rewards are too large",
        "learning_rate",
        times(run.setting("learning_rate"), 0.3),
    )


def workers_restarted(run: Evidence) -> Finding | None:
    """Workers have failed and were restarted."""
    restarts = run.run.total("async/worker_restarts") or 0
    if not restarts:
        return None
    steps = run.run.series("async/worker_restarts")
    first = steps.steps[np.flatnonzero(steps.values > 0)[0]]
    return Finding(
        "workers_restarted",
        f"{restarts} workers were restarted, the first before step {first:,.0f}",
        "the environment fails now and then, and its episodes are lost; the first failure shows its traceback",
        "on_worker_error",
        "raise",
    )


def policy_lag(run: Evidence) -> Finding | None:
    """Gradients are made of parameters that are many updates old: all of them, or those of the slowest worker.

    In shared memory an update lies between pull and push of each other worker at most once, so that the mean over all
    workers is never above their number less one; that of a slow one is the others' speed over its own.
    """
    workers = run.setting("num_workers") or 1
    lags = run.values("async/policy_lag", after=0.2)[1]
    if len(lags) < 3:
        return None
    mean, slowest = float(np.median(lags)), _slowest(run, workers)
    text = f"mean policy lag {short(mean)} updates with {workers} workers"
    if mean <= LAG_PER_WORKER * workers:
        if slowest is None or slowest[1] <= LAG_PER_WORKER * workers * slowest[2]:
            return None
        worker, others, own = slowest
        text = f"worker {worker} makes {short(own)} updates/s, the others {short(others)} together"
        text += f": its gradients are about {short(others / own)} updates old" if own else ": it hangs"
    return Finding(
        "policy_lag",
        text,
        "some workers are much slower than others, or there are more of them than cores",
        "num_workers",
        max(1, workers // 2),
    )


def _slowest(run: Evidence, workers: int) -> tuple[int, float, float] | None:
    """Return the slowest worker, the updates per second of all others together, and its own; None if not measured."""
    rates = [run.values(f"async/worker_{i}/updates_per_second", after=0.2)[1] for i in range(workers)]
    if workers < 2 or min(map(len, rates)) < 3:
        return None
    means = [float(np.mean(each)) for each in rates]
    worker = int(np.argmin(means))
    return worker, sum(means) - means[worker], means[worker]


def evaluation_slow(run: Evidence) -> Finding | None:
    """Evaluations take most of the time."""
    seconds, training = spent(run.run.metrics).get(EVALUATION, 0.0), _training_seconds(run)
    if training + seconds < LEAST_SECONDS or seconds / (training + seconds) <= EVALUATION_SHARE:
        return None
    return Finding(
        "evaluation_slow",
        f"evaluations took {short(seconds)} s, training {short(training)} s",
        "evaluations are frequent or their episodes long",
        "eval_every",
        4 * run.setting("eval_every"),
    )


def environment_slow(run: Evidence) -> Finding | None:
    """Steps of the environment take most of the training time, in this process alone."""
    seconds, training = spent(run.run.metrics).get(ENVIRONMENT, 0.0), _training_seconds(run)
    if training < LEAST_SECONDS:
        return None
    if seconds / training <= ENVIRONMENT_SHARE or run.setting("backend") not in ("auto", "sync"):
        return None
    return Finding(
        "environment_slow",
        f"steps of the environment took {short(seconds)} of {short(training)} s",
        "the environment is slow and is stepped in one process",
        "backend",
        "async",
    )


def _training_seconds(run: Evidence) -> float:
    return float(max((row["seconds"] for row in run.run.metrics), default=0.0))
