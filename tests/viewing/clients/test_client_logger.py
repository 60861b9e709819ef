"""Loggers by name: what a client receives, resumes and faults; the real clients, offline, where they are installed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from helpers.manual_workers import draw_no_report, quick_config
from helpers.settings import one_line
from limelight.cli.main import main
from limelight.errors import ConfigError
from limelight.training.run import resume, run
from limelight.viewing.clients.client_logger import SERVICES, ClientLogger, load_loggers


class FakeClient:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def start(self, run_dir: Path, name: str, settings: dict[str, Any], run_id: str, is_resumed: bool) -> str:
        self.calls.append(("start", name, settings["env"]["env_id"], run_id, is_resumed))
        return run_id

    def log(self, step: int, metrics: dict[str, float]) -> None:
        assert all(math.isfinite(value) for value in metrics.values())
        self.calls.append(("log", step, metrics))

    def video(self, path: Path) -> None:
        self.calls.append(("video", path.name))

    def agent(self, folder: Path) -> None:
        self.calls.append(("agent", folder.parent.name if folder.name.startswith("step") else folder.name))

    def finish(self) -> None:
        self.calls.append(("finish",))

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] == name]


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)


def settings(folder: Path, **more: Any) -> Any:
    return quick_config("a2c", total_timesteps=40, log_every=10, run_dir=str(folder), **more)


def test_a_client_gets_settings_rows_videos_and_the_agent_and_the_same_id_on_resume(tmp_path: Path) -> None:
    folder, first, second = tmp_path / "run", FakeClient(), FakeClient()
    logger = ClientLogger("fake", first)
    run(settings(folder), quiet=True, loggers=[logger])
    assert first.calls[0][:3] == ("start", "run", "CartPole-v1")
    steps = [row[1] for row in first.named("log")]
    assert steps[:2] == [10, 20]
    assert steps[-1] >= 40
    assert "time/fps" in first.named("log")[0][2]
    assert [call[0] for call in first.calls[-2:]] == ["agent", "finish"]
    assert first.calls[-2] == ("agent", "checkpoints"), "none was evaluated"
    (folder / "videos").mkdir()
    (folder / "videos" / "best.mp4").write_bytes(b"x")
    for expected in ([("video", "best.mp4")], []):
        second = FakeClient()
        resume(
            folder,
            total_timesteps=60,
            eval_every=20,
            eval_episodes=1,
            quiet=True,
            loggers=[ClientLogger("fake", second)],
        )
        assert second.calls[0][3:] == (first.calls[0][3], True)
        assert second.named("video") == expected, "a video is sent once"
    assert second.calls[-2] == ("agent", "best")


def test_rows_that_are_not_finite_are_left_out(tmp_path: Path) -> None:
    client = FakeClient()
    ClientLogger("fake", client).log(1, 0.5, {"a": math.nan, "b": 1.0})
    assert client.calls == [("log", 1, {"time/seconds": 0.5, "b": 1.0})]


def test_a_service_that_refuses_is_one_line(tmp_path: Path) -> None:
    class Refuses(FakeClient):
        def start(self, *args: Any) -> str:
            raise OSError("no\nnetwork")

    with pytest.raises(ConfigError) as error:
        run(settings(tmp_path / "run"), quiet=True, loggers=[ClientLogger("fake", Refuses())])
    assert one_line(error) == "logger = fake: cannot start (no network)"


def test_a_service_that_fails_later_is_a_note_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails(FakeClient):
        def log(self, step: int, metrics: dict[str, float]) -> None:
            raise OSError("no network")

    client = Fails()
    assert run(settings(tmp_path / "run"), quiet=True, loggers=[ClientLogger("fake", client)]).status == "completed"
    assert [record.getMessage() for record in caplog.records] == [
        "limelight: note: logger = fake: log failed (no network)"
    ]
    assert client.calls[-1] == ("finish",)


@pytest.mark.parametrize("name", [*SERVICES, "tensorboard"])
def test_a_missing_client_names_the_extra(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("limelight.viewing.clients.client_logger.find_spec", lambda name: None)
    with pytest.raises(ConfigError) as error:
        run(settings(tmp_path / "run", logger=(name,)), quiet=True)
    assert one_line(error) == f"logger = {name}: {name} is not installed; pip install 'limelight-rl[{name}]'"
    assert not (tmp_path / "run").exists(), "before anything is written"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wandbb", "logger = wandbb: must be tensorboard | wandb | swanlab | mlflow | trackio | package.module:Class"),
        ("helpers.callbacks:Recorder", "has no log, episodes, message, close"),
        ("helpers.no_such:A", "cannot import helpers.no_such"),
    ],
)
def test_a_wrong_name_is_one_line(text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "CartPole-v1", "--logger", text]) == 2
    assert message in capsys.readouterr().err


def test_tensorboard_is_what_it_was(tmp_path: Path) -> None:
    config = settings(tmp_path / "run", logger=("tensorboard",))
    assert load_loggers(config, []) == []
    run(config, quiet=True)
    assert list((tmp_path / "run").glob("events.out.tfevents.*")), "though tensorboard = false"


# --------------------------------------------------------------------------- the real clients, offline


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("WANDB_MODE", "SWANLAB_MODE"):
        monkeypatch.setenv(name, "offline")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SERVICES)
@pytest.mark.usefixtures("_offline")
def test_the_real_client_keeps_a_run_offline_and_resumes_it(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name, reason=f"{name} is not installed")
    folder = tmp_path / "runs" / "one"
    run(settings(folder, logger=(name,)), quiet=True)
    first = json.loads((folder / "loggers.json").read_text())[name]["id"]
    resume(folder, total_timesteps=60, quiet=True)
    assert json.loads((folder / "loggers.json").read_text())[name]["id"] == first
    kept = {
        "wandb": lambda: list((folder / "wandb").glob("offline-run-*/*.wandb")),
        "swanlab": lambda: list((folder / "swanlog").iterdir()),
        "mlflow": lambda: list((tmp_path / "runs" / "mlruns").glob(f"*/{first}/metrics/time/fps")),
        "trackio": lambda: list((tmp_path / "trackio").rglob("*.db")),
    }[name]()
    assert kept
    if name == "mlflow":
        steps = [int(line.split()[2]) for line in kept[0].read_text().splitlines()]
        assert steps[:2] == [10, 20]
        assert steps == sorted(set(steps))
        assert steps[-1] >= 60
        assert list((tmp_path / "runs" / "mlruns").glob(f"*/{first}/artifacts/agent/state.json"))
