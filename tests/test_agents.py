"""The agents of agents/ load, score what their table says, and stay small."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import limelight

ROOT = Path(__file__).parents[1]
SCRIPT: dict[str, Any] = runpy.run_path(str(ROOT / "agents" / "make_agents.py"))
SEED: int = SCRIPT["SEED"]
FOLDERS = sorted(path.parent for path in (ROOT / "agents").glob("*/state.json"))
SMALL = {"cartpole": 4, "cartpole-memory": 4, "acrobot": 20, "pendulum": 20}
"""Agents whose environments are always there, and the episodes that they are judged by here."""
LARGE = [folder for folder in FOLDERS if folder.name not in SMALL]
FILES = {"command.txt", "curve.png", "state.json", "summary.json", "tensors.safetensors"}
MEGABYTE = 1_000_000


def summary_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    return found


def require_score(folder: Path, episodes: int) -> None:
    """The mean of a few episodes is within three standard errors of the mean in the table."""
    score = summary_of(folder)["evaluation"]
    played = limelight.evaluate(limelight.load(folder), episodes=episodes, seed=SEED + 500)
    margin = 3 * score["std"] / np.sqrt(episodes) + 0.02 * abs(score["mean"])
    assert played.mean_return >= score["mean"] - margin


def test_the_small_agents_are_there() -> None:
    assert {*SMALL} <= {folder.name for folder in FOLDERS}
    assert {folder.name for folder in FOLDERS} <= {*SCRIPT["RECIPES"]}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_agent_loads_and_acts(folder: Path) -> None:
    agent = limelight.load(folder)
    agent.observation_space.seed(0)
    action, _ = agent.predict(agent.observation_space.sample())
    assert agent.action_space.contains(action)
    assert summary_of(folder)["env_id"] == agent.config.env.env_id


@pytest.mark.parametrize("name", SMALL)
def test_a_small_agent_scores_what_the_table_says(name: str) -> None:
    require_score(ROOT / "agents" / name, SMALL[name])


@pytest.mark.slow
@pytest.mark.parametrize("folder", LARGE, ids=lambda folder: folder.name)
def test_a_large_agent_scores_what_the_table_says(folder: Path) -> None:
    module = {"box2d": "Box2D", "mujoco": "mujoco", "atari": "ale_py"}[summary_of(folder)["extra"]]
    pytest.importorskip(module)
    require_score(folder, 2 if module == "ale_py" else 8)


def test_the_folders_hold_what_is_needed_and_are_small() -> None:
    for folder in FOLDERS:
        assert {path.name for path in folder.iterdir()} == FILES, folder.name
        assert (folder / "curve.png").stat().st_size <= 15_000, folder.name
    assert sum(path.stat().st_size for folder in FOLDERS for path in folder.iterdir()) <= 6 * MEGABYTE


def test_the_table_is_what_the_script_gives() -> None:
    text = (ROOT / "agents" / "README.md").read_text(encoding="utf-8")
    assert SCRIPT["TABLE"].search(text)[0] == SCRIPT["table"](), "run python agents/make_agents.py"


def test_the_checksums_survive_a_checkout() -> None:
    """They are of bytes, so git must not convert the line ends of a saved agent."""
    assert "/agents/** -text" in (ROOT / ".gitattributes").read_text(encoding="utf-8").splitlines()
