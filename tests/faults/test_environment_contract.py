"""What an environment may hand over, and what follows: whole runs, in one process."""

from __future__ import annotations

import functools
import importlib
import json
import logging
import operator
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Tuple

import limelight
from helpers.commands import refusal
from helpers.counted_envs import CountedFactory, copies
from helpers.manual_workers import draw_no_report
from helpers.rude_envs import (
    BeyondFloat32,
    Endless,
    FloatCamera,
    MakesTen,
    Money,
    Ninth,
    OneBadReading,
    Opponent,
    Plain,
    Prices,
    Sharpe,
    SignalsInEvaluation,
    Slow,
    StackedCamera,
    Ten,
    normalised,
)
from limelight.cli import main as cli
from limelight.cli.env_check.check import check_env
from limelight.envs.make import explain_backend, num_cores
from limelight.envs.source import resolve_env
from limelight.errors import ConfigError, EnvError, NonFiniteError
from limelight.runs.cleaning import clean
from limelight.runs.folder import only_process
from limelight.runs.listing import list_runs
from limelight.settings.schema import EnvConfig
from limelight.viewing.record import record

evaluation_module = importlib.import_module("limelight.runs.evaluation")

QUICK: dict[str, Any] = {"quiet": True, "tensorboard": False, "eval_every": 0, "final_episodes": 0, "backend": "sync"}


class Messages:
    """Stores the messages of a run."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def message(self, text: str) -> None:
        self.messages.append(text)

    def tick(self, *args: Any) -> None: ...

    def log(self, *args: Any) -> None: ...

    def episodes(self, *args: Any) -> None: ...

    def close(self) -> None: ...


def numbers(text: str) -> Any:
    """Parse JSON as strict parsers do: without NaN and Infinity."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    return json.loads(text, parse_constant=refuse)


# --------------------------------------------------------------------------- observations that are not finite


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("normalize", [True, False])
def test_one_bad_reading_names_its_environment_and_the_run_resumes(
    tmp_path: Path, value: float, normalize: bool
) -> None:
    kwargs = {
        **QUICK,
        "num_envs": 4,
        "normalize_obs": normalize,
        "total_timesteps": 1_000,
        "run_dir": str(tmp_path / "r"),
    }
    with pytest.raises(NonFiniteError, match=rf"observation\[1\] = {value} in environment 1, step 10 of its episode"):
        limelight.train(OneBadReading, env_kwargs={"value": float(value)}, **kwargs)
    agent = limelight.load(tmp_path / "r", "last")
    if agent.normalizer is not None:
        moments = agent.normalizer.statistics.moments
        assert np.isfinite(moments.mean).all()
        assert np.isfinite(moments.var).all()
    result = limelight.resume(tmp_path / "r", quiet=True)
    assert (result.status, result.summary["total_timesteps"] >= 1_000) == ("completed", True)


