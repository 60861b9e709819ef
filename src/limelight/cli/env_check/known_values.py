"""``limelight check --probe``: the settings of training on tasks with known values, and whose fault a failure is."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from gymnasium.spaces import Box, Space

from limelight.cli.env_check.findings import Finding
from limelight.envs.probe_toys import ProbeToy, Task, known_value, observation, original
from limelight.envs.source import EnvSource, resolve_env
from limelight.runs.agent import Agent
from limelight.runs.full_evaluation import as_trained
from limelight.settings.schema import EnvConfig, TrainConfig
from limelight.spaces.packed import walk
from limelight.training.prepare import prepare
from limelight.training.run import build

MOST_SECONDS = 45.0
"""Of all tasks; builds and the last rollouts come on top."""
DRAWN = 64
"""Episodes of sampled actions whose mean return counts where every action is a choice."""
LEAST_STEPS = 1_000
"""Steps that a task must have had before the settings are said to be at fault."""
TOLERANCE = 0.15
"""Distance from the known value, in rewards of 1, within which it counts as learnt."""
NOUNS: dict[Task, str] = {
    "constant": "reward always 1",
    "observation": "reward by observation",
    "delay": "reward a step later",
    "action": "reward by action",
    "both": "reward by both",
    "memory": "reward by memory",
}
CAUSES: dict[Task, str] = {
    "constant": "the critic does not learn a constant: learning_rate or vf_coef is far too small or too large",
    "observation": "the critic does not see what is observed: normalize_obs, the encoder, or learning_rate",
    "delay": "a reward does not reach the step before it: gamma, gae_lambda or num_steps",
    "action": "the policy does not find the best action: learning_rate, ent_coef, or σ (log_std_init)",
    "both": "the policy does not tell observations apart: the encoder, learning_rate or ent_coef",
    "memory": "the recurrent core does not remember one step: num_steps or core_size",
}


class Result(NamedTuple):
    """What was learnt of a task."""

    task: Task
    known: float
    learnt: float
    steps: int
    seconds: float

    @property
    def is_learnt(self) -> bool:
        """Return whether the learnt value is near the known one."""
        return abs(self.known - self.learnt) <= TOLERANCE * max(1.0, abs(self.known))

    def line(self) -> str:
        """Return known and learnt value, steps and seconds."""
        text = f"{NOUNS[self.task]:21} known {self.known:6.2f}  learnt {self.learnt:6.2f}"
        return f"{text}  {self.steps:>7,} steps  {self.seconds:4.1f} s"


def probe_settings(run: TrainConfig, source: EnvSource, broken: bool) -> list[Finding]:
    """Train the settings of ``run`` on each task for some seconds; return a finding for each, and the verdict.

    Args:
        run: the settings that training would have.
        source: the environment, for its spaces.
        broken: the checks have found a fault of the environment.
    """
    spaces = [original(space) for space in source.spaces()]
    tasks = tasks_for(run, source)
    results: list[Result] = []
    end = time.perf_counter() + MOST_SECONDS
    for left, task in zip(range(len(tasks), 0, -1), tasks, strict=True):
        results.append(train_on(task, run, spaces, (end - time.perf_counter()) / left))
    found = [Finding("ok" if r.is_learnt else "warn", "probe", r.line()) for r in results]
    return [*found, _verdict(results, run, broken)]


def tasks_for(run: TrainConfig, source: EnvSource) -> list[Task]:
    """Return the tasks: those that need observations to differ only where they can, memory only with a core.

    The one that takes longest is the last, and has all the time that the others leave.
    """
    space = original(source.spaces()[0])
    if repr(observation(space, 0)) == repr(observation(space, 1)):
        return ["delay", "action", "constant"]
    memory: list[Task] = ["memory"] if run.model.core != "feedforward" else []
    return ["observation", "delay", "action", "both", *memory, "constant"]


def train_on(task: Task, run: TrainConfig, spaces: Sequence[Space[Any]], most_seconds: float) -> Result:
    """Train on one task until its value is learnt, or the time is over."""
    factory = partial(ProbeToy, task, *spaces)
    config = prepare(_config_for_task(run), factory)
    runner, agent = build(config, resolve_env(config.env, factory))
    known, began, streak, env = known_value(task, config.algorithm.gamma), time.perf_counter(), 0, factory()
    result = Result(task, known, math.nan, 0, 0.0)
    try:
        while not result.seconds or (streak < 2 and result.seconds < most_seconds):
            runner.advance(config.total_timesteps, 0.25)
            learnt = learnt_value(task, agent, env)
            result = Result(task, known, learnt, runner.num_steps, time.perf_counter() - began)
            streak = streak + 1 if result.is_learnt else 0
    finally:
        runner.close()
    return result


def _config_for_task(run: TrainConfig) -> TrainConfig:
    """Return the settings of a run on a task, in this process: those of learning stay, the environment is plain."""
    env = EnvConfig(env_id="ProbeToy", num_envs=run.env.num_envs, autoreset_mode="next_step", backend="sync")
    workers = dataclasses.replace(run.workers, asynchronous=False, runner="local", num_workers=None)
    return dataclasses.replace(run, env=env, workers=workers, total_timesteps=100_000_000, total_episodes=None)


def learnt_value(task: Task, agent: Agent, env: ProbeToy) -> float:
    """Return V of the first observation in units of the environment's rewards, or the mean return of the policy.

    Greedy where an action has real numbers, whose noise costs; sampled elsewhere, as the most probable of nearly equal
    choices may be right by luck.
    """
    if task in ("constant", "observation", "delay"):
        unit = float(as_trained(agent, [1.0])[0])
        values = [float(np.mean(agent.value(observation(env.observation_space, which)))) for which in (0, 1)]
        return (values[0] - values[1]) / 2.0 / unit if task == "observation" else values[0] / unit
    is_greedy = any(isinstance(leaf, Box) for _, leaf in walk(env.action_space))
    starts = (0, 1) if task != "action" else (0,)
    times = 1 if is_greedy else DRAWN // len(starts)
    return float(np.mean([_return(agent, env, which, is_greedy) for which in starts for _ in range(times)]))


def _return(agent: Agent, env: ProbeToy, which: int, is_greedy: bool) -> float:
    obs, _ = env.reset(options={"which": which})
    total, over, state, start = 0.0, False, None, True
    while not over:
        action, state = agent.predict(obs, state, [start], is_greedy)
        obs, reward, over, _, _ = env.step(action)
        total, start = total + reward, False
    return total


def _verdict(results: Sequence[Result], run: TrainConfig, broken: bool) -> Finding:
    failed = {result.task for result in results if not result.is_learnt}
    settings = f"the settings of {run.algorithm.algo}"
    if any(result.task in failed and result.steps < LEAST_STEPS for result in results):
        text = f"undecided: fewer than {LEAST_STEPS:,} steps in the time there is; try again on an idle machine"
        return Finding("warn", "at fault", text)
    if failed:
        cause = next(cause for task, cause in CAUSES.items() if task in failed)
        text = f"{settings}, which learnt {len(results) - len(failed)} of {len(results)} tasks; {cause}"
        return Finding("warn", "at fault", text + ("; the environment has faults too" if broken else ""))
    if broken:
        return Finding("warn", "at fault", f"the environment, which fails checks; {settings} learnt all tasks")
    hint = "if training fails, look at what the environment observes and pays, or give it more steps"
    return Finding("ok", "at fault", f"neither: {settings} learnt all tasks and the environment passes; {hint}")
