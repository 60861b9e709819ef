"""Measure default settings on environments without a preset, beside Stable-Baselines3's defaults at equal steps.

Every run is written to the results file as soon as it is done and is not run again. Times are processor seconds of
training (one thread), without the evaluation at its end. Scores are greedy episodes with the last parameters, on the
environment as it is. Run it as a script, in an environment that has stable-baselines3, minatar, minigrid, box2d and
mujoco beside Limelight.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np
from stats import RESULTS, git_commit, machine, markdown_table, save_json
from study_envs import STUDY, Study

from limelight.runs.statistics import bootstrap_interval, iqm, median_or_never

Row = dict[str, Any]

EPISODES = 20
"""Greedy episodes of a score, and the episodes that a point of a training curve averages."""
MAX_STEPS = 2_000
"""Steps after which an episode of a score is cut."""
POINTS = 60
"""Points of a training curve."""


class Curve:
    """Records [step, processor seconds, mean of the latest returns], about ``POINTS`` times in a run."""

    def __init__(self, steps: int) -> None:
        self.every = max(steps // POINTS, 1)
        self.started = time.process_time()
        self.elsewhere = 0.0
        """Processor seconds of evaluations, which are no training."""
        self.recent: deque[float] = deque(maxlen=EPISODES)
        self.points: list[list[float]] = []

    def seconds(self) -> float:
        """Return the processor seconds of training so far."""
        return time.process_time() - self.started - self.elsewhere

    def add(self, step: int, returns: Sequence[float]) -> None:
        """Add finished episodes."""
        self.recent.extend(returns)
        if self.recent and (not self.points or step >= self.points[-1][0] + self.every):
            seconds = round(self.seconds(), 3)
            self.points.append([step, seconds, round(float(np.mean(self.recent)), 6)])


def score(study: Study, predict: Callable[[Any], Any], wrap: Callable[[Any], Any], seed: int) -> float:
    """Return the mean return of greedy episodes."""
    env = wrap(study.make())
    returns = []
    for episode in range(EPISODES):
        obs, info = env.reset(seed=seed + episode)
        total, ended, steps = 0.0, False, 0
        while not ended and steps < MAX_STEPS:
            action = np.asarray(predict((obs, info)))
            obs, reward, terminated, truncated, info = env.step(action if action.ndim else action.item())
            total, ended, steps = total + float(reward), terminated or truncated, steps + 1
        returns.append(total)
    env.close()
    return float(np.mean(returns))


# --------------------------------------------------------------------------- libraries


class Recorder:
    """A logger that records training episodes and messages."""

    def __init__(self, curve: Curve) -> None:
        self.curve = curve
        self.messages: list[str] = []
        self.seconds: float | None = None

    def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Ignore metrics."""

    def episodes(self, step: int, seconds: float, episodes: Sequence[Any]) -> None:
        """Record episodes."""
        self.curve.add(step, [episode.episode_return for episode in episodes])

    def message(self, text: str) -> None:
        """Record a message."""
        self.messages.append(text)

    def close(self) -> None:
        """Record the end of training."""
        self.seconds = self.seconds or self.curve.seconds()


def run_limelight(study: Study, seed: int, algo: str, settings: Mapping[str, Any]) -> Row:
    """Train with Limelight's defaults for an environment without a preset."""
    import limelight
    from limelight.training.evaluator import Evaluator

    curve = Curve(study.steps)
    evaluate = Evaluator.evaluate

    def timed(self: Evaluator, step: int, seconds: float) -> Any:
        start = time.process_time()
        try:
            return evaluate(self, step, seconds)
        finally:
            curve.elsewhere += time.process_time() - start

    own = {
        "total_timesteps": study.steps, "preset": "none", "eval_every": study.steps // 5, "eval_episodes": 10,
        "final_episodes": 0, "tensorboard": False, "checkpoint_every": 0,
    }  # fmt: skip
    recorder = Recorder(curve)
    with (
        tempfile.TemporaryDirectory(prefix="limelight-study-") as folder,
        mock.patch.object(Evaluator, "evaluate", timed),
    ):
        run_dir = str(Path(folder) / "run")
        result = limelight.train(
            study.env_id, algo=algo, seed=seed, run_dir=run_dir, quiet=True, loggers=[recorder], **{**own, **settings}
        )
        agents = {"greedy": limelight.load(run_dir, "last"), "best": result.agent}

    def predictor(agent: Any) -> Callable[[Any], Any]:
        def predict(state: tuple[Any, Any]) -> Any:
            obs, info = state
            masks = {"action_masks": info["action_mask"]} if "action_mask" in info else {}
            return agent.predict(obs, deterministic=True, **masks)[0]

        return predict

    scores = {name: score(study, predictor(agent), lambda env: env, 10_000 + seed) for name, agent in agents.items()}
    return {**scores, "seconds": recorder.seconds, "curve": curve.points, "notes": recorder.messages}


