"""``limelight evaluate`` with ``--full`` and ``--inspect``, and what does not go with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import limelight
from limelight.cli import main as cli


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    words = "train Pendulum-v1 --algo a2c --total-timesteps 300 --eval-every 0 --final-episodes 0 --quiet"
    assert cli.main([*words.split(), "--run-dir", str(folder)]) == 0
    return folder


def test_full_is_a_table_or_an_object_of_json(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(run_dir), "--full", "--episodes", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Pendulum-v1 · last agent of ")
    assert lines[2].split() == ["return", "greedy", "sampled"]
    assert max(map(len, lines[1:])) <= 80
    assert cli.main(["evaluate", str(run_dir), "--full", "--episodes", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["greedy"]["returns"]) == len(found["sampled"]["as_trained"]["returns"]) == 2
    assert set(found["greedy_minus_sampled"]) == {"mean", "interval"}


def test_inspect_prints_two_episodes_and_writes_their_steps(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(run_dir), "--inspect", "table", "--episodes", "3", "--stochastic"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "\nworst episode: return " in out
    assert "\nmedian episode: return " in out
    files = sorted(path.name for path in (run_dir / "episodes").iterdir())
    assert files == ["best-sampled-seed0-median.csv", "best-sampled-seed0-worst.csv"]
    assert cli.main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["inspected"]["worst"]["steps"]) == 200
    assert len(found["files"]) == 2


def test_files_of_a_saved_agent_go_to_runs_and_its_folder_stays_as_it_was(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    limelight.load(run_dir).save("agents/swing")
    before = sorted(Path("agents/swing").iterdir())
    assert cli.main(["evaluate", "agents/swing", "--video", "--max-episode-steps", "4"]) == 0
    assert "video: runs/evaluations/swing/videos/best-evaluate-seed0.mp4" in capsys.readouterr().out
    assert cli.main(["evaluate", "agents/swing", "--inspect", "table", "--episodes", "2"]) == 0
    written = sorted(path.as_posix() for path in Path("runs").rglob("*.*"))
    assert [path.removeprefix("runs/evaluations/swing/") for path in written] == [
        "episodes/best-greedy-seed0-median.csv",
        "episodes/best-greedy-seed0-worst.csv",
        "videos/best-evaluate-seed0.json",
        "videos/best-evaluate-seed0.mp4",
    ]
    assert sorted(Path("agents/swing").iterdir()) == before


def test_files_of_an_agent_within_a_run_go_to_the_run(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder of a checkpoint is removed when newer ones come, with all that is in it."""
    (checkpoint, *_) = (run_dir / "checkpoints").iterdir()
    before = sorted(checkpoint.iterdir())
    assert cli.main(["evaluate", str(checkpoint), "--inspect", "table", "--episodes", "2", "--seed", "5"]) == 0
    assert (run_dir / "episodes" / "best-greedy-seed5-worst.csv").is_file()
    assert sorted(checkpoint.iterdir()) == before


def test_numbers_of_the_environment_are_in_every_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "run")
    words = "train helpers.informing_envs:Informs --algo a2c --total-timesteps 60 --eval-every 0 --final-episodes 0"
    assert cli.main([*words.split(), "--quiet", "--info-keys", "rare", "sum:cost", "--run-dir", folder]) == 0
    capsys.readouterr()
    argv = ["evaluate", folder, "--episodes", "6"]
    assert cli.main([*argv, "--full", "--info-keys", "distance"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[1:])) <= 80
    rows = {line[:34].strip(): line[34:].split() for line in lines[lines.index("numbers of the environment") + 1 :]}
    assert rows["success rate"][1::2] == ["%", "%"]
    assert len(rows["distance"]) == 2
    assert rows["sum:cost"] == ["3", "3"], "0.5 + 1 + 1.5"
    assert rows["rare"] == ["0", "0"]
    for more in (["--full", "--inspect", "table"], ["--inspect", "table"], []):
        assert cli.main([*argv, *more]) == 0
        assert "sum:cost" in capsys.readouterr().out, more
        assert cli.main([*argv, *more, "--json"]) == 0
        assert '"sum:cost": [3.0' in capsys.readouterr().out, more


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--full --video", "video = true: does not go with --full"),
        ("--inspect table --episode-lines", "episode_lines = true: does not go with --inspect"),
        ("--full --stochastic", "stochastic = true: --full has both already"),
        ("--inspect tables", "inspect = tables: must be table | video"),
        ("--full --episodes 0", "episodes = 0: must be ≥ 1"),
    ],
)
def test_what_does_not_go_together_is_refused(
    run_dir: Path, words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(run_dir), *words.split()]) == 2
    assert message in capsys.readouterr().err
