"""The help of the subcommands: settings by section with the defaults of the run, as wide as the terminal."""

from __future__ import annotations

import re
from typing import Any

import pytest

from limelight.cli import main as cli
from limelight.cli.arguments import SYNTAXES
from limelight.cli.flags import Syntax
from limelight.cli.help import field_docs, help_text, unused_by
from limelight.settings.io import all_settings, sections_of, settings_of, with_settings
from limelight.settings.schema import TrainConfig


def text(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Standard output of a command that must succeed."""
    assert cli.main(argv) == 0
    return capsys.readouterr().out


def titles(out: str) -> set[str]:
    """Names of the sections that a help shows."""
    return set(re.findall(r"^([a-z_]+): ", out, re.MULTILINE)) - {"usage"}


@pytest.fixture(autouse=True)
def _wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")


@pytest.mark.parametrize("name", list(cli.COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert text(capsys, name, "--help").startswith(f"usage: limelight {name}")


def test_train_help_all_shows_every_setting_by_its_plain_name_with_the_values_of_the_algorithm(
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = text(capsys, "train", "--algo", "ac", "--help-all")
    for name, setting in all_settings().items():
        prefix = "--[no-]" if setting.annotation is bool else "--"
        assert f"\n  {prefix}{name.replace('_', '-')}" in out
    words = " ".join(out.split())
    assert "--num-steps INT Environment steps per environment and update, T. (default: 1, range [1, 65536])" in words
    assert "Discount factor γ." in words
    sections = {path.rpartition(".")[2] for path in sections_of(TrainConfig)} - {""}
    assert titles(out) == sections
    assert "Not shown" not in out


@pytest.mark.parametrize(
    ("argv", "hidden"),
    [
        (["Pendulum-v1"], {"atari", "ray", "shared_memory"}),
        (["CartPole-v1", "--algo", "a3c"], {"atari", "ray"}),
        (["CartPole-v1", "--runner", "ray"], {"atari", "shared_memory"}),
        (["pong", "--algo", "a3c"], {"ray"}),
    ],
)
def test_train_help_shows_the_sections_that_the_run_uses(
    argv: list[str], hidden: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    if "pong" in argv:
        pytest.importorskip("ale_py")
    out = text(capsys, "train", *argv, "--help")
    assert {"atari", "ray", "shared_memory"} - titles(out) == hidden
    words = " ".join(out.split())
    named = re.search(r"Not shown, as this run does not use them: (.*?)\. limelight train --help-all", words)
    assert named is not None
    assert set(named[1].split(", ")) & {"atari", "ray", "shared_memory"} == hidden


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=lambda syntax: syntax.prog)
def test_help_is_as_wide_as_the_terminal_and_in_plain_words(
    syntax: Syntax[Any], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = help_text(syntax, TrainConfig())
    assert max(map(len, out.splitlines())) <= width
    assert "\u00a0" not in out
    assert not re.search(r"range( \S+,)?$", out, re.MULTILINE), "a range on two lines"
    for odd in ("``", "{", "None", "(default: )", "False", "True"):
        assert odd not in out, odd


def test_a_short_terminal_shows_the_settings_of_one_run_on_a_few_pages(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert len(text(capsys, "train", "Pendulum-v1", "--help").splitlines()) < 300
    monkeypatch.setenv("COLUMNS", "140")
    assert len(text(capsys, "train", "Pendulum-v1", "--help").splitlines()) < 190


def test_defaults_are_those_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    words = " ".join(text(capsys, "train", "Pendulum-v1", "--gamma", "0.5", "-h").split())
    assert "--gamma FLOAT Discount factor γ. (default: 0.5, range [0, 1])" in words
    assert "--preset TEXT Preset" in words
    assert "(default: pendulum)" in words
    assert "--max-grad-norm FLOAT|none L2 norm" in words
    assert "--hidden-sizes INT ... Widths of the hidden layers. (default: 64 64)" in words


def test_help_beside_a_mistake_shows_the_general_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--help", "--gamma", "x"]) == 0
    captured = capsys.readouterr()
    assert "--gamma FLOAT" in captured.out
    assert "gamma = x: must be a number; these are the general defaults" in captured.err


def test_usage_names_positional_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    usages = [text(capsys, name, "-h").splitlines()[0].removeprefix("usage: limelight ") for name in cli.COMMANDS]
    assert usages == [
        "train [ENV_ID] [--NAME VALUE ...]",
        "tune [ENV_ID] [--NAME VALUE ...]",
        "evaluate RUN_DIR [--NAME VALUE ...]",
        "export RUN_DIR [--NAME VALUE ...]",
        "report RUN_DIR... [--NAME VALUE ...]",
        "compare RUN_DIR... [--NAME VALUE ...]",
        "explain RUN_DIR",
        "replay RUN_DIR [--NAME VALUE ...]",
        "list envs|algos|presets|runs [TEXT] [--NAME VALUE ...]",
        "check ENV_ID [--NAME VALUE ...]",
        "push RUN_DIR REPO [--NAME VALUE ...]",
        "clean RUN_DIR... [--NAME VALUE ...]",
        "doctor [--NAME VALUE ...]",
        "completion bash|zsh|fish",
    ]


def test_evaluate_and_check_show_how_to_change_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("evaluate", "check"):
        out = text(capsys, name, "--help")
        assert "--env-kwargs KEY VALUE ..." in out
        assert "--max-episode-steps INT" in out


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=lambda syntax: syntax.prog)
def test_every_argument_is_documented(syntax: Syntax[Any]) -> None:
    assert settings_of(syntax.kind).keys() <= field_docs(syntax.kind).keys()
    assert syntax.kind.__doc__


def test_sections_are_hidden_by_what_the_configuration_says() -> None:
    assert unused_by(TrainConfig())[:3] == ["env.atari", "workers.ray", "workers.shared_memory"]
    config = with_settings(TrainConfig(), {"runner": "ray"})
    assert unused_by(config)[:2] == ["env.atari", "workers.shared_memory"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"core": "gru"}, {"core_size"}),
        ({"critic": "target"}, {"tau", "target_update_every", "target_update_at"}),
        ({"num_epochs": 2}, {"clip_ratio", "value_clip", "target_kl"}),
        ({"optimizer": "adam"}, {"adam_beta1", "adam_beta2"}),
        ({"value_loss": "huber"}, {"huber_delta"}),
        ({"returns": "n_step"}, {"return_steps"}),
        ({"normalize_advantages": "running"}, {"running_decay"}),
        ({"stop_at_return": 3.0}, {"stop_patience", "confirm_episodes"}),
        ({"runner": "ray"}, {"num_workers", "on_worker_error", "max_worker_restarts"}),
    ],
)
def test_settings_are_hidden_until_what_uses_them_is_chosen(given: dict[str, Any], shown: set[str]) -> None:
    before = {*unused_by(with_settings(TrainConfig(), {"num_workers": 2}))}
    after = {*unused_by(with_settings(TrainConfig(), {"num_workers": 2, **given}))}
    assert shown <= before
    assert not shown & after


def test_defaults_by_the_structure_of_the_environment_are_marked(capsys: pytest.CaptureFixture[str]) -> None:
    words = " ".join(text(capsys, "train", "limelight.envs.toy:Ring", "--num-envs", "3", "--help").split())
    assert "(default: separate by rule)" in words
    assert "(default: 3, range [1, 65536])" in words
    assert "By rule: chosen by the structure of this environment" in words
