"""A game that is seen, in both precisions, with and without standardised frames: learnt to the last ball."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import limelight
from limelight.envs.toy import Catch


def catch() -> Catch:
    return Catch(cells=4, scale=9)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"encoder": "a3c", "precision": "float32"}, marks=pytest.mark.slow),
        pytest.param({"encoder": "a3c", "precision": "bfloat16"}, marks=pytest.mark.slow),
        pytest.param(
            {"encoder": "universe", "precision": "float32", "normalize_obs": True, "core": "lstm", "core_size": 32},
            marks=pytest.mark.slow,
        ),
    ],
    ids=lambda s: "-".join(map(str, s.values())),
)
def test_a2c_learns_to_catch(settings: dict[str, Any], tmp_path: Path) -> None:
    result = limelight.train(
        catch, preset="plain", seed=100, run_dir=str(tmp_path / "r"), quiet=True, tensorboard=False, eval_every=0,
        final_episodes=60, total_timesteps=12_000, num_envs=16, num_steps=5, gamma=0.95, optimizer="adam",
        learning_rate=2e-3, **settings,
    )  # fmt: skip
    assert result.summary["final_eval_return"] >= 0.9
    assert result.agent.config.model.precision == settings["precision"]
