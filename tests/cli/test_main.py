"""The command line: its spellings, messages and exit statuses. In process, but for imports and pipes."""

from __future__ import annotations

import dataclasses
import importlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import limelight
from helpers.commands import refusal
from limelight.algo.collector import RolloutCollector
from limelight.cli import main as cli
from limelight.cli.arguments import EVALUATE, evaluation_env
from limelight.cli.flags import parse
from limelight.errors import ConfigError, WorkerError
from limelight.runners.sync import SyncRunner
from limelight.runs.checkpoint import latest_checkpoint
from limelight.settings.io import load_yaml, save_yaml
from limelight.settings.schema import EnvConfig
from limelight.training.evaluator import Evaluator
from limelight.training.presets import resolve_config

TINY = ["--total-timesteps", "300", "--eval-every", "150", "--eval-episodes", "2", "--final-episodes", "3"]


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 300 steps, made by the command itself."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    assert cli.main(["train", "CartPole-v1", *TINY, "--run-dir", str(folder), "--quiet"]) == 0
    return folder


# --------------------------------------------------------------------------- help and dispatch


def python(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(Path(limelight.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return done.stdout


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from limelight.cli.main import main; main(['--help']); print(*sys.modules)"
    out = python(code)
    loaded = set(out.splitlines()[-1].split())
    assert not loaded & {"torch", "gymnasium", "numpy", "yaml", "rich", "matplotlib"}
    assert all(f"limelight {name}" in out for name in cli.COMMANDS)


def test_train_help_and_a_refused_setting_do_not_import_torch() -> None:
    code = (
        "import sys; from limelight.cli.main import main; main(['train', '--help']); main(['list', 'algos']);"
        "main(['train', '--gamma', 'x']); print(*sys.modules)"
    )
    assert not set(python(code).splitlines()[-1].split()) & {"torch", "matplotlib"}


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"limelight {limelight.__version__}\n"


def test_no_command_shows_the_help_as_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert out.count("usage: limelight COMMAND") == 2
    assert "AC, A2C, A3C and PPO" in out


def test_an_unknown_command_names_near_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, "trian") == "trian: no such command; did you mean train?"
    assert refusal(capsys, "zzz") == "zzz: no such command; see limelight --help"


# --------------------------------------------------------------------------- refusals


def test_a_notice_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--n-envs", "3", "--gamma", "2"]) == 2
    captured = capsys.readouterr()
    assert captured.err.splitlines()[0] == "limelight: note: --n-envs is called --num-envs here"
    assert captured.out == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("train --gama 0.9", "--gama: no such setting; did you mean --gamma?"),
        ("train --zzzzzz 1", "--zzzzzz: no such setting; see limelight train --help"),
        ("train -gamma 1", "-gamma: no such setting; did you mean --gamma?"),
        ("train --no-gamma", "--no-gamma: no such setting; did you mean --gamma"),
        (
            "train --algorithm.num-envs 2",
            "--algorithm.num-envs: not a setting of algorithm; write --env.num-envs or --num-envs",
        ),
        ("train --env.seed 2", "--env.seed: not a setting of env; write --seed"),
        (
            "train --ray.frame-size 42",
            "--ray.frame-size: not a setting of ray; write --atari.frame-size or --frame-size",
        ),
        (
            "train --ray.update-order locked",
            "--ray.update-order: not a setting of ray; write --shared-memory.update-order or --update-order",
        ),
        ("train --gamma high", "gamma = high: must be a number"),
        ("train --gamma", "gamma: needs a value, a number"),
        ("train --gamma --seed 1", "gamma: needs a value, a number"),
        ("train --gamma=", "gamma = : must be a number"),
        ("train --num-envs 1.5", "num_envs = 1.5: must be a whole number"),
        ("train --num-envs 1.5e0", "num_envs = 1.5e0: must be a whole number"),
        ("train --critic twin", "critic = twin: must be shared | separate | target"),
        ("train --reward-clip off", "reward_clip = off: must be a number or none"),
        ("train --hidden-sizes 64 wide", "hidden_sizes = 64 wide: must be a list, each a whole number"),
        ("train --env-kwargs map", "env_kwargs = map: must be KEY VALUE pairs"),
        ("train --normalize-obs=3", "normalize_obs = 3: must be true or false"),
        (
            "train --no-normalize-obs=true",
            "--no-normalize-obs: takes no value; write --no-normalize-obs or --normalize-obs",
        ),
        ("train CartPole-v1 Acrobot-v1", "Acrobot-v1: one word too many; limelight train takes only ENV_ID"),
        ("train --gamma 1.5", "gamma = 1.5: must be ≥ 0 and ≤ 1"),
        ("train --gamma nan", "gamma = nan: must be ≥ 0 and ≤ 1"),
        ("train --stop-at-return inf", "stop_at_return = inf: must be finite"),
        ("train --algo A4C", "algo = 'A4C': must be ac | qac | a2c | a3c | ppo | stream-ac; did you mean a"),
        ("train --algo a4c", "algo = 'a4c': must be ac | qac | a2c | a3c | ppo | stream-ac; did you mean "),
        ("train --num-workers 4", "num_workers = 4: a2c trains in one process; use algo a3c"),
        ("train --workers.update-order locked", "update_order = locked: a2c trains in one process; use algo a3c"),
        ("train --algo a3c --num-workers 0", "num_workers = 0: must be ≥ 1 and ≤ 1024"),
        (
            "train --algo a3c --backend async",
            "backend = async: workers are processes already; use backend sync, vector",
        ),
        ("train --algo a3c --on-worker-error ignore", "on_worker_error = ignore: must be restart | raise"),
        ("train --resume nowhere", "nowhere: no config.yaml there, so it is not a run folder"),
        ("evaluate", "RUN_DIR: missing; see limelight evaluate --help"),
        ("evaluate a --which worst", "which = worst: must be best | last"),
        ("evaluate a --episodes 0", "episodes = 0: must be ≥ 1"),
        ("evaluate a --seed -1", "seed = -1: must be ≥ 0"),
        ("evaluate a --max-episode-steps 0", "max_episode_steps = 0: must be ≥ 1"),
        ("evaluate a --env-kwargs map", "env_kwargs = map: must be KEY VALUE pairs"),
        ("evaluate a --video --video-episodes 0", "video_episodes = 0: must be ≥ 1"),
        ("evaluate a --video-episodes 2", "video_episodes = 2: shows nothing by itself; add --video or --render"),
        ("train --video-every -5", "video_every = -5: must be ≥ 0"),
        ("evaluate a --gamma 1", "--gamma: no such setting; see limelight evaluate --help"),
        ("report", "RUN_DIRS: missing; see limelight report --help"),
        ("list", "WHAT: missing; see limelight list --help"),
        ("list games", "what = games: must be envs | algos | presets"),
        ("check", "ENV_ID: missing; see limelight check --help"),
        ("check CartPole-v1 --max-episode-steps 0", "max_episode_steps = 0: must be ≥ 1"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(argv: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refusal(capsys, *argv.split()).startswith(message)


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        ("train CartPol-v1", "did you mean CartPole-v1"),
        ("train helpers.composite_envs:Reader", "helpers.composite_envs:Reader: observation space Text"),
        ("train --env-module no_such_module", "no_such_module"),
        ("train --env-kwargs colour red", "colour"),
        ("train --frame-size 42", "frame_size = 42: only Atari games use it, CartPole-v1 is none; leave it out"),
        ("evaluate nowhere", "nowhere: no such folder"),
        ("report nowhere", "nowhere: no such folder"),
        ("compare nowhere", "nowhere: no such folder; give the folder of a run, or a folder of runs"),
        ("compare a b --difference x", "difference = x: must be"),
        ("train --parallel 2", "parallel = 2: runs of several seeds go in parallel; add --seeds"),
        ("train --seeds 0", "seeds = 0: must be"),
        ("train --seeds 2 --resume nowhere", "seeds = 2: nowhere is not a folder of --seeds"),
        ("train --config nowhere.yaml", "config = nowhere.yaml: no such file"),
        ("train --config c.yaml --resume r", "config = c.yaml: a run that is resumed has its settings; leave --config"),
        ("list envs zzzzzz", "zzzzzz: no environment"),
    ],
)
def test_a_mistake_that_only_the_environment_or_folder_shows_is_one_line_too(
    argv: str, part: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert part in refusal(capsys, *argv.split())
    assert list(tmp_path.iterdir()) == [], "a refused run leaves nothing behind"


def test_a_run_folder_is_never_overwritten(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run_dir / "summary.json").read_bytes()
    assert "is not empty" in refusal(capsys, "train", "--run-dir", str(run_dir))
    assert (run_dir / "summary.json").read_bytes() == before


def test_a_message_of_many_lines_is_put_on_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(argv: list[str]) -> int:
        raise ConfigError("the environment said:\n  no")

    monkeypatch.setitem(cli.COMMANDS, "train", cli.Command("train", "", fail))
    assert refusal(capsys, "train") == "the environment said: no"


def test_an_unforeseen_error_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(argv: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setitem(cli.COMMANDS, "train", cli.Command("train", "", fail))
    with pytest.raises(ZeroDivisionError):
        cli.main(["train"])


# --------------------------------------------------------------------------- train


def test_train_leaves_a_run_and_prints_its_score_on_the_last_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    assert cli.main(["train", *TINY, "--run-dir", str(folder), "--quiet", "--seed", "3"]) == 0
    out = capsys.readouterr().out.strip()
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert out.startswith("CartPole-v1 · a2c: best agent ")
    assert f"{summary['final_eval_return']:.1f} ± " in out
    assert f"over 3 episodes after {summary['total_timesteps']:,} steps" in out
    assert out.endswith(f"report: {folder / 'report.html'}")
    assert "\n" not in out
    assert (folder / "report.html").is_file()
    command = (folder / "command.txt").read_text(encoding="utf-8")
    assert command.startswith("limelight train --total-timesteps 300 ")
    assert load_yaml(folder / "config.yaml").seed == 3


def test_train_without_a_final_evaluation_prints_the_folder_of_the_run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    argv = ["train", *TINY, "--final-episodes", "0", "--run-dir", str(tmp_path / "run"), "--quiet"]
    assert cli.main(argv) == 0
    assert "a2c: completed after " in capsys.readouterr().out


@pytest.mark.parametrize(("signal_number", "status"), [(2, 130), (15, 143)])
def test_an_interrupted_run_says_how_to_continue(
    signal_number: int,
    status: int,
    run_dir: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    summary = json.loads((run_dir / "summary.json").read_text(encoding="utf-8"))
    module = importlib.import_module("limelight.training.run")
    result = module.RunResult(run_dir, "interrupted", summary, None, signal_number)
    monkeypatch.setattr(module, "run", lambda *args, **kwargs: result)
    assert cli.main(["train"]) == status
    out = capsys.readouterr().out
    assert f"continue with: limelight train --resume {run_dir} · run: {run_dir}" in out


def test_a_signal_in_the_final_evaluation_is_told_in_the_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    final = Evaluator.final

    def signalled(self: Evaluator, agent: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return final(self, agent)

    monkeypatch.setattr(Evaluator, "final", signalled)
    folder = tmp_path / "my run"
    assert cli.main(["train", *TINY, "--run-dir", str(folder), "--quiet"]) == 143
    out = capsys.readouterr().out
    assert re.search("a2c: completed after .* of training; the final evaluation was cut", out)
    assert f"cut (evaluate with: limelight evaluate '{folder}') · report: " in out
    assert cli.main(["evaluate", str(folder), "--episodes", "1"]) == 0


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_signal_while_the_report_is_drawn_leaves_the_report_and_the_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def signalled(folder: Path) -> Path:
        os.kill(os.getpid(), signal.SIGTERM)
        return folder / "report.html"

    monkeypatch.setattr(importlib.import_module("limelight.training.run"), "draw_report", signalled)
    assert cli.main(["train", *TINY, "--run-dir", str(tmp_path / "run"), "--quiet"]) == 143
    out = capsys.readouterr().out
    assert "a2c: best agent " in out
    assert out.rstrip().endswith(f" · report: {tmp_path / 'run' / 'report.html'}")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_second_signal_before_a_periodic_checkpoint_leaves_one_to_resume_from(
    number: signal.Signals, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collect, calls = RolloutCollector.collect, []

    def signalled(self: RolloutCollector, *args: Any) -> Any:
        calls.append(self)
        if len(calls) == 3:
            of_run = signal.getsignal(number)
            os.kill(os.getpid(), number)
            while signal.getsignal(number) is of_run:  # two at once may count as one
                time.sleep(0.001)
            os.kill(os.getpid(), number)
            time.sleep(10.0)  # the second one does not wait for the end of the rollout
        return collect(self, *args)

    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    folder = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(RolloutCollector, "collect", signalled)
        argv = ["train", "--algo", "a2c", "--total-timesteps", "300", "--num-envs", "2", "--num-steps", "5", "--quiet"]
        argv += ["--backend", "sync", "--eval-every", "0", "--run-dir", str(folder)]
        assert cli.main(argv) == status
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert (summary["status"], summary.get("error")) == ("interrupted", None)
    newest = latest_checkpoint(folder)
    assert newest is not None
    assert newest.name == "step_000000000020"  # the two rollouts before
    assert limelight.resume(folder, quiet=True, final_episodes=0).status == "completed"


FAILURE = 'worker 1 (Mine-v0, 8 environments) failed: it raised\nTraceback:\n  File "mine.py"\nOSError: no licence'


@pytest.mark.parametrize("folder", [None, "runs/a", "runs/with space"])
def test_failed_workers_are_reported_in_full_with_the_command_to_continue(
    folder: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        error = WorkerError(FAILURE)
        error.run_dir = None if folder is None else Path(folder)
        raise error

    monkeypatch.setattr(importlib.import_module("limelight.training.run"), "run", fail)
    assert cli.main(["train", "--algo", "a3c"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"limelight: error: {FAILURE}\n")
    rest = captured.err.removeprefix(f"limelight: error: {FAILURE}\n").splitlines()
    assert len(rest) == (folder is not None)
    if folder is not None:
        command = rest[0].partition("continue with: ")[2]
        assert shlex.split(command) == ["limelight", "train", "--resume", folder]


def test_a_run_whose_workers_failed_is_resumed_by_the_command_that_it_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The printed command continues from the checkpoint."""
    advance = SyncRunner.advance

    def fail(self: SyncRunner, until: int, seconds: float) -> dict[str, float]:
        metrics = advance(self, until, seconds)
        if self.num_steps >= 150:
            raise WorkerError(FAILURE)
        return metrics

    monkeypatch.setattr(SyncRunner, "advance", fail)
    folder = tmp_path / "run"
    assert cli.main(["train", *TINY, "--run-dir", str(folder), "--quiet"]) == 1
    monkeypatch.undo()
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8"))["status"] == "failed"
    err = capsys.readouterr().err
    command = shlex.split(err.splitlines()[-1].partition("continue with: ")[2])
    assert cli.main([*command[1:], "--quiet"]) == 0
    assert "resumed at step 2" in capsys.readouterr().err
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8"))["status"] == "completed"


def test_ctrl_c_before_the_run_has_begun_is_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(argv: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "train", cli.Command("train", "", interrupt))
    assert cli.main(["train"]) == 130
    assert capsys.readouterr().err == "limelight: interrupted\n"


def test_a_closed_pipe_is_no_traceback() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(limelight.__file__).parents[1])}
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "limelight", "list", "envs", "acrobot"]  # MuJoCo warns of its own files
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    os.close(write)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize("words", [["--gamma", "0.9"], ["CartPole-v1"], ["--algo", "a2c"], ["--run-dir", "elsewhere"]])
def test_resume_refuses_to_change_settings_of_learning(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_yaml(resolve_config("Acrobot-v1", "ac", "auto", {"gamma": 0.5}), tmp_path / "config.yaml")
    assert "cannot change on resume, the run has " in refusal(capsys, "train", *words, "--resume", str(tmp_path))


def test_resume_continues_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    assert cli.main(["train", *TINY, "--run-dir", str(folder), "--quiet"]) == 0
    assert cli.main(["train", "--resume", str(folder), "--total-timesteps", "600", "--quiet"]) == 0
    assert json.loads((folder / "summary.json").read_text(encoding="utf-8"))["total_timesteps"] >= 600
    assert capsys.readouterr().out.count("best agent") == 2


# --------------------------------------------------------------------------- evaluate, report, check


def test_evaluate_json_is_one_object_and_the_same_for_the_same_seed(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["evaluate", str(run_dir), "--episodes", "4", "--seed", "5", "--json"]
    answers = []
    for _ in range(2):
        assert cli.main(argv) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]
    assert set(answers[0]) == {
        "mean_return",
        "std_return",
        "median_return",
        "iqm_return",
        "episodes",
        "mean_length",
        "cut_episodes",
        "returns",
        "lengths",
    }
    assert answers[0]["episodes"] == 4
    assert answers[0]["mean_return"] == answers[0]["mean_length"]  # CartPole's reward is 1 a step


def test_evaluate_in_words(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = [
        "evaluate",
        str(run_dir),
        "--episodes",
        "4",
        "--which",
        "last",
        "--stochastic",
        "--env-id",
        "CartPole-v0",
    ]
    assert cli.main(argv) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"CartPole-v0 · last agent of {run_dir}: ")
    assert "over 4 episodes (median " in out


def test_evaluate_with_another_time_limit_and_other_arguments_of_the_constructor(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def evaluated(*argv: str) -> dict[str, float]:
        assert cli.main(["evaluate", str(run_dir), "--episodes", "3", "--json", *argv]) == 0
        result: dict[str, float] = json.loads(capsys.readouterr().out)
        return result

    assert evaluated("--max-episode-steps", "5")["mean_length"] == 5
    rewards = evaluated("--max-episode-steps", "5", "--env-kwargs", "sutton_barto_reward", "true")
    assert rewards["mean_return"] == 0  # of five steps without a fall
    other = evaluated("--env-id", "CartPole-v0", "--max-episode-steps", "4")
    assert other["mean_length"] == 4
    assert "colour" in refusal(capsys, "evaluate", str(run_dir), "--env-kwargs", "colour", "red")


def test_evaluate_adds_arguments_of_the_constructor_to_those_of_the_run(run_dir: Path) -> None:
    agent = limelight.load(run_dir)
    env = dataclasses.replace(agent.config.env, env_kwargs={"a": 1, "b": 2})
    agent.config = dataclasses.replace(agent.config, env=env)
    arguments = parse(EVALUATE, [str(run_dir), "--env-kwargs", "b", "3", "c", "x"], print).arguments
    changed = evaluation_env(arguments, agent)
    assert isinstance(changed, EnvConfig)
    assert changed == dataclasses.replace(env, env_kwargs={"a": 1, "b": 3, "c": "x"})
    assert evaluation_env(parse(EVALUATE, [str(run_dir)], print).arguments, agent) is None


NOISY = """
import ctypes, os, sys
import gymnasium as gym
print("on import")
class Noisy(gym.Wrapper):
    def reset(self, **kwargs):
        print("by print")
        sys.__stdout__.write("by the stream\\n")
        os.write(1, b"by the file descriptor\\n")
        ctypes.CDLL(None).puts(b"by the C library")
        return super().reset(**kwargs)
    def close(self):
        print("on close")
        super().close()
def make():
    return Noisy(gym.make("CartPole-v1"))
"""


def test_json_is_all_that_evaluate_writes_to_stdout_whatever_the_environment_prints(
    run_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "noisy.py").write_text(NOISY, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(Path(limelight.__file__).parents[1])}
    command = [sys.executable, "-m", "limelight", "evaluate", str(run_dir), "--json", "--episodes", "2"]
    done = subprocess.run(
        [*command, "--env-id", "noisy:make"], capture_output=True, text=True, env=environment, check=True, cwd=tmp_path
    )
    assert len(done.stdout.splitlines()) == 1
    assert json.loads(done.stdout)["episodes"] == 2
    said = ("on import", "by print", "by the stream", "by the file descriptor", "by the C library", "on close")
    assert all(text in done.stderr for text in said)


def test_evaluate_where_the_spaces_differ_is_refused(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refusal(capsys, "evaluate", str(run_dir), "--env-id", "Acrobot-v1")
    assert "Acrobot-v1" in message
    assert "observation" in message


@pytest.mark.parametrize("encoding", ["cp1252", "gbk"])
def test_every_command_prints_to_a_console_of_windows(
    run_dir: Path, encoding: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A character that the console's encoding lacks becomes a question mark."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding, errors="strict", write_through=True) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    assert cli.main(["train", "--help"]) == 0
    assert cli.main(["evaluate", str(run_dir), "--episodes", "2", "--episode-lines"]) == 0
    assert cli.main(["train", "CartPole-v1", *TINY, "--run-dir", str(tmp_path / "r"), "--episode-lines"]) == 0
    assert cli.main(["train", "--gamma", "2"]) == 2
    printed, errors = (stream.buffer.getvalue().decode(encoding) for stream in (out, err))  # type: ignore[attr-defined]
    assert "Discount factor" in printed
    assert "episode 2  return" in printed
    assert "steps/s" in errors
    assert "gamma = 2.0: must be" in errors
    assert ("must be ≥ 0" in errors) is (encoding == "gbk")


def test_a_frozen_program_runs_its_worker_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that is its own interpreter is started again as its worker; elsewhere nothing is loaded for it."""

    class Worker(Exception):  # noqa: N818  (no error)
        pass

    def begin() -> None:
        raise Worker

    monkeypatch.setattr("multiprocessing.freeze_support", begin)
    assert cli.main(["--version"]) == 0
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with pytest.raises(Worker):
        cli.main(["--multiprocessing-fork", "parent_pid=1", "pipe_handle=5"])


def test_evaluate_shows_every_episode_when_asked(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["evaluate", str(run_dir), "--episodes", "3"]
    assert cli.main([*argv, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["returns"]) == len(result["lengths"]) == 3
    assert cli.main([*argv, "--episode-lines"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    for number, (line, score, length) in enumerate(zip(lines, result["returns"], result["lengths"], strict=False), 1):
        assert line == f"episode {number}  return {score:.1f}  length {length}"


def test_a_budget_of_episodes_out_of_range_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for value, message in (("0", "must be ≥ 1"), ("many", "must be a whole number or none"), ("2.5", "must be a")):
        line = refusal(capsys, "train", "CartPole-v1", "--total-episodes", value)
        assert line.startswith(f"total_episodes = {value}: {message}")
    assert refusal(capsys, "report", "r", "--smoothing", "1").startswith("smoothing = 1.0: must be ≥ 0 and < 1")


def test_report_draws_again_and_prints_the_path(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_dir / "report.html").unlink()
    assert cli.main(["report", str(run_dir)]) == 0
    assert capsys.readouterr().out.strip() == str(run_dir / "report.html")
    assert (run_dir / "report.html").is_file()


def test_check_prints_a_line_per_finding_and_fails_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "CartPole-v1"]) == 0
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == {"ok"}
    assert cli.main(["check", "helpers.composite_envs:Reader"]) == 2
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("fail")]
    assert len(failed) == 1
    assert failed[0].split()[1] == "spaces"


@pytest.mark.parametrize(
    "name", ["yaml", *(pytest.param(name, marks=pytest.mark.slow) for name in ("random", "queue"))]
)
def test_a_file_of_the_present_folder_hides_no_library(name: str, tmp_path: Path) -> None:
    (tmp_path / f"{name}.py").write_text("x = 1\n")
    train = ["train", "CartPole-v1", "--total-timesteps", "40", "--eval-every", "0", "--final-episodes", "0"]
    command = [sys.executable, "-m", "limelight", *train, "--quiet", "--no-tensorboard", "--run-dir", "r"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "completed" in done.stdout


@pytest.mark.parametrize("name", ["train", "check", "doctor"])
def test_a_termination_ends_every_command_with_143(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def terminated(words: Any) -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    monkeypatch.setitem(cli.COMMANDS, name, cli.Command(name, name, terminated))
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        assert cli.main([name]) == 143
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)
