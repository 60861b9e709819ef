"""metrics.jsonl, monitor.csv and TensorBoard events: their content, and how a resumed run continues them."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.manual_workers import draw_no_report, quick_config
from limelight.algo.episodes import Episode
from limelight.envs.episode_info import EpisodeInfo
from limelight.runs.reader import read_run
from limelight.settings.io import with_settings
from limelight.settings.schema import TrainConfig
from limelight.training.run import resume, run
from limelight.viewing.jsonl import JsonlLogger
from limelight.viewing.monitor_csv import MonitorCsvLogger
from limelight.viewing.seeds_progress import Tail
from limelight.viewing.tensorboard import TensorBoardLogger, writes_tensorboard


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def episodes(*returns: float, step: int = 0) -> list[Episode]:
    return [Episode(0, r, 10, True, step) for r in returns]


# --------------------------------------------------------------------------- metrics.jsonl


def test_jsonl_rows_are_written_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "metrics.jsonl"
    logger = JsonlLogger(path)
    logger.log(8, 0.12345678, {"train/entropy": np.float32(0.5), "time/updates": 3, "x": math.nan, "y": -math.inf})
    assert read_jsonl(path) == [
        {"step": 8, "seconds": 0.123457, "train/entropy": 0.5, "time/updates": 3, "x": None, "y": None}
    ]
    logger.episodes(9, 0.2, episodes(1.0))
    logger.message("hello")
    logger.log(16, 0.3, {})
    assert len(read_jsonl(path)) == 2
    logger.close()
    logger.close()


def test_jsonl_resumes_at_the_step_of_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    logger = JsonlLogger(path)
    for step in (10, 20, 30):
        logger.log(step, step / 10, {"a": step})
    logger.close()
    with path.open("a") as file:
        file.write('not json\n[1]\n{"step": 5}\n{"step": 15, "secon')  # a kill in the middle of a row
    resumed = JsonlLogger(path, resume_step=20)
    resumed.log(25, 2.5, {"a": 25})
    resumed.close()
    assert [row["step"] for row in read_jsonl(path)] == [10, 20, 5, 25]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_new_run_and_a_lost_file_start_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n')
    JsonlLogger(path).close()
    assert path.read_text() == ""
    path.unlink()
    JsonlLogger(path, resume_step=3).close()
    assert path.read_text() == ""


# --------------------------------------------------------------------------- monitor.csv


def test_monitor_csv_has_the_format_of_stable_baselines(tmp_path: Path) -> None:
    path = tmp_path / "monitor.csv"
    logger = MonitorCsvLogger(path, "CartPole-v1", start_time=1000.5)
    logger.episodes(20, 0.1234567, [Episode(3, 21.00000001, 21, True, 12), Episode(1, -0.5, 7, False, 16, 2)])
    lines = path.read_text().splitlines()
    assert json.loads(lines[0].removeprefix("#")) == {"t_start": 1000.5, "env_id": "CartPole-v1"}
    assert lines[1:] == ["r,l,t,step,env,worker", "21.0,21,0.123457,12,3,0", "-0.5,7,0.123457,16,1,2"]
    logger.log(1, 1.0, {})
    logger.message("hello")
    logger.close()
    logger.close()
    assert path.read_text().splitlines() == lines


def test_monitor_csv_resumes_at_the_step_of_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "monitor.csv"
    logger = MonitorCsvLogger(path, "E", start_time=1.0)
    for step in (10, 20, 30):
        logger.episodes(step + 5, step / 10, episodes(float(step), step=step))
    logger.close()
    with path.open("a") as file:
        file.write("1.0,2\n7.0,1,0.5,1")
    resumed = MonitorCsvLogger(path, "E", start_time=9.0, resume_step=20)
    resumed.episodes(25, 2.4, episodes(24.0, step=24))
    resumed.close()
    lines = path.read_text().splitlines()
    assert json.loads(lines[0][1:])["t_start"] == 1.0
    assert lines[1:] == ["r,l,t,step,env,worker", "10.0,10,1.0,10,0,0", "20.0,10,2.0,20,0,0", "24.0,10,2.4,24,0,0"]


def test_steps_in_monitor_csv_do_not_depend_on_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)
    columns = []
    for heartbeat in (1e-6, 60.0):
        monkeypatch.setattr("limelight.training.loop.HEARTBEAT", heartbeat)
        config = quick_config("a2c", total_timesteps=1_000, run_dir=str(tmp_path / f"{heartbeat}"))
        lines = (run(config, quiet=True).run_dir / "monitor.csv").read_text().splitlines()[2:]
        columns.append([[value for i, value in enumerate(line.split(",")) if i != 2] for line in lines])
    assert columns[0] == columns[1]
    assert len({step for _, _, step, *_ in columns[0]}) > 10


def test_training_starts_now_unless_told(tmp_path: Path) -> None:
    before = time.time()
    MonitorCsvLogger(tmp_path / "monitor.csv", "E").close()
    assert before <= json.loads((tmp_path / "monitor.csv").read_text().splitlines()[0][1:])["t_start"] <= time.time()


def test_a_lost_monitor_csv_starts_again(tmp_path: Path) -> None:
    MonitorCsvLogger(tmp_path / "monitor.csv", "E", 5.0, resume_step=20).close()
    assert (tmp_path / "monitor.csv").read_text() == '#{"t_start": 5.0, "env_id": "E"}\nr,l,t,step,env,worker\n'


@pytest.mark.filterwarnings("default")
def test_stable_baselines_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    monitor = pytest.importorskip("stable_baselines3.common.monitor")
    plotter = pytest.importorskip("stable_baselines3.common.results_plotter")
    logger = MonitorCsvLogger(tmp_path / "monitor.csv", "CartPole-v1", start_time=1000.0)
    for i in range(120):
        logger.episodes(10 * (i + 1), float(i), episodes(float(i)))
    logger.close()
    frame = monitor.load_results(str(tmp_path))
    assert frame["env"].tolist() == frame["worker"].tolist() == [0] * 120
    assert frame["r"].tolist() == [float(i) for i in range(120)]
    x, y = plotter.ts2xy(frame, plotter.X_TIMESTEPS)
    np.testing.assert_array_equal(x, 10 * np.arange(1, 121))
    np.testing.assert_array_equal(y, np.arange(120.0))
    x, _ = plotter.ts2xy(frame, plotter.X_WALLTIME)
    np.testing.assert_allclose(x * 3600, np.arange(120.0), atol=1e-6)


# --------------------------------------------------------------------------- TensorBoard


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_the_events_of_a_resumed_run(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    for step in (10, 20, 30):
        logger.log(step, 0.1, {"train/entropy": step / 10, "eval/mean_reward": np.float32(step)})
    logger.episodes(30, 0.2, episodes(1.0))
    logger.message("hello")
    logger.close()
    logger.close()
    resumed = TensorBoardLogger(tmp_path, resume_step=20)
    resumed.log(25, 0.2, {"train/entropy": math.nan, "eval/mean_reward": 25.0})
    resumed.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert sorted(events.Tags()["scalars"]) == ["eval/mean_reward", "train/entropy"]
    assert [(e.step, e.value) for e in events.Scalars("eval/mean_reward")] == [
        (10, 10.0),
        (20, 20.0),
        (25, 25.0),
    ]
    assert math.isnan(events.Scalars("train/entropy")[-1].value)


def test_the_tensorboard_logger_loads_neither_torch_nor_tensorflow(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text("raise SystemExit('TensorFlow was imported')")
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')")
    program = (
        "import sys; from pathlib import Path; from limelight.viewing.tensorboard import TensorBoardLogger\n"
        "assert not any(name.startswith('tensorboard') for name in sys.modules)\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        f"logger = TensorBoardLogger(Path({str(tmp_path / 'events')!r}))\n"
        "logger.log(1, 0.1, {'a': 1.0}); logger.close()\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_shows_episodes_over_episodes(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    for step, count in ((10, 0), (20, 3), (30, 7)):
        row = {"rollout/episodes": count, "rollout/ep_rew_mean": 2.0 * count, "rollout/ep_rew_max": 5.0 * count}
        logger.log(step, 0.1, row)
    logger.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("over_episodes/ep_rew_mean")] == [(3, 6.0), (7, 14.0)]
    assert [(e.step, e.value) for e in events.Scalars("over_episodes/ep_rew_max")] == [(3, 15.0), (7, 35.0)]


# --------------------------------------------------------------------------- the environment's own numbers


def told(numbers: dict[str, float], step: int = 0) -> Episode:
    return Episode(0, 1.0, 10, True, step, info=EpisodeInfo(numbers, {}))


def test_monitor_has_a_column_for_each_number_and_resumes_with_them(tmp_path: Path) -> None:
    path = tmp_path / "monitor.csv"
    logger = MonitorCsvLogger(path, "Env", 0.0, info_keys=["a,b"])
    tail = Tail(path)
    logger.episodes(1, 0.1, [told({"a,b": 0.25}, 1), told({}, 2)])
    assert len(tail.lines()) == 4
    logger.episodes(3, 0.2, [told({"is_success": 1.0}, 3)])
    logger.close()
    assert path.read_text().splitlines()[1:] == [
        'r,l,t,step,env,worker,"a,b",is_success', "1.0,10,0.1,1,0,0,0.25,", "1.0,10,0.1,2,0,0,,", "1.0,10,0.2,3,0,0,,1",
    ]  # fmt: skip
    assert tail.lines() == ["1.0,10,0.2,3,0,0,,1"], "lines that were read before are not read again"
    resumed = MonitorCsvLogger(path, "Env", 0.0, resume_step=2, info_keys=["a,b"])
    resumed.episodes(3, 0.3, [told({"is_success": 0.0, "a,b": 2.0}, 3)])
    resumed.close()
    assert path.read_text().splitlines()[-1] == "1.0,10,0.3,3,0,0,2,0"


@pytest.mark.parametrize("algo", ["a2c", "a3c"])
def test_a_run_logs_the_numbers_of_its_environment(
    algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    draw_no_report(monkeypatch)
    config = quick_config(
        algo, env_id="helpers.informing_envs:Informs", total_timesteps=240, log_every=60, num_steps=6,
        info_keys=("sum:cost", "distance", "typo"), run_dir=str(tmp_path / "run"), eval_every=240, eval_episodes=2,
    )  # fmt: skip
    run(config)
    rows = read_jsonl(tmp_path / "run" / "metrics.jsonl")
    last = next(row for row in reversed(rows) if "env/is_success" in row)
    assert last["env/sum:cost"] == 3.0
    assert 0.3 < last["env/is_success"] < 0.7
    assert last["env/distance"] > 0.0
    assert "env/typo" not in last
    assert next(row for row in rows if "eval/success_rate" in row)["eval/success_rate"] == 1.0
    lines = (tmp_path / "run" / "monitor.csv").read_text().splitlines()
    assert lines[1] == "r,l,t,step,env,worker,sum:cost,distance,typo,is_success"
    assert lines[2].split(",")[6:] == ["3", "0", "", "1"]
    assert "info_keys = typo: none of" in capsys.readouterr().err
    assert len(read_run(tmp_path / "run").episodes.values) == len(lines) - 2


def test_numbers_survive_a_resume_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)
    settings: dict[str, Any] = {
        "env_id": "helpers.informing_envs:Informs", "info_keys": ("sum:cost",), "num_steps": 4, "log_every": 40,
    }  # fmt: skip
    whole, parts = str(tmp_path / "whole"), str(tmp_path / "parts")
    run(quick_config("a2c", total_timesteps=160, run_dir=whole, **settings), quiet=True)
    run(quick_config("a2c", total_timesteps=80, run_dir=parts, **settings), quiet=True)
    resume(parts, total_timesteps=160, quiet=True)
    keys = ("env/sum:cost", "env/is_success", "rollout/episodes")
    mine, theirs = (read_jsonl(Path(folder) / "metrics.jsonl") for folder in (parts, whole))
    assert [row[key] for row in mine for key in keys] == [row[key] for row in theirs for key in keys]


def test_events_are_written_where_the_package_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def writes(**settings: Any) -> bool:
        return writes_tensorboard(with_settings(TrainConfig(), settings))

    assert writes()
    assert not writes(tensorboard=False)
    assert writes(tensorboard=False, logger=("tensorboard",))
    monkeypatch.setattr("limelight.viewing.tensorboard.find_spec", lambda name: None)
    assert not writes()
