"""Train the agents of this folder again, judge them, draw their curves and write the table of README.md.

    python agents/make_agents.py cartpole acrobot    # some of them; without names: the table only

Runs are kept in ``runs/agents``: one that has come to its end is not run again, one that was stopped is resumed.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import limelight
from limelight.runs.folder import COMMAND, CONFIG, SUMMARY, read_json, write_json
from limelight.runs.listing import FINISHED
from limelight.runs.reader import RunData, read_run

HERE = Path(__file__).parent
RUNS = Path("runs") / "agents"
SEED = 1000
"""Of the episodes by which agents are judged; none of training has it."""
CURVE = "curve.png"
TABLE = re.compile(r"(?<=<!-- agents -->\n).*(?=<!-- /agents -->)", re.S)


@dataclass(frozen=True)
class Recipe:
    """How an agent is made."""

    words: str
    """The words after ``limelight train``, but for the folder of the run."""
    extra: str | None = None
    """The extra that has the environment."""
    episodes: int = 100
    """By which it is judged."""


RECIPES = {
    "cartpole": Recipe("CartPole-v1 --seed 1"),
    "cartpole-memory": Recipe(
        "limelight.envs.wrappers:masked_cartpole --algo a2c --core lstm --reward-scale 0.05 --ent-coef 0 --num-envs 16 "
        "--num-steps 16 --learning-rate 2e-3 --total-timesteps 300000 --eval-every 25000 --seed 1"
    ),
    "acrobot": Recipe("Acrobot-v1 --seed 1 --total-timesteps 300000"),
    "pendulum": Recipe("Pendulum-v1 --seed 1"),
    "lunarlander": Recipe(
        "LunarLander-v3 --backend sync --total-timesteps 600000 --seed 1 --checkpoint-every 50000 --keep-last 12",
        "box2d",
    ),
    "bipedalwalker": Recipe("BipedalWalker-v3 --seed 1", "box2d"),
    "halfcheetah": Recipe("HalfCheetah-v5 --seed 2", "mujoco"),
    "pong": Recipe("ALE/Pong-v5 --algo a3c --num-workers 2 --seed 1", "atari", episodes=20),
    "breakout": Recipe("ALE/Breakout-v5 --algo a3c --num-workers 2 --seed 1", "atari", episodes=20),
}


def main() -> None:
    """Make the agents that are named, then the table of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(RECIPES))
    parser.add_argument("--as-they-are", action="store_true", help="take runs that were stopped; do not resume them")
    parser.add_argument("--episodes", type=int, help="by which the agents are judged, instead of their own number")
    args = parser.parse_args()
    names = args.names
    for name in [name for name in names if name not in RECIPES]:
        parser.error(f"{name}: no such agent; there are {', '.join(RECIPES)}")
    for name in names:
        if not args.as_they_are:
            train(name, RECIPES[name])
        print(make(name, RECIPES[name], args.episodes or RECIPES[name].episodes), flush=True)
    readme = HERE / "README.md"
    readme.write_text(TABLE.sub(lambda _: table(), readme.read_text(encoding="utf-8")), encoding="utf-8")


def make(name: str, recipe: Recipe, episodes: int) -> str:
    """Write the folder of an agent from its run; return its score in words."""
    run, folder = read_run(RUNS / name), HERE / name
    limelight.load(run.folder).save(folder)
    judged = limelight.evaluate(limelight.load(folder), episodes=episodes, seed=SEED)
    draw(run, folder / CURVE)
    (folder / COMMAND).write_text(run.command + "\n", encoding="utf-8")
    write_json(folder / SUMMARY, {**summary(run), "extra": recipe.extra, "evaluation": statistics(judged)})
    return f"{name}: {judged.mean_return:.1f} ± {judged.std_return:.1f} over {judged.episodes} episodes"


def train(name: str, recipe: Recipe) -> Path:
    """Train an agent, or resume its run, unless that has come to its end; return the folder of the run."""
    run_dir = RUNS / name
    if read_json(run_dir / SUMMARY).get("status") not in FINISHED:
        to_run = ["--run-dir", run_dir.as_posix()]
        words = ["--resume", run_dir.as_posix()] if (run_dir / CONFIG).is_file() else [*recipe.words.split(), *to_run]
        subprocess.run([sys.executable, "-m", "limelight", "train", *words], check=True)
    return run_dir


