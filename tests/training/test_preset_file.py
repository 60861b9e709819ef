"""Presets as files: written, taken by a run, and refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.commands import refusal
from limelight.envs.source import resolve_env
from limelight.errors import ConfigError
from limelight.settings.rules import validate
from limelight.training.preset_file import PresetFile, read_preset, write_preset
from limelight.training.presets import explain_preset, resolve_config

SETTINGS = {"gamma": 0.9, "hidden_sizes": (32,), "learning_rate": 1e-5, "gae_lambda": 0.8, "total_timesteps": 500}
HEAD = "env_id: CartPole-v1\nalgo: a2c\npreset: plain\n"


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = str(tmp_path / "found.yaml")
    write_preset(PresetFile(path, "CartPole-v1", "a2c", "plain", SETTINGS, {"verdict": "better"}), "two\nlines")
    return path


def test_a_preset_is_read_as_it_was_written(file: str) -> None:
    assert Path(file).read_text().startswith("# two\n# lines\nenv_id:")
    assert read_preset(file) == PresetFile(file, "CartPole-v1", "a2c", "plain", SETTINGS, {"verdict": "better"})


def test_a_run_takes_its_settings_and_what_is_given_goes_over_them(file: str) -> None:
    config = validate(resolve_config("CartPole-v1", "auto", file, {"lr": 0.5}))
    assert (config.algorithm.gamma, config.model.hidden_sizes, config.total_timesteps) == (0.9, (32,), 500)
    assert config.optim.learning_rate == 0.5
    assert (config.algorithm.algo, config.preset) == ("a2c", file)
    # Other returns have no λ
    other = validate(resolve_config("CartPole-v1", "a2c", file, {"returns": "mc"}))
    assert (other.algorithm.returns, other.algorithm.gamma) == ("mc", 0.9)


def test_a_run_of_another_environment_is_told_so(file: str) -> None:
    config = resolve_config("Acrobot-v1", "auto", file, {})
    (line,) = explain_preset(config, resolve_env(config.env))
    assert line.startswith(f"preset {file}: found for CartPole-v1, which is not this one (Acrobot-v1): gamma")
    Path(file).unlink()  # a run that is repeated from its config.yaml does not need it
    assert explain_preset(config, resolve_env(config.env)) == [
        f"preset {file}: settings of a file that is not there any more"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be a mapping with env_id, algo, preset and settings"),
        ("[1, 2", "not readable as YAML"),
        ("\x00", "not readable as YAML"),
        (f"{HEAD}settings: {{seed: {'9' * 6_000}}}", "not readable as YAML"),
        ("? [a, b]\n: 1", "not readable as YAML"),
        ("[" * 1_000, "not readable as YAML (more than 50 levels)"),
        ("env_id: CartPole-v1\nsettings: {}", "needs env_id, algo, preset and settings, as limelight tune writes them"),
        (f"{HEAD}settings: 3", "needs env_id, algo, preset and settings"),
        (f"{HEAD}settings: {{gama: 0.9}}", "gama: no such setting; did you mean gamma?"),
        (f"{HEAD}settings: {{gamma: high}}", "gamma = 'high': must be a number"),
        (f"{HEAD}settings: {{gamma: 2}}", "gamma = 2.0: must be"),
        (f"{HEAD}settings: {{seed: 2}}", "seed = 2: no setting of a preset; leave it out"),
        (HEAD.replace("plain", "other.yaml") + "settings: {}", "preset = other.yaml: must be the name of a preset"),
    ],
)
def test_a_damaged_file_is_refused_with_its_name(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_preset(str(path))
    assert str(caught.value).startswith(f"preset = {path}: ")
    assert message in str(caught.value)


def test_on_the_command_line_refusals_are_one_line(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing.yaml"
    line = refusal(capsys, "train", "CartPole-v1", "--preset", str(missing))
    assert line == f"preset = {missing}: no such file; limelight tune ENV_ID writes one"
    line = refusal(capsys, "train", "CartPole-v1", "--preset", str(tmp_path / ".yaml"))
    assert "no such file" in line
    (tmp_path / "folder.yaml").mkdir()
    assert "cannot be read" in refusal(capsys, "train", "CartPole-v1", "--preset", str(tmp_path / "folder.yaml"))
    line = refusal(capsys, "train", "CartPole-v1", "--algo", "ppo", "--preset", file)
    assert line == f"algo = ppo: the preset {file} was found for a2c; leave one of the two out"
    assert "or the path of a .yaml file" in refusal(capsys, "train", "CartPole-v1", "--preset", "found.yam")
