"""Spellings and values of a command line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from helpers.commands import refusal
from limelight.cli.arguments import EVALUATE, TRAIN, train_request
from limelight.cli.flags import parse
from limelight.errors import ConfigError
from limelight.settings.io import ALIASES, all_settings, get_setting, save_yaml, with_settings
from limelight.settings.schema import SharedMemoryConfig, TrainConfig
from limelight.training.presets import resolve_config


def request(*argv: str) -> tuple[TrainConfig, list[str]]:
    """The config of a command line, and the notices about it."""
    notices: list[str] = []
    return train_request(list(argv), notices.append).config, notices


@pytest.mark.parametrize(
    "words",
    [
        ["--num-envs", "3"],
        ["--num_envs", "3"],
        ["--num-envs=3"],
        ["--env.num-envs", "3"],
        ["--env.num_envs=3"],
        ["--num-envs=9", "--env.num-envs", "3"],
        ["--num-envs", "9", "--num-envs", "3"],
    ],
)
def test_all_spellings_of_a_setting_are_equal(words: list[str]) -> None:
    config, notices = request("CartPole-v1", *words)
    assert config == resolve_config("CartPole-v1", "a2c", "auto", {"num_envs": 3})
    assert notices == []


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--gamma", "1"], "gamma", 1.0),
        (["--total-timesteps", "1e6"], "total_timesteps", 1_000_000),
        (["--total-timesteps", "200_000"], "total_timesteps", 200_000),
        (["--stop-at-return", "-1e2"], "stop_at_return", -100.0),
        (["--stop-at-return", "-85"], "stop_at_return", -85.0),
        (["--max-grad-norm", "none"], "max_grad_norm", None),
        (["--optim.max-grad-norm=None"], "max_grad_norm", None),
        (["--env-module", "none"], "env_module", None),
        (["--preset", "none"], "preset", "none"),
        (["--hidden-sizes", "32", "16"], "hidden_sizes", (32, 16)),
        (["--normalize-obs"], "normalize_obs", True),
        (["--no-normalize-obs"], "normalize_obs", False),
        (["--env.normalize-obs", "true"], "normalize_obs", True),
        (["--no-orthogonal-init"], "orthogonal_init", False),
        (["--orthogonal-init=false"], "orthogonal_init", False),
        (
            ["--env-kwargs", "a", "true", "b", "2", "c", "0.5", "d", "x"],
            "env_kwargs",
            {"a": True, "b": 2, "c": 0.5, "d": "x"},
        ),
        (["--env-kwargs"], "env_kwargs", {}),
    ],
)
def test_words_become_values(words: list[str], name: str, value: Any) -> None:
    for argv in (["CartPole-v1", *words], [*words, "--seed", "1", "CartPole-v1"]):
        config, _ = request(*argv)
        assert get_setting(config, name) == value
        assert type(get_setting(config, name)) is type(value)
        assert config.env.env_id == "CartPole-v1"


@pytest.mark.parametrize("flag", ["--frame-size", "--atari.frame-size", "--env.frame-size", "--env.atari.frame_size"])
def test_a_setting_may_be_written_with_its_section_or_one_around_it(flag: str) -> None:
    settings = parse(TRAIN, [flag, "42"], print).settings
    assert settings == {"frame_size": 42}


def test_a_switch_does_not_swallow_the_environment() -> None:
    config, _ = request("--normalize-obs", "Acrobot-v1")
    assert (config.env.env_id, config.env.normalize_obs) == ("Acrobot-v1", True)


@pytest.mark.parametrize("words", [[], ["CartPole-v1"], ["--env-id", "CartPole-v1"], ["--env.env_id=CartPole-v1"]])
def test_the_environment_by_position_by_flag_or_by_default(words: list[str]) -> None:
    assert request(*words)[0].env.env_id == "CartPole-v1"


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--n-envs", "3"], "num_envs", 3),
        (["--n_steps=4"], "num_steps", 4),
        (["--n-timesteps", "5000"], "total_timesteps", 5000),
        (["--entropy-coef", "0.5"], "ent_coef", 0.5),
        (["--value-loss-coef", "0.25"], "vf_coef", 0.25),
        (["--lr", "0.1"], "learning_rate", 0.1),
        (["--max-episode-length", "77"], "max_episode_steps", 77),
        (["--env-name", "Acrobot-v1"], "env_id", "Acrobot-v1"),
        (["--env", "Acrobot-v1"], "env_id", "Acrobot-v1"),
        (["--num-processes", "3", "--algo", "a3c"], "num_workers", 3),
        (["--algo", "a3c", "--num_processes=3"], "num_workers", 3),
    ],
)
def test_foreign_spellings_are_taken_with_one_notice(words: list[str], name: str, value: Any) -> None:
    config, notices = request(*words)
    assert get_setting(config, name) == value
    assert len(notices) == 1
    spelling = next(word for word in words if word.startswith("--") and word != "--algo").partition("=")[0]
    assert notices[0] == f"{spelling} is called --{name.replace('_', '-')} here"


CLASSIC = """
    --env-name PongDeterministic-v4 --num-processes 3 --lr 1e-4 --gamma 0.99 --gae-lambda 1.0 --entropy-coef 0.01
    --value-loss-coef 0.5 --max-grad-norm 50 --seed 1 --num-steps 20 --max-episode-length 1000 --no-shared