def summary(run: RunData) -> dict[str, Any]:
    """Return the results of the run, what it was trained on, and with which versions."""
    kept = ("python", "limelight-rl", "torch", "numpy", "gymnasium", "processor", "cpu_count")
    backend = {"backend": run.config.env.backend, "num_workers": run.config.workers.num_workers}
    budget = {"budget": run.config.total_timesteps}
    return {**run.summary, **budget, **backend, **{key: run.system[key] for key in kept}}


def statistics(judged: limelight.Evaluation) -> dict[str, Any]:
    """Return the score of an evaluation, to one part in ten thousand."""
    returns = judged.returns
    found = {"mean": judged.mean_return, "std": judged.std_return, "min": min(returns), "max": max(returns)}
    rounded = {key: float(f"{value:.5g}") for key, value in found.items()}
    return {"episodes": judged.episodes, "seed": SEED, "greedy": True, **rounded, "mean_length": judged.mean_length}


def draw(run: RunData, path: Path) -> None:
    """Draw the mean of 100 training episodes and the evaluations over steps, as a small PNG file of 32 colors."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator
    from PIL import Image

    from limelight.viewing.plots import COLORS, PAPER, style

    training, evaluations = run.series("rollout/ep_rew_mean"), run.series("eval/mean_reward")
    with style():
        figure = Figure((3.4, 1.9), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(training.steps, training.values, color=COLORS[0], linewidth=1.4, label="training")
        axes.plot(evaluations.steps, evaluations.values, "o", color=COLORS[1], markersize=3, label="evaluation")
        axes.set_title(path.parent.name)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(lambda step, _: compact_step(step))
        axes.set_ylim(*limits(np.concatenate([training.values, evaluations.values])))
        figure.savefig(path, dpi=110, facecolor=PAPER)
    Image.open(path).convert("RGB").quantize(32).save(path, optimize=True)


def compact_step(step: float) -> str:
    """Return a number of steps in thousands, or in millions."""
    if step >= 1e6:
        return f"{step / 1e6:g}M"
    return f"{step / 1e3:g}k" if step else "0"


def limits(values: np.ndarray[Any, Any]) -> tuple[float, float]:
    """Return the ends of an axis for returns; a few that are far lower than the others may lie below it."""
    low, high = np.nanquantile(values, 0.02), np.nanmax(values)
    margin = 0.06 * max(high - low, 1e-6)
    return float(low - margin), float(high + margin)


def table() -> str:
    """Return the table of README.md, and the curves below it."""
    made = [name for name in RECIPES if (HERE / name / SUMMARY).is_file()]
    rows = [
        "| agent | score: mean (lowest to highest) | episodes | steps | minutes | trained by |",
        "|---|---|---|---|---|---|",
    ]
    for name in made:
        found = read_json(HERE / name / SUMMARY)
        score = found["evaluation"]
        command = (HERE / name / COMMAND).read_text(encoding="utf-8").strip()
        words = " ".join(word for word in shlex.split(command) if word not in ("--run-dir", f"runs/agents/{name}"))
        rows.append(
            f"| `{name}` | **{decimal(score['mean'])}** ({decimal(score['min'])} to {decimal(score['max'])}) "
            f"| {score['episodes']} | {steps(found)} | {found['wall_seconds'] / 60:.1f} | `{words}` |"
        )
    curves = " ".join(f"![{name}: returns over steps]({name}/{CURVE})" for name in made)
    return "\n".join([*rows, "", curves, ""])


def steps(found: dict[str, Any]) -> str:
    """Return the steps of a run, beside its budget where it was stopped before."""
    done = f"{found['total_timesteps']:,}"
    return done if found["status"] in FINISHED else f"{done}, stopped, of {found['budget']:,}"


def decimal(value: float) -> str:
    """Return a return with few digits."""
    return (f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}").replace("-", "−")


if __name__ == "__main__":
    main()
