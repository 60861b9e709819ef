"""Hash the parameters after 2,000 steps of many settings, on both engines, before and after a change.

python benchmarks/golden.py --output before.json        # with the code before
python benchmarks/golden.py --compare before.json       # with the code after; exit status 1 if any differs

The hashes hold for one machine and one build of NumPy and PyTorch, so make the file on the machine that compares.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import limelight

STEPS = 2_000
QUICK: dict[str, Any] = {
    "num_envs": 2, "num_steps": 5, "backend": "sync", "device": "cpu", "eval_every": 0, "final_episodes": 0,
    "tensorboard": False, "checkpoint_every": 0, "hidden_sizes": (16,), "preset": "plain", "seed": 0,
}  # fmt: skip
ENGINES = {"numpy": {}, "torch": {"activation": "silu"}}
"""The NumPy engine has no silu, so autograd computes it."""
EVERYTHING = {
    "critic": "target", "normalize_obs": True, "optimizer": "adam", "normalize_advantages": "running",
    "lr_schedule": "linear", "ent_schedule": "linear",
}  # fmt: skip
CATCH = "limelight.envs.toy:Catch"
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "target": {"critic": "target", "target_update_every": 3, "tau": 0.2},
    "target-td0": {"critic": "target", "gae_lambda": 0.0},
    "separate": {"critic": "separate", "critic_learning_rate": 1e-3},
    "target-episodes": {"critic": "target", "target_update_at": "episode_end"},
    "normalize-obs": {"normalize_obs": True},
    "normalize-rewards": {"normalize_rewards": True},
    "pendulum": {"env": "Pendulum-v1", "normalize_obs": True, "normalize_rewards": True, "noise_correlation": 0.7},
    "pendulum-gsde": {"env": "Pendulum-v1", "action_std": "gsde", "noise_correlation": 0.9},
    "adam": {"optimizer": "adam"},
    "rmsprop-tf": {"optimizer": "rmsprop_tf", "lr_schedule": "constant"},
    "running-advantages": {"normalize_advantages": "running"},
    "batch-advantages": {"normalize_advantages": "batch"},
    "huber": {"value_loss": "huber", "reward_clip": 0.5, "reward_scale": 2.0},
    "q-weights": {"policy_weight": "q", "gae_lambda": 0.0},
    "entropy": {"ent_schedule": "linear", "ent_coef": 0.2},
    "one-by-one": {"num_envs": 1, "num_steps": 1},
    "lstm": {"core": "lstm", "core_size": 8},
    "gru-separate": {"core": "gru", "core_size": 8, "critic": "separate"},
    "catch-a3c": {"env": CATCH, "encoder": "a3c"},
    "catch-universe-lstm": {"env": CATCH, "encoder": "universe", "normalize_obs": True, "core": "lstm", "core_size": 8},
    "same-step": {**EVERYTHING, "autoreset_mode": "same_step"},
    "everything": EVERYTHING,
}


def hash_of(settings: dict[str, Any]) -> str:
    """Return the first 16 digits of the SHA-256 of all parameters after a run."""
    settings = {"env": "CartPole-v1", **QUICK, **settings}
    env = settings.pop("env")
    steps = 400 if env == CATCH else STEPS
    with tempfile.TemporaryDirectory() as folder:
        result = limelight.train(env, quiet=True, total_timesteps=steps, run_dir=f"{folder}/run", **settings)
        parameters = result.agent.model.parameters()
        return hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in parameters)).hexdigest()[:16]


def main() -> int:
    """Write the hashes, or compare them with those of a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="write the hashes to this file")
    parser.add_argument("--compare", type=Path, help="compare with the hashes of this file")
    parser.add_argument("--only", default="", help="only the cases whose name contains this")
    arguments = parser.parse_args()
    hashes = {
        f"{name}/{engine}": hash_of({**extra, **settings})
        for name, settings in CASES.items()
        for engine, extra in ENGINES.items()
        if arguments.only in name
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(hashes, indent=1) + "\n", encoding="utf-8")
    if not arguments.compare:
        return 0
    before = json.loads(arguments.compare.read_text(encoding="utf-8"))
    different = [name for name, value in hashes.items() if before.get(name) != value]
    print(f"{len(hashes) - len(different)} of {len(hashes)} are the same", *different, sep="\n  differs: ")
    return int(bool(different))


if __name__ == "__main__":
    raise SystemExit(main())