@pytest.mark.slow
def test_one_huge_reading_does_not_end_a_feature(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With 1e30 in the variance, the feature would be 0 for the rest of the run."""
    kwargs = {**QUICK, "num_envs": 4, "normalize_obs": True, "total_timesteps": 3_000, "run_dir": str(tmp_path / "r")}
    with caplog.at_level(logging.WARNING, "limelight"):
        limelight.train(OneBadReading, env_kwargs={"value": 1e30, "at": 410}, **kwargs)
    (note,) = (record.getMessage() for record in caplog.records)
    assert "OneBadReading: observation[1] was about 1e+30, usually" in note
    normalizer = limelight.load(tmp_path / "r", "last").normalizer
    assert normalizer is not None
    assert 0.01 < normalizer.statistics.moments.var[1] < 1.0


# --------------------------------------------------------------------------- returns


def test_a_return_that_is_not_finite_is_refused_by_evaluations_as_by_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "r")
    message = refusal(
        capsys, "train", "helpers.rude_envs:Sharpe", "--total-timesteps", "300", "--eval-every", "10", "--num-steps",
        "2", "--num-envs", "2", "--quiet", "--run-dir", folder,
    )  # fmt: skip
    assert "rude_envs:Sharpe: return = nan of an episode of 20 steps in environment 0 of an evaluation" in message
    assert numbers((tmp_path / "r" / "summary.json").read_text())["best_eval_return"] is None
    for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines():
        numbers(line)
    assert "return = nan" in refusal(capsys, "evaluate", folder, "--json")
    with pytest.raises(NonFiniteError, match="return = nan"):
        limelight.evaluate(limelight.load(folder), Sharpe, episodes=2)


def test_json_of_an_evaluation_is_strict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The squares of returns of 1e200 are beyond float64."""
    limelight.train(Money, total_timesteps=100, run_dir=str(tmp_path / "r"), **QUICK)
    assert cli.main(["evaluate", str(tmp_path / "r"), "--env-id", "helpers.rude_envs:Huge", "--json"]) == 0
    result = numbers(capsys.readouterr().out)
    assert result["std_return"] is None
    assert result["mean_return"] == pytest.approx(1.5e202, rel=0.2)


def test_returns_are_summed_in_float64(tmp_path: Path) -> None:
    result = limelight.train(Money, total_timesteps=200, run_dir=str(tmp_path / "r"), **{**QUICK, "final_episodes": 3})
    assert (tmp_path / "r" / "monitor.csv").read_text().splitlines()[-1].startswith(f"{20 * 16_777_217.0},")
    assert result.summary["final_eval_return"] == 20 * 16_777_217.0


def test_a_threshold_that_is_reached_but_for_rounding_stops_the_run(tmp_path: Path) -> None:
    assert functools.reduce(operator.add, [0.1] * 9) < 0.9  # sum() is exact from Python 3.12 on
    result = limelight.train(
        Ninth, run_dir=str(tmp_path / "r"), total_timesteps=2_000, stop_at_return=0.9,
        **{**QUICK, "eval_every": 200, "final_episodes": 1},
    )  # fmt: skip
    assert result.status == "reached_return"
    assert result.summary["solved_at_step"] < 500


def test_a_reward_beyond_float32_is_shown_as_it_is(tmp_path: Path) -> None:
    beyond = r"reward = 1e\+39 in environment 0, step 3 of its episode; beyond float32"
    with pytest.raises(NonFiniteError, match=beyond):
        limelight.train(BeyondFloat32, run_dir=str(tmp_path / "r"), total_timesteps=200, **QUICK)


# --------------------------------------------------------------------------- evaluations


def test_at_most_the_asked_copies_are_open(tmp_path: Path) -> None:
    factory = CountedFactory(tmp_path)
    kwargs = {**QUICK, "num_envs": 1, "total_timesteps": 400, "eval_every": 200, "final_episodes": 30}
    limelight.train(factory, run_dir=str(tmp_path / "r"), **kwargs)
    assert copies(tmp_path)[1] == 1 + 10
    (tmp_path / "log").unlink()
    limelight.train(factory, run_dir=str(tmp_path / "s"), eval_envs=1, **kwargs)
    assert copies(tmp_path)[1] == 1 + 1


def test_a_sync_run_needs_no_processes_in_its_evaluations(tmp_path: Path) -> None:
    """A slow environment that cannot be sent to a process; with auto, its evaluations would choose processes."""
    lock = threading.Lock()

    class Local(Slow):
        def __init__(self) -> None:
            super().__init__()
            self.lock = lock

    kwargs = {**QUICK, "num_envs": 2, "total_timesteps": 100, "eval_every": 50, "eval_episodes": 2, "final_episodes": 2}
    result = limelight.train(lambda: Local(), run_dir=str(tmp_path / "r"), **kwargs)
    assert result.status == "completed"
    assert limelight.evaluate(result.agent, episodes=2).episodes == 2


def test_auto_falls_back_from_processes_with_a_reason(tmp_path: Path) -> None:
    lock = threading.Lock()
    source = resolve_env(EnvConfig(num_envs=2), lambda: (lock, Slow())[1])
    choice = explain_backend(source)
    assert choice.backend == "sync"
    assert num_cores() == 1 or "cannot be sent to a process" in choice.reason


def test_an_evaluation_heeds_a_limit_beyond_the_usual_cut(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(evaluation_module, "MAX_EPISODE_STEPS", 30)
    agent = limelight.train(Plain, total_timesteps=50, run_dir=str(tmp_path / "r"), **QUICK).agent
    limited = EnvConfig(env_id="helpers.rude_envs:Endless", max_episode_steps=45)
    assert limelight.evaluate(agent, limited, episodes=2).lengths == [45, 45]
    cut = limelight.evaluate(agent, Endless, episodes=12)
    assert (cut.episodes, cut.cut, set(cut.lengths)) == (10, 10, {30})


def test_a_cut_is_said_in_line_and_json(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluation_module, "MAX_EPISODE_STEPS", 30)
    folder = str(tmp_path / "r")
    argv = ["train", "helpers.rude_envs:Endless", "--total-timesteps", "200", "--eval-every", "100"]
    argv += ["--eval-episodes", "20", "--final-episodes"]
    assert cli.main([*argv, "12", "--run-dir", folder, "--backend", "sync"]) == 0
    out, err = capsys.readouterr()
    assert "over 10 episodes, 10 of them cut" in out
    assert "evaluation at step 128: 10 episodes, 10 of them cut after 30 steps (20 were asked for)" in err
    assert numbers((tmp_path / "r" / "summary.json").read_text())["final_eval_cut"] == 10
    assert cli.main(["evaluate", folder, "--json", "--episodes", "3"]) == 0
    assert numbers(capsys.readouterr().out)["cut_episodes"] == 3


def test_an_evaluation_ends_at_the_first_signal_and_the_run_has_a_checkpoint(tmp_path: Path) -> None:
    folder = tmp_path / "r"
    kwargs = {**QUICK, "total_timesteps": 2_000, "eval_every": 100, "num_envs": 2, "preset": "plain"}
    result = limelight.train(SignalsInEvaluation, run_dir=str(folder), **kwargs)
    assert (result.status, result.signal_number) == ("interrupted", signal.SIGINT)
    assert result.summary["best_eval_return"] is None
    assert limelight.load(folder, "last").config.total_timesteps == 2_000


# --------------------------------------------------------------------------- processes, names, machines


def test_a_run_is_trained_by_one_process_at_a_time(tmp_path: Path) -> None:
    limelight.train(Plain, total_timesteps=100, run_dir=str(tmp_path / "r"), **QUICK)
    expected = r"resume = .*r: another process trains there"
    with only_process(tmp_path / "r"), pytest.raises(ConfigError, match=expected):
        limelight.resume(tmp_path / "r", total_timesteps=200, quiet=True)
    assert limelight.resume(tmp_path / "r", total_timesteps=200, quiet=True).status == "completed"


class TriesTwice:
    """Resumes, cleans and lists a run from a callback of the same run."""

    def __init__(self, folder: Path, deletes: bool = False) -> None:
        self.folder, self.deletes, self.refusals = folder, deletes, list[str]()

    def on_rollout(self, run: Any) -> bool:
        if self.deletes and run.step > 250:
            self.deletes = False
            shutil.rmtree(self.folder)
        elif not self.deletes and (self.folder / "config.yaml").exists():
            with pytest.raises(ConfigError) as error:
                limelight.resume(self.folder, total_timesteps=900, quiet=True)
            self.refusals += [str(error.value), str(clean(self.folder, include_unfinished=True).reason)]
            self.refusals += [entry.status for entry in list_runs(self.folder.parent)]
        return len(self.refusals) < 3


@pytest.mark.parametrize("deletes", [False, True])
def test_a_run_that_is_resumed_with_other_settings_or_made_again_is_still_of_one_process(
    deletes: bool, tmp_path: Path
) -> None:
    """config.yaml is a new file then."""
    limelight.train(Plain, total_timesteps=100, run_dir=str(tmp_path / "r"), **QUICK)
    tries = TriesTwice(tmp_path / "r", deletes)
    limelight.resume(tmp_path / "r", total_timesteps=800, quiet=True, callbacks=[tries], checkpoint_every=100)
    refused, reason, status = tries.refusals
    assert "another process trains there" in refused
    assert (reason, status) == ("a process trains there", "running")


def test_a_budget_that_is_used_up_already_is_refused(tmp_path: Path) -> None:
    limelight.train(Plain, total_timesteps=300, run_dir=str(tmp_path / "r"), **QUICK)
    with pytest.raises(ConfigError, match=r"total_timesteps = 100: the run has done 3.. steps already"):
        limelight.resume(tmp_path / "r", total_timesteps=100, quiet=True)
    done = limelight.resume(tmp_path / "r", quiet=True).summary["total_timesteps"]
    assert done > 300, "the rollout goes beyond the budget"
    with pytest.raises(ConfigError, match=rf"total_timesteps = {done}: the run has done {done} steps already"):
        limelight.resume(tmp_path / "r", total_timesteps=done, quiet=True)


def test_spaces_from_which_an_environment_draws_are_seeded(tmp_path: Path) -> None:
    def returns(name: str) -> list[str]:
        limelight.train(Opponent, total_timesteps=500, seed=1, num_envs=2, run_dir=str(tmp_path / name), **QUICK)
        return [line.split(",")[0] for line in (tmp_path / name / "monitor.csv").read_text().splitlines()[2:]]

    first = returns("a")
    assert len(set(first)) > 1
    assert returns("b") == first


@pytest.mark.slow
def test_a_callable_without_a_name_is_kept_in_the_process_and_asked_for_in_another(tmp_path: Path) -> None:
    makes = {"partial": functools.partial(Ten, 1.0), "lambda": lambda: Ten(1.0), "object": MakesTen()}
    for name, make in makes.items():
        result = limelight.train(make, total_timesteps=100, run_dir=str(tmp_path / name), **QUICK)
        assert limelight.evaluate(result.agent, episodes=2).mean_return == 20.0
        with pytest.raises(ConfigError, match="was a callable of the program that trained"):
            limelight.resume(tmp_path / name, total_timesteps=200, quiet=True)
        resumed = limelight.resume(tmp_path / name, env=make, total_timesteps=200, quiet=True)
        assert resumed.status == "completed"
        assert limelight.evaluate(resumed.agent, episodes=2).mean_return == 20.0


@pytest.mark.slow
def test_a_run_goes_on_without_the_gpu_it_began_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limelight.train(Plain, total_timesteps=100, run_dir=str(tmp_path / "r"), **QUICK)
    config = tmp_path / "r" / "config.yaml"
    config.write_text(config.read_text().replace("device: cpu", "device: cuda"))
    if not torch.cuda.is_available():
        assert limelight.resume(tmp_path / "r", total_timesteps=200).status == "completed"
        assert "device cpu: PyTorch sees no CUDA device here" in capsys.readouterr().err
    result = limelight.resume(tmp_path / "r", total_timesteps=300, device="cpu", backend="async", num_envs=8)
    assert result.status == "completed"
    assert "backend was sync, so it does not repeat exactly" in capsys.readouterr().err


def test_output_of_an_environment_is_not_on_stdout(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = str(tmp_path / "r")
    argv = ["train", "helpers.rude_envs:Talks", "--total-timesteps", "100", "--eval-every", "0", "--backend", "sync"]
    assert cli.main([*argv, "--run-dir", folder, "--quiet", "--final-episodes", "2"]) == 0
    out, err = capfd.readouterr()
    assert len(out.splitlines()) == 1
    assert "from" not in out + err
    assert cli.main(["evaluate", folder, "--json", "--episodes", "2"]) == 0
    assert numbers(capfd.readouterr().out)["episodes"] == 2
    assert cli.main(["check", "helpers.rude_envs:Talks"]) == 0
    assert "from" not in [line.split()[0] for line in capfd.readouterr().out.splitlines()]


# --------------------------------------------------------------------------- arguments of the wrong kind


@pytest.mark.parametrize("value", ["no", "False", 0, None, [True]], ids=repr)
def test_a_switch_that_is_neither_true_nor_false_is_named(tmp_path: Path, value: Any) -> None:
    """Every text is true for Python, "no" as well."""
    run = tmp_path / "r"
    agent = limelight.train(Plain, total_timesteps=50, run_dir=str(run), **QUICK).agent
    calls: dict[str, list[Callable[[], Any]]] = {
        "quiet": [
            lambda: limelight.train(Plain, quiet=value, run_dir=str(tmp_path / "s")),
            lambda: limelight.resume(run, quiet=value, total_timesteps=100),
            lambda: limelight.branch(run, quiet=value, total_timesteps=100),
        ],
        "deterministic": [
            lambda: limelight.evaluate(agent, Plain, deterministic=value),
            lambda: agent.predict(np.zeros(3), deterministic=value),
            lambda: record(agent, tmp_path / "v.mp4", Plain, deterministic=value),
        ],
        "with_values": [lambda: limelight.evaluate_in_full(agent, Plain, with_values=value)],
    }
    for name, wrong in calls.items():
        for call in wrong:
            with pytest.raises(ConfigError, match=rf"^{name} = .*: must be true or false$"):
                call()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"callbacks": None}, "callbacks = None: must be a list"),
        ({"callbacks": 3}, "callbacks = 3: must be a list"),
        ({"loggers": None}, "loggers = None: must be a list"),
        ({"max_episode_steps": 0}, "max_episode_steps = 0: must be ≥ 1"),
        ({"run_dir": "a\0b"}, r"run_dir = 'a\\x00b': holds a null character"),
    ],
    ids=repr,
)
def test_wrong_arguments_of_train_are_named(tmp_path: Path, settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=f"^{expected}"):
        limelight.train(Plain, **{"run_dir": str(tmp_path / "r"), "total_timesteps": 50, **QUICK, **settings})


