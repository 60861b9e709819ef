"""Completion in shells: what follows a word of the command line, asked of the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.commands import refusal
from limelight.cli import main as cli


def script(capsys: pytest.CaptureFixture[str], shell: str) -> str:
    assert cli.main(["completion", shell]) == 0
    return capsys.readouterr().out


def in_bash(script: str, *words: str) -> list[str]:
    """Ask bash for the completions of the last of ``words``."""
    ask = '\nCOMP_WORDS=("$@")\nCOMP_CWORD=$(($# - 1))\n_limelight\nprintf "%s\\n" "${COMPREPLY[@]}"'
    asked = ["bash", "-c", script + ask, "bash", "limelight", *words]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("cl",), ["clean"]),
        (("train", "Acro"), ["Acrobot-v1"]),
        (("train", "CartPole-v1", "--critic-o"), ["--critic-output"]),
        (("train", "CartPole-v1", "--critic", "ta"), ["target"]),
        (("train", "--preset", "classic-"), ["classic-a3c"]),
        (("train", "--total-timesteps", "1"), []),
        (("list", "r"), ["runs"]),
        (("evaluate", "runs/a", "--which", ""), ["best", "last"]),
    ],
)
def test_bash_completes(capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: list[str]) -> None:
    assert in_bash(script(capsys, "bash"), *words) == expected


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_folders_of_runs(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    for words in (("evaluate", "ru"), ("train", "--resume", "ru"), ("report", "runs", "ru")):
        assert in_bash(script(capsys, "bash"), *words) == ["runs"]


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_zsh_reads_its_script(capsys: pytest.CaptureFixture[str]) -> None:
    setup = "autoload -U compinit && compinit -u -D\n"
    asked = ["zsh", "-f", "-c", setup + script(capsys, "zsh") + '\nprint "$_comps[limelight]"']
    assert "_limelight" in subprocess.run(asked, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("limelight cl", ["clean"]),
        ("limelight train Acro", ["Acrobot-v1"]),
        ("limelight train --critic ta", ["target"]),
        ("limelight train --critic-o", ["--critic-output"]),
    ],
)
def test_fish_completes(capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str, expected: list[str]) -> None:
    path = tmp_path / "limelight.fish"
    path.write_text(script(capsys, "fish"), encoding="utf-8")
    asked = ["fish", "-N", "-c", f"source {path}; complete -C '{line}'"]
    found = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [row.partition("\t")[0] for row in found] == expected


def test_another_shell_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "shell = csh: must be bash | zsh | fish" in refusal(capsys, "completion", "csh")