def run_sb3(study: Study, seed: int, algo: str, settings: Mapping[str, Any]) -> Row:
    """Train with Stable-Baselines3's defaults: one environment, ``MlpPolicy`` or ``MultiInputPolicy``."""
    import gymnasium as gym
    import stable_baselines3
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.monitor import Monitor

    torch.set_num_threads(1)

    def wrap(env: Any) -> Any:
        if "mission" in getattr(env.observation_space, "spaces", {}):
            from minigrid.wrappers import ImgObsWrapper

            env = gym.wrappers.FlattenObservation(ImgObsWrapper(env))
        if isinstance(env.observation_space, gym.spaces.Tuple) or len(env.observation_space.shape or ()) > 1:
            env = gym.wrappers.FlattenObservation(env)
        return env

    env = Monitor(wrap(study.make()))
    policy = "MultiInputPolicy" if isinstance(env.observation_space, gym.spaces.Dict) else "MlpPolicy"
    model = getattr(stable_baselines3, algo.upper())(policy, env, seed=seed, device="cpu", **settings)
    curve = Curve(study.steps)

    class Episodes(BaseCallback):  # type: ignore[misc]
        """Records training episodes."""

        def _on_step(self) -> bool:
            ended = [info["episode"]["r"] for info in self.locals["infos"] if "episode" in info]
            if ended:
                curve.add(self.num_timesteps, ended)
            return True

    model.learn(study.steps, callback=Episodes())
    seconds = curve.seconds()
    greedy = score(study, lambda s: model.predict(s[0], deterministic=True)[0], wrap, 10_000 + seed)
    return {"greedy": greedy, "seconds": seconds, "curve": curve.points}


LIBRARIES: dict[str, tuple[Callable[..., Row], str]] = {
    "limelight": (run_limelight, "auto"),
    "a2c": (run_limelight, "a2c"),
    "ppo": (run_limelight, "ppo"),
    "sb3-a2c": (run_sb3, "a2c"),
    "sb3-ppo": (run_sb3, "ppo"),
}


def run(name: str, library: str, seed: int, settings: dict[str, Any]) -> Row:
    """Run one seed; a run that fails returns a row as well, with its error."""
    import torch

    torch.set_num_threads(1)
    function, algo = LIBRARIES[library]
    try:
        row = function(STUDY[name], seed, algo, settings)
    except Exception as error:  # the other runs continue, and the failed one stays in the table
        row = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()[-1500:]}
    return {"task": name, "library": library, "seed": seed, **row}