class Coded(Plain):
    """A Dict with a code."""

    observation_space = Dict(x=Box(-1.0, 1.0, (3,), np.float32), k=Discrete(4))  # type: ignore[assignment]

    def reset(self, **how: Any) -> Any:
        obs, info = super().reset(**how)
        return {"x": obs, "k": 1}, info

    def step(self, action: Any) -> Any:
        obs, *others = super().step(action)
        return {"x": obs, "k": 1}, *others


class Pair(Coded):
    """The same as a Tuple."""

    observation_space = Tuple(list(Coded.observation_space.values()))  # type: ignore[assignment]

    def reset(self, **how: Any) -> Any:
        obs, info = super().reset(**how)
        return tuple(obs.values()), info

    def step(self, action: Any) -> Any:
        obs, *others = super().step(action)
        return tuple(obs.values()), *others


def test_wrong_arguments_of_predict_are_named(tmp_path: Path) -> None:
    plain, coded, pair, memory = (
        limelight.train(kind, total_timesteps=50, run_dir=str(tmp_path / f"r{i}"), core=core, **QUICK).agent
        for i, (kind, core) in enumerate(
            [(Plain, "feedforward"), (Coded, "feedforward"), (Pair, "feedforward"), (Plain, "gru")]
        )
    )
    zeros, masked = np.zeros(3), np.ma.masked_array(np.zeros(3), [0, 1, 0])
    wrong: list[tuple[Callable[[], Any], str]] = [
        (lambda: plain.predict(masked), "observation: holds masked numbers; pass its numbers"),
        (lambda: plain.predict([1e300, 0, 0]), r"observation\[0\] = 1e\+300: must be of float32"),
        (lambda: plain.predict(torch.zeros(3, dtype=torch.bfloat16)), r"observation: is no array \(Got unsupported"),
        (lambda: coded.predict({"x": masked, "k": 1}), r"observation\['x'\]\[1\] is masked"),
        (lambda: coded.predict({"x": np.ma.stack([masked] * 2), "k": [1, 1]}), r"observation\['x'\]\[1\] is masked"),
        (lambda: coded.predict({"x": zeros}), r"observation: no \['k'\]"),
        (lambda: coded.predict({"x": zeros, "k": -1}), r"observation\['k'\] = -1: must be Discrete\(4\)"),
        (lambda: coded.predict({"x": [[0, 0], [0]], "k": 1}), r"observation\['x'\]: is no array, as its parts have"),
        (lambda: coded.predict({"x": np.zeros((2, 3)), "k": [[1], []]}), r"observation\['k'\] is no array"),
        (lambda: pair.predict(((zeros, 1), {})), r"obs: is all that reset\(\) returned"),
        (lambda: memory.predict(zeros, episode_start=[0.5]), r"episode_start = \[0.5\]: must be true or false"),
        (lambda: memory.predict(zeros, episode_start=["1"]), r"episode_start = \['1'\]: must be an array"),
        (lambda: limelight.evaluate(plain, Coded), "env_id = test_environment_contract:Coded: its observation_space"),
        (lambda: limelight.evaluate(plain, ""), "env_id = : no such environment"),
        (lambda: limelight.evaluate(limelight.Agent, Plain), "agent: is a type; pass an agent"),  # type: ignore[arg-type]
    ]
    for call, expected in wrong:
        with pytest.raises(ConfigError, match=f"^{expected}"):
            call()


