"""Runs that begin with the weights of an agent: the layers that fit, and their normalisation."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import limelight
from helpers.settings import one_line
from limelight.errors import CheckpointError, ConfigError
from limelight.training.init_agent import names_that_fit

QUIET: dict[str, Any] = {
    "quiet": True, "tensorboard": False, "eval_every": 0, "final_episodes": 0, "num_envs": 2, "num_steps": 4,
    "preset": "plain", "learning_rate": 1e-12,
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def _no_reports() -> Iterator[None]:
    """Drawing takes longer than these runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module("limelight.training.run"), "draw_report", lambda run_dir: None)
        yield


@pytest.fixture(scope="module")
def donor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("donor") / "run"
    settings = {**QUIET, "learning_rate": 1e-2, "critic": "separate", "hidden_sizes": (16, 16)}
    limelight.train("Acrobot-v1", total_timesteps=300, run_dir=str(folder), seed=7, normalize_obs=True, **settings)
    return folder


def begin(donor: Path, folder: Path, env_id: str = "Acrobot-v1", **settings: Any) -> tuple[Any, list[str]]:
    """Train a few steps with almost no step size; return the agent and the messages."""
    lines: list[str] = []

    class Messages:
        def message(self, text: str) -> None:
            lines.extend(text.splitlines())

        def log(self, *_: Any) -> None: ...
        def episodes(self, *_: Any) -> None: ...
        def close(self) -> None: ...

    own = {"hidden_sizes": (16, 16), "normalize_obs": True, **QUIET, **settings}
    result = limelight.train(
        env_id, init_agent=donor, total_timesteps=40, run_dir=str(folder), loggers=[Messages()], **own
    )
    return limelight.load(result.run_dir, "last"), lines


def parameters(agent: limelight.Agent) -> dict[str, Any]:
    return {name: p.detach().numpy() for name, p in agent.model.named_parameters()}


@pytest.mark.parametrize("algo", ["a2c", pytest.param("a3c", marks=pytest.mark.slow)])
def test_all_of_an_equal_network_and_its_normalisation_are_taken_over(algo: str, donor: Path, tmp_path: Path) -> None:
    workers = {"num_workers": 1} if algo == "a3c" else {}
    agent, lines = begin(donor, tmp_path / "r", algo=algo, critic="separate", **workers)
    before = limelight.load(donor)
    for name, values in parameters(before).items():
        np.testing.assert_allclose(parameters(agent)[name], values, atol=1e-5, err_msg=name)
    assert agent.normalizer is not None
    assert before.normalizer is not None
    assert agent.normalizer.get_state()["count"] > before.normalizer.get_state()["count"]
    assert any(line.startswith("12 of 12 parameters are those of the agent") for line in lines)
    assert "  statistics of observations: taken over" in lines


def test_a_table_says_which_layers_are_new(donor: Path, tmp_path: Path) -> None:
    agent, lines = begin(donor, tmp_path / "r", critic="target", hidden_sizes=(16, 8), normalize_obs=False)
    rows = {line.split()[0]: line.split()[1:] for line in lines if "." in line.split()[0]}
    assert rows["encoder.layers.0.weight"] == ["16×6", "16×6", "taken", "over"]
    assert rows["encoder.layers.0.bias"] == ["16", "16", "taken", "over"]
    assert rows["encoder.layers.2.weight"] == ["8×16", "16×16", "new"]
    assert rows["critic.value_head.linear.bias"] == ["1", "1", "new"], "a bias goes with its weights"
    assert any("this run does not normalise; set normalize_obs true" in line for line in lines)
    before = parameters(limelight.load(donor))["encoder.layers.0.weight"]
    np.testing.assert_allclose(parameters(agent)["encoder.layers.0.weight"], before, atol=1e-5)


def test_nothing_that_fits_is_refused_before_a_folder_is_made(donor: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        begin(donor, tmp_path / "r", "Pendulum-v1", hidden_sizes=(32, 8))
    assert "no layer of it fits this run: its network has critic separate, hidden_sizes 16 16" in one_line(error)
    assert not (tmp_path / "r").exists()
    with pytest.raises(CheckpointError, match="no such folder"):
        begin(tmp_path / "nothing", tmp_path / "r")


def test_the_parameters_of_a_layer_are_taken_over_together() -> None:
    here = {"a.weight": (2, 3), "a.bias": (2,), "b.weight": (1, 2), "b.bias": (1,), "log_std": (2,)}
    assert names_that_fit(here, {**here, "b.weight": (1, 5)}) == ["a.weight", "a.bias", "log_std"]
