"""Agents on the hub: pushed, described, evaluated and loaded, with a server on this machine in its place."""

from __future__ import annotations

import builtins
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import limelight
from helpers.commands import refusal
from helpers.fake_hub import FakeHub, fake_hub
from limelight.cli import main as cli
from limelight.errors import ConfigError
from limelight.runs import hub as ours

huggingface_hub = pytest.importorskip("huggingface_hub")
SETTINGS = {
    "algo": "a2c", "preset": "plain", "num_envs": 2, "num_steps": 4, "total_timesteps": 160, "eval_every": 80,
    "eval_episodes": 1, "final_episodes": 1, "tensorboard": False, "quiet": True,
}  # fmt: skip


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """The stand-in, which the library takes for the hub."""
    with fake_hub() as server:
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        monkeypatch.setattr(ours, "_library", lambda name: _Client(server.address, tmp_path / "cache"))
        yield server


class _Client:
    """huggingface_hub for another address, which it reads from the environment only when it is imported."""

    def __init__(self, address: str, cache: Path) -> None:
        self.address, self.cache = address, cache

    def HfApi(self) -> Any:
        return huggingface_hub.HfApi(endpoint=self.address, token="hf_test")

    def snapshot_download(self, repo: str, **options: Any) -> str:
        path: str = huggingface_hub.snapshot_download(repo, endpoint=self.address, cache_dir=self.cache, **options)
        return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    limelight.train("CartPole-v1", seed=7, run_dir=str(tmp_path / "run"), **SETTINGS)
    return tmp_path / "run"


def push(hub: FakeHub, run: Path, *words: str) -> None:
    assert cli.main(["push", str(run), "player/cartpole", "--episodes", "3", *words]) == 0


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_an_agent_that_was_pushed_is_loaded_and_evaluated(
    hub: FakeHub, run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    push(hub, run)
    assert capsys.readouterr().out.strip() == f"{hub.address}/player/cartpole"
    assert not hub.private["player/cartpole"]
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, None)  # nothing is unpickled
    agent = limelight.load("hf:player/cartpole")
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    np.testing.assert_array_equal(agent.predict(obs)[0], limelight.load(run).predict(obs)[0])
    assert agent.config.run_dir is None
    assert cli.main(["evaluate", "hf:player/cartpole", "--episodes", "3"]) == 0
    shown = capsys.readouterr().out
    assert "best agent of hf:player/cartpole" in shown
    asked = [line for line in hub.requests if "/resolve/" in line]
    assert not any("README.md" in line or ".mp4" in line for line in asked)
    assert limelight.load(f"hf:player/cartpole@{hub.commit('player/cartpole')}")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_the_card_has_command_seed_and_scores(hub: FakeHub, run: Path) -> None:
    (run / "command.txt").write_text(
        "limelight train CartPole-v1 --seed 7 --run-dir /home/me/secret\n", encoding="utf-8"
    )
    push(hub, run, "--private")
    files = hub.repos["player/cartpole"]
    card = files["README.md"].decode()
    header = yaml.safe_load(card.split("---")[1])
    result = header["model-index"][0]["results"][0]
    scores = limelight.evaluate(limelight.load(run), episodes=3)
    assert "limelight train CartPole-v1 --seed 7\n" in card
    assert "secret" not in card
    assert str(run) not in "".join(data.decode("latin-1") for data in files.values())
    assert "| seed of training | 7 |" in card
    assert result["dataset"]["type"] == "CartPole-v1"
    assert float(result["metrics"][0]["value"].split(" ")[0]) == pytest.approx(scores.mean_return, abs=0.06)
    assert header["library_name"] == "limelight"
    assert "](learning_curve.png)" in card
    assert "learning_curve.png" in files
    assert ("replay.mp4" in card) == ("replay.mp4" in files)
    assert hub.private["player/cartpole"]


def test_no_file_from_elsewhere_is_uploaded(hub: FakeHub, run: Path, tmp_path: Path) -> None:
    """A run of a stranger may have a link at the name of its curve."""
    copy = shutil.copytree(run, tmp_path / "copy")
    (tmp_path / "secret").write_text("secret")
    (copy / "plots" / "learning_curve.png").unlink()
    (copy / "plots" / "learning_curve.png").symlink_to(tmp_path / "secret")
    push(hub, copy, "--dry-run", str(tmp_path / "files"))
    assert not (tmp_path / "files" / "learning_curve.png").exists()


def test_a_dry_run_writes_files_and_asks_nobody(hub: FakeHub, run: Path, tmp_path: Path) -> None:
    push(hub, run, "--dry-run", str(tmp_path / "files"))
    assert hub.requests == []
    assert (tmp_path / "files" / "README.md").is_file()
    assert limelight.load(tmp_path / "files")


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf:player/nothing", "no such repository, or it is private"),
        ("hf:player/cartpole@v9", "the repository has no such revision"),
        ("hf:cartpole", "must be hf:user/name"),
        ("hf:../../etc", "must be hf:user/name"),
        ("hf:", "must be hf:user/name"),
    ],
)
def test_a_name_that_is_not_there_is_one_line(
    name: str, words: str, hub: FakeHub, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repos["player/cartpole"] = {}
    assert words in refusal(capsys, "evaluate", name)


def test_a_repository_without_an_agent_is_one_line(hub: FakeHub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.repos["player/other"] = {"model.pkl": b"cos\nsystem\n(S'false'\ntR.", "config.json": b"{}"}
    assert "holds no agent" in refusal(capsys, "evaluate", "hf:player/other")
    assert not any(".pkl" in line for line in hub.requests if "/resolve/" in line)


def test_what_cannot_be_pushed_is_refused(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "repo = cartpole: must be user/name" in refusal(capsys, "push", str(run), "cartpole")
    assert "REPO: missing" in refusal(capsys, "push", str(run))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    refused = refusal(capsys, "push", str(run), "a/b", "--dry-run", str(tmp_path / "full"))
    assert "dry_run = " in refused
    assert "is not empty" in refused


def test_the_package_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "huggingface_hub":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'limelight-rl\[hub\]'"):
        limelight.load("hf:player/cartpole")


@pytest.mark.slow
def test_the_address_of_a_mirror_is_honoured(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_hub() as server:
        for name, value in {
            "HF_ENDPOINT": server.address, "HF_HOME": str(tmp_path / "home"), "HF_TOKEN": "hf_mirror",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        for words in (["push", str(run), "player/mirrored", "--episodes", "2"], ["evaluate", "hf:player/mirrored"]):
            done = subprocess.run([sys.executable, "-m", "limelight", *words], capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
        assert "best/tensors.safetensors" in server.repos["player/mirrored"]
        assert "Bearer hf_mirror" in server.tokens
        assert "best agent of hf:player/mirrored" in done.stdout