# --------------------------------------------------------------------------- data of the environment in checkpoints


@pytest.mark.parametrize("saved", [True, False])
def test_data_of_environments_is_noted_and_can_be_left_out(saved: bool, tmp_path: Path) -> None:
    """The prices are on the disk once in all checkpoints, or not at all."""
    logger = Messages()
    result = limelight.train(
        Prices, run_dir=str(tmp_path / "r"), total_timesteps=300, num_envs=4, checkpoint_every=100,
        checkpoint_envs=saved, loggers=[logger], **QUICK,
    )  # fmt: skip
    heavy = [text for text in logger.messages if "checkpoint_envs = false leaves them out" in text]
    assert len(heavy) == saved
    assert all("environments take 12 MiB of it" in text for text in heavy)
    files = {(file.stat().st_dev, file.stat().st_ino): file for file in (tmp_path / "r").rglob("*") if file.is_file()}
    size = sum(file.stat().st_size for file in files.values())
    assert (size > Prices.NBYTES) == saved
    assert size < 1.5 * Prices.NBYTES
    more = limelight.resume(result.run_dir, total_timesteps=400, quiet=True, env=Prices)
    assert more.status == "completed"


# --------------------------------------------------------------------------- what a run begins with


def test_normalisation_inside_the_callable_is_noted(tmp_path: Path) -> None:
    """In a note of the run, with the settings to use instead, and in a warning of check."""
    logger = Messages()
    limelight.train(normalised, run_dir=str(tmp_path / "r"), total_timesteps=100, loggers=[logger], **QUICK)
    note = next(text for text in logger.messages if "NormalizeObservation" in text)
    assert "NormalizeReward in the environment: every copy and evaluation has statistics of its own" in note
    assert "use normalize_obs and normalize_rewards instead" in note
    found = check_env(EnvConfig(env_id="helpers.rude_envs:normalised"))
    assert [(f.level, f.message) for f in found if f.subject == "wrappers"] == [("warn", note)]


