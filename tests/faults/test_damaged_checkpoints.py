"""Checkpoints that are damaged, of another version, or of another run: one line that names the file and the reason."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import limelight
from helpers.commands import refusal
from helpers.manual_workers import draw_no_report
from helpers.saved_runs import add_newer, checkpoint_of, copy_of_run, rewrite
from limelight.cli import main as cli
from limelight.errors import CheckpointError, ConfigError
from limelight.runs.checkpoint import checkpoints
from limelight.runs.origin import read_origin
from limelight.settings.io import load_yaml

QUICK: dict[str, Any] = {"quiet": True, "total_timesteps": 220, "final_episodes": 0, "eval_every": 0, "report_every": 0}


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def newer(path: Path) -> None:
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "format": 3}))


DAMAGE = [
    ("state.json", truncate, "state.json: damaged"),
    ("tensors.safetensors", truncate, "tensors.safetensors: damaged"),
    ("state.json", flip, "state.json: damaged"),
    ("tensors.safetensors", flip, "tensors.safetensors: damaged"),
    ("state.json", newer, "state.json: format = 3: this version of limelight reads 2; a newer version"),
    ("state.json", Path.unlink, "state.json: no such file"),
]


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE)
def test_the_file_and_the_reason_are_named_and_the_one_before_is_offered(
    name: str, damage: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of_run(tmp_path)
    damage(add_newer(run) / name)
    line = refusal(capsys, "train", "--resume", str(run), "--quiet", "--total-timesteps", "500")
    assert str(run / "checkpoints" / "step_000000000400" / name) in line
    assert message in line
    assert line.endswith("with fallback it goes on from step_000000000202, which is intact")
    for call in (lambda: limelight.load(run, "last"), lambda: limelight.resume(run, quiet=True)):
        with pytest.raises(CheckpointError, match="step_000000000400"):
            call()
    with pytest.raises(CheckpointError, match=rf"give {run}:202, which is intact"):
        read_origin(str(run))
    assert limelight.load(run, "last", fallback=True).config.env.env_id == "CartPole-v1"


def test_the_one_before_is_used_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)
    run = copy_of_run(tmp_path)
    truncate(add_newer(run) / "state.json")
    assert limelight.resume(run, fallback=True, **QUICK).status == "completed"
    assert [int(folder.name[5:]) for folder in checkpoints(run)] == [220]


def test_where_none_is_intact_the_newest_is_named(tmp_path: Path) -> None:
    run = copy_of_run(tmp_path)
    truncate(checkpoint_of(run) / "state.json")
    for fallback in (True, False):
        with pytest.raises(CheckpointError, match=r"step_000000000202/state\.json: damaged"):
            limelight.load(run, "last", fallback=fallback)


@pytest.mark.parametrize("argv", [["CartPole-v1", "--fallback"], ["--from", "runs/x", "--fallback"]])
def test_fallback_without_resume_is_one_line(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "fallback: is for one run that is resumed" in refusal(capsys, "train", *argv)


# --------------------------------------------------------------------------- of another run


def other_env(content: dict[str, Any]) -> None:
    content["state"]["config"]["env"]["env_id"] = "Acrobot-v1"


def other_space(content: dict[str, Any]) -> None:
    content["state"]["action_space"]["n"] = 3


def other_network(content: dict[str, Any]) -> None:
    content["state"]["config"]["model"]["hidden_sizes"] = [5]


@pytest.mark.parametrize(
    ("change", "words"),
    [(other_env, "is of Acrobot-v1, the run of CartPole-v1"), (other_space, "has another action_space")],
)
def test_a_checkpoint_of_another_environment_is_refused(change: Any, words: str, tmp_path: Path) -> None:
    run = copy_of_run(tmp_path)
    rewrite(checkpoint_of(run), change)
    with pytest.raises(CheckpointError, match=words):
        limelight.resume(run, **QUICK)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    run = copy_of_run(tmp_path)
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("hidden_sizes:\n  - 4", "hidden_sizes:\n  - 5"))
    with pytest.raises(CheckpointError, match=r"parameters, the network \d+; it is of another run"):
        limelight.resume(run, **QUICK)
    rewrite(run / "best", other_network)
    with pytest.raises(CheckpointError, match=r"best: .*parameters, its network \d+"):
        limelight.load(run)


@pytest.mark.parametrize("key", ["params", "config", "training", "observation_space"])
def test_a_checkpoint_without_a_part_is_refused(key: str, tmp_path: Path) -> None:
    run = copy_of_run(tmp_path)
    rewrite(checkpoint_of(run), lambda content: content["state"].pop(key) and None)
    with pytest.raises(CheckpointError, match=key):
        limelight.resume(run, **QUICK)


@pytest.mark.parametrize("text", ["gamma: abc", "[", "env: {env_id: Acrobot-v1, max_episode_steps: 3}", None])
def test_an_evaluation_takes_no_setting_of_config_yaml(
    text: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those of the checkpoint have a digest; the commands that read config.yaml name it."""
    run = copy_of_run(tmp_path)
    before = limelight.evaluate(limelight.load(run), episodes=3)
    if text is None:
        (run / "config.yaml").unlink()
    else:
        (run / "config.yaml").write_text(text)
    assert limelight.evaluate(limelight.load(run), episodes=3) == before
    assert max(before.lengths) > 3
    assert cli.main(["evaluate", str(run), "--episodes", "3"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith("CartPole-v1 · best agent")
    if text is None or "env" not in text:
        assert str(run) in refusal(capsys, "report", str(run))


# --------------------------------------------------------------------------- formats


def test_the_present_format_is_read_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files were written by the first version of format 2; they are never made anew."""
    draw_no_report(monkeypatch)
    run = copy_of_run(tmp_path, 2)
    assert limelight.load(run).predict([0.0, 0.0, 0.0, 0.0])[0] in (0, 1)
    assert limelight.resume(run, **QUICK).summary["total_timesteps"] >= 220


def test_an_older_format_is_refused_with_the_reason(tmp_path: Path) -> None:
    run = copy_of_run(tmp_path, 1)
    for call in (lambda: limelight.load(run), lambda: limelight.resume(run, **QUICK)):
        with pytest.raises(CheckpointError, match=r"state\.json: format = 1: .* reads 2; no release has saved it"):
            call()


def test_settings_of_an_older_version_take_the_defaults_for_new_ones(tmp_path: Path) -> None:
    run = copy_of_run(tmp_path)
    lines = [line for line in (run / "config.yaml").read_text().splitlines() if "on_nonfinite" not in line]
    (run / "config.yaml").write_text("\n".join(lines))
    assert load_yaml(run / "config.yaml").optim.on_nonfinite == "auto"


def test_a_setting_that_is_no_more_is_named(tmp_path: Path) -> None:
    run = copy_of_run(tmp_path)
    with (run / "config.yaml").open("a") as file:
        file.write("momentum: 0.9\n")
    with pytest.raises(ConfigError, match=r"config\.yaml: momentum: no such setting"):
        load_yaml(run / "config.yaml")


def test_a_copied_run_is_whole(tmp_path: Path) -> None:
    run = copy_of_run(tmp_path)
    moved = shutil.move(run, tmp_path / "moved")
    assert limelight.load(moved) is not None


@pytest.mark.parametrize(("name", "damage", "message"), DAMAGE)
def test_a_damaged_best_agent_is_refused_before_anything_is_trained(
    name: str, damage: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of_run(tmp_path)
    damage(run / "best" / name)
    line = refusal(capsys, "train", "--resume", str(run), "--quiet", "--total-timesteps", "500")
    assert str(run / "best" / name) in line
    assert message in line
    assert line.endswith("with fallback the next evaluation saves a new best agent")


def test_with_fallback_a_run_goes_on_without_its_damaged_best_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_no_report(monkeypatch)
    run = copy_of_run(tmp_path)
    flip(run / "best" / "tensors.safetensors")
    words = ["--total-timesteps", "500", "--eval-every", "100", "--eval-episodes", "1", "--final-episodes", "1"]
    assert cli.main(["train", "--resume", str(run), "--fallback", *words]) == 0
    assert "tensors.safetensors: damaged" in capsys.readouterr().err
    assert limelight.load(run).config.total_timesteps == 500


@pytest.mark.parametrize("name", ["metrics.jsonl", "monitor.csv", "lock", "summary.json", "config.yaml", "crash.txt"])
def test_a_folder_in_the_place_of_a_file_is_one_line_and_hides_no_other_run(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, _ = copy_of_run(tmp_path), copy_of_run(tmp_path / "other")
    (run / name).unlink(missing_ok=True)
    (run / name).mkdir()
    (run / name / "x").touch()
    for words in (["train", "--resume", str(run)], ["report", str(run)], ["explain", str(run)], ["clean", str(run)]):
        cli.main(words)  # a traceback would be raised
        assert len(capsys.readouterr().err.splitlines()) <= 8
    assert cli.main(["list", "runs", str(tmp_path)]) == 0
    assert "other/run" in capsys.readouterr().out
