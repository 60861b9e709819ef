"""``limelight list``: environments, algorithms and presets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from helpers.commands import refusal
from helpers.settings import train_config
from limelight.cli import catalog
from limelight.cli import main as cli
from limelight.settings.io import save_yaml


def test_list_envs_by_family_with_what_prevents_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "envs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "classic_control" in lines
    assert "  CartPole-v1" in lines
    assert not any("CartPole-v0" in line and "phys2d" not in line for line in lines), "only the newest version"
    rows = {line.split()[0]: line for line in lines}
    assert rows["Pendulum-v1"] == "  Pendulum-v1"
    assert rows["Blackjack-v1"] == "  Blackjack-v1"


def test_list_envs_filters_by_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "envs", "acrob"]) == 0
    assert capsys.readouterr().out.splitlines() == ["classic_control", "  Acrobot-v1"]


def test_an_environment_that_fails_is_listed_under_its_package_with_its_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    monkeypatch.setattr(gym, "registry", gym.envs.registration.registry)
    gym.register("LimelightTest/Explodes-v0", entry_point=explode)
    assert cli.main(["list", "envs", "explodes"]) == 0
    family, row = capsys.readouterr().out.splitlines()
    assert family == __name__.partition(".")[0]
    assert row.split(maxsplit=1) == ["LimelightTest/Explodes-v0", "bang bang"]


def test_environments_that_register_on_import_are_listed_and_leave_nothing_behind(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("minigrid")
    monkeypatch.chdir(tmp_path)
    for family in ("MiniGrid", "BabyAI"):
        assert cli.main(["list", "envs", family]) == 0
        first, *rows = capsys.readouterr().out.splitlines()
        assert first == "minigrid"
        assert len(rows) > 30
        assert all(row.startswith(f"  {family}-") for row in rows)
    assert list(tmp_path.iterdir()) == []


def test_an_environment_may_write_a_log_and_print_while_it_is_listed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(gym.envs.registration, "registry", dict(gym.registry))
    monkeypatch.setattr(gym, "registry", gym.envs.registration.registry)
    gym.register("LimelightTest/Logs-v0", entry_point=log_and_print)
    assert cli.main(["list", "envs", "LimelightTest/Logs"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == ["  LimelightTest/Logs-v0"]
    assert list(tmp_path.iterdir()) == []


def log_and_print() -> Any:
    print("a warning")
    Path("LOG.TXT").write_text("a warning", encoding="utf-8")
    return gym.make("CartPole-v1")


def explode() -> Any:
    raise RuntimeError("bang\nbang")


def test_list_algos_and_presets(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "algos"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["ac", "qac", "a2c", "a3c", "ppo", "stream-ac"]
    assert cli.main(["list", "presets"]) == 0
    assert capsys.readouterr().err == ""
    assert refusal(capsys, "list", "algos", "dqn").startswith("dqn: not in any name")
    assert [line.split()[0] for line in catalog.algorithms("2")] == ["a2c"]
    assert "asynchronous" in catalog.algorithms("a3c")[0]


def test_runs_are_listed_as_a_table_and_as_json(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "runs: no such folder" in refusal(capsys, "list", "runs")
    save_yaml(train_config(env_id="Acrobot-v1"), tmp_path / "config.yaml")
    assert cli.main(["list", "runs", "."]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[-1] == "run"
    assert row.split()[:4] == ["Acrobot-v1", "a2c", "0", "broken"]
    assert cli.main(["list", "runs", str(tmp_path), "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["path"], entry["status"], entry["best_return"]) == (str(tmp_path), "broken_off", None)
    assert "json: only runs" in refusal(capsys, "list", "algos", "--json")