def test_a_flattened_image_is_noted(tmp_path: Path) -> None:
    """And a stack of images of bytes is none."""
    logger = Messages()
    limelight.train(FloatCamera, run_dir=str(tmp_path / "r"), total_timesteps=100, loggers=[logger], **QUICK)
    assert any(text.startswith("observations Box(40, 40, 3) float32 is flattened") for text in logger.messages)
    limelight.train(StackedCamera, run_dir=str(tmp_path / "s"), total_timesteps=40, loggers=[logger], **QUICK)
    assert sum("is flattened" in text for text in logger.messages) == 1
    agent = limelight.load(tmp_path / "s")
    assert agent.model.encoder.planes.num_planes == 6
    action, _ = agent.predict(StackedCamera().reset(seed=0)[0])
    assert action in (0, 1)


# --------------------------------------------------------------------------- rules by structure


def test_rules_by_structure_refuse_an_environment_without_spaces(tmp_path: Path) -> None:
    class NoSpace(Plain):
        observation_space = None

    with pytest.raises(EnvError, match=r"NoSpace.*: observation space NoneType is no gymnasium.Space") as error:
        limelight.train(NoSpace, preset="none", run_dir=str(tmp_path / "r"), **QUICK)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", ["reset", "step", "close"])
def test_an_exit_in_random_play_does_not_end_the_program(
    tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw_no_report(monkeypatch)

    class Exits(Plain):
        pass

    def leave(*_: Any, **__: Any) -> None:
        sys.exit(3)

    setattr(Exits, method, leave)
    settings = {**QUICK, "total_timesteps": 40, "run_dir": str(tmp_path / "r")}
    if method == "close":
        assert limelight.train(Exits, preset="none", **settings).status == "completed"
        return
    with pytest.raises(EnvError, match=rf"Exits.*: {method}\(\) called sys.exit\(\)"):
        limelight.train(Exits, preset="none", **settings)
