"""The default job learns: short versions of what benchmarks/learning.py measures with many seeds."""

from __future__ import annotations

from pathlib import Path

import pytest

import limelight


def test_a2c_solves_cartpole(tmp_path: Path) -> None:
    result = limelight.train(
        "CartPole-v1", seed=100, run_dir=str(tmp_path / "r"), quiet=True, stop_at_return=475.0, tensorboard=False
    )
    assert result.status == "reached_return"
    assert result.summary["final_eval_return"] >= 475.0


def test_a3c_solves_cartpole(tmp_path: Path) -> None:
    """Two workers, lock-free; no two runs are the same, so the budget is several times what is needed.

    It stops at more than is asserted, as 100 more episodes may turn out a little worse than those that stopped it.
    """
    result = limelight.train(
        "CartPole-v1", algo="a3c", num_workers=2, seed=100, run_dir=str(tmp_path / "r"), quiet=True,
        stop_at_return=495.0, tensorboard=False,
    )  # fmt: skip
    assert result.status == "reached_return"
    assert result.summary["final_eval_return"] >= 475.0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 103))
def test_one_step_actor_critic_learns_cartpole(seed: int, tmp_path: Path) -> None:
    result = limelight.train(
        "CartPole-v1", algo="ac", seed=seed, run_dir=str(tmp_path / "r"), quiet=True, stop_at_return=195.0
    )
    assert result.summary["final_eval_return"] >= 195.0
