"""What ``limelight explain`` says: of healthy runs of the presets, and of runs that were made to fail.

A run counts as healthy if its best agent reaches the job's score. Every finding on a healthy run is a false alarm.
The true cause of each run that is made to fail is written down below, before it is run; it counts as named if it is the
first finding. Results are kept by run: the script goes on where it was interrupted.

    python benchmarks/explain.py                   # all runs that the results file lacks
    python benchmarks/explain.py --only failing    # the ten that fail
    python benchmarks/explain.py --table           # the tables of the results there are
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stats import RESULTS, git_commit, markdown_table, provenance, save_json


class Healthy(NamedTuple):
    """A preset, and the score from which its runs are called healthy."""

    env_id: str
    algo: str
    total_timesteps: int
    score: float


HEALTHY = (
    Healthy("limelight.envs.toy:Aim", "a2c", 20_000, -0.05),
    Healthy("limelight.envs.toy:Aim", "ppo", 20_000, -0.05),
    Healthy("limelight.envs.toy:Catch", "ppo", 30_000, 0.9),
    Healthy("CartPole-v1", "a2c", 80_000, 450.0),
    Healthy("CartPole-v1", "ppo", 80_000, 450.0),
    Healthy("CartPole-v1", "ac", 100_000, 300.0),
    Healthy("Acrobot-v1", "a2c", 150_000, -100.0),
    Healthy("Acrobot-v1", "ppo", 150_000, -100.0),
    Healthy("Pendulum-v1", "a2c", 150_000, -500.0),
    Healthy("Pendulum-v1", "ppo", 150_000, -500.0),
)


class Failing(NamedTuple):
    """A run that is made to fail, and its true cause as the name of a rule."""

    name: str
    cause: str
    why: str
    env_id: str
    settings: dict[str, Any]


FAILING = (
    # As users have reported them
    Failing("endless", "no_episode_ended", "no goal and no time limit", "explain_envs:Endless", {}),
    Failing("sensor", "run_failed", "an observation is NaN", "explain_envs:Sensor", {}),
    Failing("trader", "run_failed", "a reward is 0 / 0", "explain_envs:Trader",
            {"eval_every": 500, "eval_episodes": 5}),
    Failing("opponent", "critic_useless", "the reward is a coin toss", "explain_envs:Opponent", {}),
    Failing("states", "returns_equal", "the reward was forgotten", "explain_envs:States", {}),
    # Wrong settings, and tasks that the settings do not suit
    Failing("large steps", "entropy_gone", "steps 100 times too large", "Acrobot-v1",
            {"learning_rate": 0.3, "ent_coef": 0.0}),
    Failing("small steps", "entropy_high", "steps 1,000 times too small", "CartPole-v1", {"learning_rate": 4e-6}),
    Failing("large rewards", "gradients_clipped", "rewards 10,000 times too large", "CartPole-v1",
            {"reward_scale": 1e4, "preset": "plain", "critic": "shared"}),
    Failing("noise", "actions_clipped", "σ three times the bound of the actions", "Pendulum-v1",
            {"log_std_init": 2.0}),
    Failing("mountain", "returns_equal", "the goal is never found", "MountainCar-v0", {}),
)  # fmt: skip
QUIET: dict[str, Any] = {"quiet": True, "tensorboard": False, "checkpoint_every": 0}
SHORT: dict[str, Any] = {
    "algo": "a2c", "total_timesteps": 20_000, "log_every": 500, "eval_every": 0, "final_episodes": 0, "seed": 1,
    "backend": "sync", **QUIET,
}  # fmt: skip


def findings_of(env_id: str, settings: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """Train; return the findings as ``rule: evidence``, and the summary."""
    import limelight
    from limelight.runs.reader import read_run
    from limelight.training import run as training
    from limelight.viewing.explain.diagnosis import diagnose

    training.draw_report = lambda run_dir: run_dir  # the report is not looked at
    with tempfile.TemporaryDirectory() as folder:
        try:
            limelight.train(env_id, run_dir=f"{folder}/run", **settings)
        except limelight.LimelightError as error:
            print(f"the run ended: {error}", flush=True)
        run = read_run(Path(folder) / "run")
    return [f"{finding.rule}: {finding.evidence}" for finding in diagnose(run)], run.summary


def measure_healthy(job: Healthy, seed: int) -> dict[str, Any]:
    """Train one seed; return its score and the rules that found something."""
    settings = {"algo": job.algo, "total_timesteps": job.total_timesteps, "seed": seed, "final_episodes": 20, **QUIET}
    findings, summary = findings_of(job.env_id, settings)
    score = summary["final_eval_return"]
    return {
        "env_id": job.env_id, "algo": job.algo, "steps": job.total_timesteps, "seed": seed, "score": score,
        "healthy": score >= job.score, "findings": findings, "commit": git_commit(),
    }  # fmt: skip


def measure_failing(job: Failing) -> dict[str, Any]:
    """Train a run that fails; return what was found, and at which place its cause."""
    findings, summary = findings_of(job.env_id, {**SHORT, **job.settings})
    rules = [text.partition(":")[0] for text in findings]
    return {
        "name": job.name, "env_id": job.env_id, "settings": job.settings, "why": job.why, "cause": job.cause,
        "place": rules.index(job.cause) + 1 if job.cause in rules else None, "findings": findings,
        "status": summary["status"], "commit": git_commit(),
    }  # fmt: skip


def tables(data: dict[str, Any]) -> str:
    """Return a row per run that fails, and one per healthy run, each with what was found."""

    def rules(row: dict[str, Any]) -> str:
        return "; ".join(f"`{text.partition(':')[0]}`" for text in row["findings"]) or "–"

    failing = [
        [
            row["name"],
            row["why"],
            f"`{row['cause']}`",
            rules(row),
            {1: "first", None: "missed"}.get(row["place"], "later"),
        ]
        for row in data["failing"]
    ]
    healthy = [
        [row["env_id"].rpartition(":")[2], row["algo"], f"{row['steps']:,}", str(row["seed"]), f"{row['score']:.2f}",
         "yes" if row["healthy"] else "no", rules(row)]
        for row in data["healthy"]
    ]  # fmt: skip
    sound = [row for row in data["healthy"] if row["healthy"]]
    alarms = sum(bool(row["findings"]) for row in sound)
    first = sum(row["place"] == 1 for row in data["failing"])
    texts = []
    if failing:
        header = ["run", "made to fail by", "true cause", "found, in order", "cause named"]
        texts += [markdown_table(header, failing), f"The true cause comes first in {first} of {len(failing)} runs."]
    if healthy:
        header = ["environment", "algorithm", "steps", "seed", "score", "healthy", "found"]
        texts += [markdown_table(header, healthy), f"{alarms} of {len(sound)} healthy runs have a finding."]
    return "\n\n".join(texts)


def load(path: Path) -> dict[str, Any]:
    """Return the results of earlier calls, or none."""
    import json

    if path.exists():
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return data
    return {
        **provenance("explain", {"short": {k: v for k, v in SHORT.items() if k != "quiet"}}),
        "failing": [],
        "healthy": [],
    }


def measure(data: dict[str, Any], path: Path, only: str | None, seeds: range) -> None:
    """Run what ``data`` lacks, short runs first, and save after each."""
    if only != "healthy":
        done = {row["name"] for row in data["failing"]}
        for job in FAILING:
            if job.name not in done:
                data["failing"].append(measure_failing(job))
                save_json(path, data)
    if only == "failing":
        return
    have = {(row["env_id"], row["algo"], row["seed"]) for row in data["healthy"]}
    for seed in seeds:
        for each in HEALTHY:
            if (each.env_id, each.algo, seed) not in have:
                data["healthy"].append(measure_healthy(each, seed))
                save_json(path, data)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2, help="seeds of each healthy run (default: 2)")
    parser.add_argument("--first-seed", type=int, default=10, help="the first of them (default: 10)")
    parser.add_argument("--only", choices=("failing", "healthy"), help="run only these")
    parser.add_argument("--table", action="store_true", help="run nothing, print the tables")
    parser.add_argument("--output", type=Path, default=RESULTS / "explain.json", help="results file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, save and print."""
    arguments = parse(argv)
    data = load(arguments.output)
    if not arguments.table:
        first = arguments.first_seed
        measure(data, arguments.output, arguments.only, range(first, first + arguments.seeds))
    print(f"{tables(data)}\n\nresults: {arguments.output}")


if __name__ == "__main__":
    main()