def last(row: Row) -> float:
    """Return the mean training return at the end of a run."""
    tail = [p[2] for p in row["curve"][-max(len(row["curve"]) // 10, 1) :]]
    return float(np.mean(tail)) if tail else float("nan")


def table(rows: Sequence[Row]) -> str:
    """Return a line per task: greedy scores of every library over its seeds, and seconds."""
    libraries = sorted({row["library"] for row in rows})
    lines = []
    for name in STUDY:
        cells = [name]
        for library in libraries:
            mine = [row for row in rows if row["task"] == name and row["library"] == library and "error" not in row]
            if not mine:
                cells += ["–", "–", "–"]
                continue
            greedy = np.array([row["greedy"] for row in mine])
            low, high = bootstrap_interval([[g] for g in greedy])
            seconds = np.median([row["seconds"] for row in mine])
            cells += [
                f"{float(iqm(greedy)):.4g} [{low:.4g}, {high:.4g}]",
                f"{float(iqm(np.array([last(row) for row in mine]))):.4g}",
                f"{seconds:.1f}",
            ]
        lines.append(cells)
    header = ["task", *(f"{library} {what}" for library in libraries for what in ("greedy", "training", "s"))]
    return markdown_table(header, lines)


def reached(row: Row, goal: float) -> float | None:
    """Return the processor seconds after which the training return first is ``goal`` or more."""
    return next((seconds for _, seconds, mean in row["curve"] if mean >= goal), None)


def sooner(ours: Sequence[Row], theirs: Sequence[Row]) -> float | None:
    """Return how many times sooner the median of ours reaches the last training return of theirs than they do.

    None if the median never does, or if no run of theirs has times of a quiet machine.
    """
    timed = [row for row in theirs if row["curve"] and row.get("timed", True)]
    if not timed:
        return None
    goal = float(np.median([last(row) for row in timed]))
    own, other = ([reached(row, goal) for row in rows] for rows in (ours, timed))
    mine = median_or_never(own)
    known = [seconds for seconds in other if seconds is not None]
    return float(np.median(known)) / max(mine, 1e-3) if known and mine is not None else None


def comparison(rows: Sequence[Row]) -> str:
    """Return a line per task: ours beside the better of the peers, the verdict, and how much sooner."""
    lines, verdicts, ratios, stable = [], [], [], []
    for name, study in STUDY.items():
        here = [row for row in rows if row["task"] == name and "error" not in row]
        ours = [row for row in here if row["library"] == "limelight"]
        peers = {lib: [row for row in here if row["library"] == lib] for lib in ("sb3-a2c", "sb3-ppo")}
        if not ours:
            continue
        greedy = np.array([row["greedy"] for row in ours])
        low, high = bootstrap_interval([[g] for g in greedy])
        scores = {lib: float(iqm(np.array([row["greedy"] for row in found]))) for lib, found in peers.items() if found}
        verdict, ratio = "–", None
        if scores:
            best = max(scores, key=lambda lib: scores[lib])
            verdict = "above" if low > scores[best] else "below" if high < scores[best] else "equal"
            ratio = sooner(ours, peers[best])
            if not study.held_back:
                verdicts.append(verdict)
                ratios += [ratio] if ratio is not None else []
        for row in ours:
            spread = max(abs(row["best"]), 1e-9)
            stable.append(row["greedy"] >= row["best"] - 0.05 * spread)
        lines.append([
            name + (" (held back)" if study.held_back else ""), f"{study.steps // 1000}k", str(len(ours)),
            f"{float(iqm(greedy)):.4g} [{low:.4g}, {high:.4g}]",
            *(f"{scores[lib]:.4g} ({len(peers[lib])})" if lib in scores else "–" for lib in peers),
            verdict, "–" if ratio is None else f"{ratio:.1f}",
        ])  # fmt: skip
    header = ["task", "steps", "seeds", "limelight", "SB3 A2C (seeds)", "SB3 PPO (seeds)", "verdict", "sooner ×"]
    counts = {verdict: verdicts.count(verdict) for verdict in ("above", "equal", "below")}
    median_ratio = float(np.median(ratios)) if ratios else float("nan")
    return (
        f"{markdown_table(header, lines)}\n\nTraining tasks: {counts}; sooner × {median_ratio:.1f} in the median of "
        f"{len(ratios)}; last parameters within 5 % of the best agent in {sum(stable)} of {len(stable)} runs."
    )


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--libraries", nargs="+", default=list(LIBRARIES), choices=LIBRARIES)
    parser.add_argument("--tasks", nargs="+", default=list(STUDY), choices=STUDY)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings instead of the defaults")
    parser.add_argument("--output", type=Path, default=RESULTS / "defaults.json")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--compare", action="store_true", help="run nothing, and compare with the peers")
    return parser.parse_args(argv)


def main() -> None:
    """Run what is missing, and print the table."""
    args = parse()
    data = json.loads(args.output.read_text()) if args.output.exists() else {"rows": []}
    settings = {key: json.loads(value) for key, _, value in (item.partition("=") for item in args.set)}
    done = {(row["task"], row["library"], row["seed"]) for row in data["rows"]}
    seeds = range(args.first_seed, args.first_seed + args.seeds)
    todo = [(t, lib, seed) for seed in seeds for t in args.tasks for lib in args.libraries]
    todo = [job for job in todo if job not in done and not (args.table or args.compare)]
    with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
        futures = [pool.submit(run, *job, settings) for job in todo]
        for future in as_completed(futures):
            row = future.result()
            data["rows"].append({**row, "commit": git_commit()})
            if "error" in row:
                print(row["task"], row["library"], row["seed"], row["error"], file=sys.stderr)
            save_json(args.output, {**data, "machine": machine()})
    print(comparison(data["rows"]) if args.compare else table(data["rows"]))


if __name__ == "__main__":
    main()
