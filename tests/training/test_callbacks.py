"""Callbacks: what they are told and may do, in every runner, and how their faults are reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.callbacks import Fails, Levels, Misspelt, Recorder
from helpers.informing_envs import Informs
from helpers.manual_workers import assert_same, draw_no_report, quick_config
from helpers.settings import one_line
from limelight.cli.main import main
from limelight.errors import ConfigError, EnvError, LimelightError
from limelight.runs.checkpoint import checkpoints, read_state
from limelight.training.callbacks import Callbacks, require_callback
from limelight.training.run import resume, run, train

ENV = "helpers.informing_envs:Informs"


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)


def go(folder: Path, *callbacks: Any, algo: str = "a2c", **settings: Any) -> Any:
    quick = {"env_id": ENV, "total_timesteps": 60, "num_steps": 3, "run_dir": str(folder), **settings}
    return run(quick_config(algo, **quick), quiet=True, callbacks=callbacks)


def rewards(folder: Path) -> list[float]:
    lines = (folder / "monitor.csv").read_text().splitlines()[2:]
    return [float(line.split(",")[0]) / 3 for line in lines]


# --------------------------------------------------------------------------- events


def test_a_callback_is_told_of_everything_in_order(tmp_path: Path) -> None:
    recorder = Recorder()
    result = go(tmp_path / "run", recorder, eval_every=30, eval_episodes=1, checkpoint_every=30)
    assert result.status == "completed"
    assert recorder.events[0] == "start"
    assert recorder.events[1:4] == ["checkpoint", "episodes", "rollout"]
    assert recorder.events[-2:] == ["checkpoint", "end completed"], "the end comes last"
    assert recorder.events.count("evaluation") == recorder.events.count("best") == 2
    assert recorder.events.count("checkpoint") == 4
    steps = [step for event, step in zip(recorder.events, recorder.steps, strict=True) if event == "rollout"]
    assert len(steps) > 9
    assert max(np.diff(steps)) <= 6, "after every rollout"


@pytest.mark.parametrize("event", ["start", "rollout", "episodes", "evaluation", "best", "checkpoint"])
def test_false_ends_the_run_cleanly(event: str, tmp_path: Path) -> None:
    recorder = Recorder(at=event)
    result = go(tmp_path / "run", recorder, eval_every=12, eval_episodes=1, checkpoint_every=12)
    assert result.status == "stopped"
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "stopped"
    assert result.summary["total_timesteps"] < 30
    assert "end stopped" in recorder.events
    resumed = resume(tmp_path / "run", quiet=True, callbacks=[Recorder()])
    assert resumed.status == "completed", "the budget is not used up"


def test_workers_tell_of_episodes_and_stop(tmp_path: Path) -> None:
    recorder = Recorder(at="episodes")
    result = go(tmp_path / "run", recorder, algo="a3c", total_timesteps=10**7)
    assert result.status == "stopped"
    assert {"start", "episodes", "rollout", "end stopped"} <= {*recorder.events}


def test_a_state_is_part_of_the_checkpoint(tmp_path: Path) -> None:
    whole, first, second = Recorder(), Recorder(), Recorder()
    go(tmp_path / "whole", whole, total_timesteps=120, lr_schedule="constant")
    go(tmp_path / "parts", first, lr_schedule="constant")
    resume(tmp_path / "parts", total_timesteps=120, quiet=True, callbacks=[second])
    rest = [event for event in whole.events if event in ("rollout", "episodes")]
    assert [event for event in second.events if event in ("rollout", "episodes")] == rest
    parameters = [read_state(checkpoints(tmp_path / name)[-1])["training"]["runner"] for name in ("whole", "parts")]
    assert_same(parameters[0]["train_state"], parameters[1]["train_state"])


def test_other_callbacks_on_resume_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    go(tmp_path / "run", Recorder())
    resume(tmp_path / "run", total_timesteps=70)
    assert "callbacks Recorder: begin anew" in capsys.readouterr().err


# --------------------------------------------------------------------------- environments


@pytest.mark.parametrize("backend", ["sync", "async"])
def test_attributes_are_set_and_methods_called_in_every_backend(backend: str, tmp_path: Path) -> None:
    levels = Levels()
    go(tmp_path / "run", levels, backend=backend)
    assert levels.results == [3.0, 3.0]
    assert set(rewards(tmp_path / "run")) == {3.0}


@pytest.mark.slow
def test_workers_set_attributes_and_call_methods(tmp_path: Path) -> None:
    levels = Levels()
    go(tmp_path / "run", levels, algo="a3c", num_workers=2)
    assert levels.results == [3.0] * 4
    assert set(rewards(tmp_path / "run")) == {3.0}, "before the first step"


def test_attributes_survive_a_resume(tmp_path: Path) -> None:
    go(tmp_path / "run", Levels(), checkpoint_envs=False)
    resume(tmp_path / "run", total_timesteps=120, quiet=True)
    assert set(rewards(tmp_path / "run")[-4:]) == {2.0}, "as it was set; what a method changed is the environment's own"


@pytest.mark.parametrize("algo", ["a2c", "a3c"])
def test_what_is_ordered_while_a_checkpoint_is_made_is_part_of_it(algo: str, tmp_path: Path) -> None:
    """Workers finish episodes while they pause; the callback says so in its state, so the attribute must be there."""

    class AtEpisodes(Recorder):
        def on_episodes(self, run: Any, episodes: Any) -> bool:
            run.set_env_attr("level", float(run.episodes))
            self.steps = [run.episodes]
            return True

    go(tmp_path / "run", AtEpisodes(), algo=algo, total_timesteps=600, num_steps=3)
    for folder in checkpoints(tmp_path / "run")[1:]:  # not the one from before the first step
        training = read_state(folder)["training"]
        (state,) = training["callbacks"].values()
        assert training["runner"]["orders"] == [["set_env_attr", "level", float(state["steps"][0])]]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("levle", "set_env_attr = levle: helpers.informing_envs:Informs has no such attribute; did you mean level?"),
        ("step", "set_env_attr = step: training itself calls it"),
    ],
)
@pytest.mark.parametrize("algo", ["a2c", "a3c"])
def test_a_wrong_attribute_is_one_line_that_names_the_callback(
    algo: str, name: str, message: str, tmp_path: Path
) -> None:
    class Wrong:
        def on_start(self, run: Any) -> None:
            run.set_env_attr(name, 1)

    with pytest.raises(ConfigError) as error:
        go(tmp_path / "run", Wrong(), algo=algo)
    assert one_line(error).startswith(f"callback Wrong.on_start: {message}")


def test_a_method_that_raises_is_a_fault_of_the_environment(tmp_path: Path) -> None:
    class Wrong:
        def on_start(self, run: Any) -> None:
            run.call_env("broken")

    with pytest.raises(EnvError, match=r"call_env\('broken'\)"):
        go(tmp_path / "run", Wrong())


def test_an_attribute_must_be_plain_data(tmp_path: Path) -> None:
    class Wrong:
        def on_start(self, run: Any) -> None:
            run.set_env_attr("level", object())

    with pytest.raises(ConfigError, match="set_env_attr = level: holds a object"):
        go(tmp_path / "run", Wrong())


@pytest.mark.parametrize("algo", ["a2c", "a3c"])
def test_a_setting_changes_for_every_learner_and_stays_on_resume(algo: str, tmp_path: Path) -> None:
    config = {"total_timesteps": 400, "log_every": 20, "lr_schedule": "constant"}
    text = "ChangeSetting('learning_rate', 0.5, at=40)"
    go(tmp_path / "run", algo=algo, callback=(text,), max_grad_norm=0.001, **config)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = [row["train/learning_rate"] for row in rows if "train/learning_rate" in row]
    assert rates[-1] == 0.5
    state = read_state(checkpoints(tmp_path / "run")[-1])["training"]["runner"]
    assert state["orders"] == [["change_setting", "learning_rate", 0.5]]


@pytest.mark.parametrize(("name", "value"), [("gamma", 0.5), ("learning_rat", 0.1), ("learning_rate", -1.0)])
def test_a_setting_that_cannot_change_is_refused(name: str, value: float, tmp_path: Path) -> None:
    class Wrong:
        def on_start(self, run: Any) -> None:
            run.change_setting(name, value)

    with pytest.raises(ConfigError, match=name):
        go(tmp_path / "run", Wrong())


# --------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        (Misspelt(), "x: on_rollouts is never called; did you mean on_rollout?"),
        (Misspelt, "x: is a class; pass an object of it, Misspelt()"),
        (Informs(), "x: has none of the methods on_start"),
        (type("A", (), {"on_best": lambda self, run: None})(), "x: on_best must take (run, evaluation)"),
        (
            type("B", (), {"on_start": lambda self, run: None, "get_state": lambda self: {}})(),
            "x: has get_state alone; a state needs get_state and set_state",
        ),
    ],
)
def test_what_is_no_callback_is_refused_in_one_line(callback: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        require_callback("x", callback)
    assert one_line(error).startswith(message)


def test_an_exception_names_the_callback_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(LimelightError) as error:
        go(tmp_path / "run", Recorder(), Fails(at=3))
    assert one_line(error).startswith(
        "callback Fails.on_rollout raised ZeroDivisionError: by zero (callbacks.py, line "
    )
    assert checkpoints(tmp_path / "run")
    resumed = resume(tmp_path / "run", quiet=True, callbacks=[Recorder()])
    assert resumed.status == "completed"


def test_a_state_that_no_checkpoint_holds_is_refused() -> None:
    callback = Recorder()
    callback.events = [object()]  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"Recorder.get_state\(\): holds a object"):
        Callbacks([callback]).get_state()


# --------------------------------------------------------------------------- the command line


def test_the_command_line_takes_callbacks_by_name_and_resumes_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = str(tmp_path / "run")
    words = [
        "train",
        ENV,
        "--num-steps",
        "3",
        "--num-envs",
        "2",
        "--eval-every",
        "0",
        "--final-episodes",
        "0",
        "--quiet",
    ]
    named = "helpers.callbacks:Recorder(at='rollout', stop=4)"
    assert main([*words, "--total-timesteps", "600", "--run-dir", folder, "--callback", named]) == 0
    assert json.loads((Path(folder) / "summary.json").read_text())["status"] == "stopped"
    assert main(["train", "--resume", folder, "--quiet"]) == 0
    assert json.loads((Path(folder) / "summary.json").read_text())["status"] == "stopped", "its state says so"
    assert main([*words, "--callback", "helpers.callbacks:Misspelt"]) == 2
    assert "callback = helpers.callbacks:Misspelt: on_rollouts is never called" in capsys.readouterr().err


def test_python_takes_names_and_objects(tmp_path: Path) -> None:
    recorder = Recorder()
    result = train(
        Informs, num_steps=3, num_envs=2, eval_every=0, final_episodes=0, total_timesteps=300, quiet=True,
        run_dir=tmp_path / "run", callback=["StopAfter(0)"], callbacks=[recorder],
    )  # fmt: skip
    assert result.status == "stopped"
    assert recorder.events[0] == "start"