"""


def test_every_flag_of_the_classic_script_is_taken() -> None:
    settings = parse(TRAIN, CLASSIC.split(), lambda text: None).settings
    assert settings == {
        "env_id": "PongDeterministic-v4", "num_workers": 3, "learning_rate": 1e-4, "gamma": 0.99, "gae_lambda": 1.0,
        "ent_coef": 0.01, "vf_coef": 0.5, "max_grad_norm": 50.0, "seed": 1, "num_steps": 20, "max_episode_steps": 1000,
        "optimizer_statistics": "per_worker",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--no-shared"], "per_worker"),
        (["--no-shared", "True"], "per_worker"),
        (["--no-shared=False"], "shared"),
        (["--no_shared", "--gamma", "0.9"], "per_worker"),
    ],
)
def test_the_switch_of_the_classic_script_is_a_choice_here(words: list[str], value: str) -> None:
    notices: list[str] = []
    assert parse(TRAIN, words, notices.append).settings["optimizer_statistics"] == value
    assert notices[0].endswith("is called --optimizer-statistics per_worker here")
    assert with_settings(TrainConfig(), {"no_shared": value == "per_worker"}).workers.shared_memory == (
        SharedMemoryConfig(optimizer_statistics=value)  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--lr 0.1 --learning-rate 0.2",
            "--learning-rate: is the same setting as --lr, which is given too; leave one out",
        ),
        (
            "--num-workers 2 --num_processes 3",
            "--num_processes: is the same setting as --num-workers, which is given too",
        ),
        ("--env a --env-name b", "--env-name: is the same setting as --env, which is given too; leave one out"),
        (
            "--optimizer-statistics shared --no-shared",
            "--no-shared: is the same setting as --optimizer-statistics, which",
        ),
        ("CartPole-v1 --env-name Acrobot-v1", "CartPole-v1: ENV_ID is given by a flag too; leave one out"),
        ("--no-shared=maybe", "--no-shared = maybe: must be true or false"),
    ],
)
def test_a_setting_by_two_names_is_refused(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(TRAIN, words.split(), lambda text: None)


def test_the_last_of_the_same_flags_counts() -> None:
    assert parse(TRAIN, ["--lr", "0.1", "--lr=0.2", "--gamma", "0.5", "--algorithm.gamma", "0.6"], print).settings == {
        "learning_rate": 0.2, "gamma": 0.6,
    }  # fmt: skip


def test_foreign_spellings_never_hide_a_setting() -> None:
    assert not set(ALIASES) & set(all_settings())
    assert set(ALIASES.values()) <= set(all_settings())


def test_flags_know_their_sections_and_positions() -> None:
    flags = TRAIN.flags()
    sections = [flags[name].section for name in ("gamma", "seed", "env_id", "frame_size", "quiet")]
    assert sections == ["algorithm", "", "env", "env.atari", ""]
    assert TRAIN.positional == ("env_id",)


def test_a_subcommands_own_arguments_are_apart_from_the_settings_that_were_given() -> None:
    parsed = parse(TRAIN, ["Acrobot-v1", "--quiet", "--gamma", "0.5"], print)
    assert parsed.settings == {"env_id": "Acrobot-v1", "gamma": 0.5}
    assert (parsed.arguments.quiet, parsed.arguments.resume) == (True, None)
    evaluate = parse(EVALUATE, ["somewhere", "--json"], print)
    assert evaluate.settings == {}
    arguments = evaluate.arguments
    assert (arguments.run_dir, arguments.json, arguments.seed) == (Path("somewhere"), True, 0)


def test_resume_takes_the_config_of_the_run(tmp_path: Path) -> None:
    saved = resolve_config("Acrobot-v1", "ac", "auto", {"gamma": 0.5})
    save_yaml(saved, tmp_path / "config.yaml")
    config, _ = request("--resume", str(tmp_path))
    assert config == saved
    config, _ = request("Acrobot-v1", "--resume", str(tmp_path), "--total-timesteps", "9", "--eval-every", "7")
    assert (config.total_timesteps, config.eval.eval_every, config.algorithm.gamma) == (9, 7, 0.5)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--from", "a", "--resume", "b"], "from = a: begins a new run, --resume continues one"),
        (["--from", "a", "--seeds", "3"], "from = a: begins one run; leave --seeds out"),
        (
            ["--from", "a", "--config", "b.yaml"],
            "from = a: has all settings and weights of its run; leave --config out",
        ),
        (["--from", "a", "--init-agent", "b"], "leave --init-agent out"),
        (["--from"], "from: needs a value, text"),
        (["--from", "nowhere"], "from = nowhere: nowhere is no folder of a run"),
        (["--init-agent", "a", "--resume", "b"], "init_agent = a: begins a new run"),
        (["--form", "a"], "--form: no such setting; did you mean --from"),
    ],
)
def test_arguments_that_begin_a_run_exclude_each_other(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refusal(capsys, "train", *argv)
