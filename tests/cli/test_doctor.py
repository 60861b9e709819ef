"""``limelight doctor``: what it finds on this machine, what it advises, and that its self-test can fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import limelight
from limelight.cli import doctor
from limelight.cli import main as cli


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return doctor.examine(tmp_path_factory.mktemp("doctor"))


def test_a_healthy_machine_passes_and_every_kind_of_fact_has_a_line(facts: dict[str, Any]) -> None:
    assert facts["self_test"]["passed"], facts["self_test"]
    assert facts["self_test"]["hashes"][0] == facts["self_test"]["hashes"][1]
    text = "\n".join(doctor.as_lines(facts))
    for word in ("versions", "machine", "cores", "arithmetic", "shared memory", "GPU", "self-test", "equal parameters"):
        assert word in text
    assert facts["versions"]["limelight-rl"] == limelight.__version__


def test_the_command_prints_json_alone(
    facts: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "examine", lambda: facts)
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cores"]["usable"] >= 1
    assert found["advice"] == doctor.advice(facts)
    broken = {**facts, "self_test": {"passed": False, "reason": "EnvError: no room"}}
    monkeypatch.setattr(doctor, "examine", lambda: broken)
    assert cli.main(["doctor"]) == 1
    assert "the self-test failed: EnvError: no room" in capsys.readouterr().out


def test_a_resumed_run_with_other_parameters_fails_the_self_test(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resume = limelight.resume
    monkeypatch.setattr(limelight, "resume", lambda folder, quiet: resume(folder, quiet=quiet, total_timesteps=4_000))
    assert not doctor.self_test(tmp_path)["passed"]


def test_an_error_in_the_self_test_is_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: Any, **settings: Any) -> Any:
        raise OSError("no room")

    monkeypatch.setattr(limelight, "train", fails)
    assert doctor.self_test(tmp_path) == {"passed": False, "reason": "OSError: no room"}


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"}, 2.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_the_limit_of_a_container_is_read(files: dict[str, str], limit: float | None, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert doctor.cores(tmp_path)["container_limit"] == limit


def test_advice_follows_from_what_is_scarce(facts: dict[str, Any]) -> None:
    scarce = {
        **facts,
        "cores": {"machine": 8, "usable": 8, "container_limit": 1.5},
        "shared_memory": {"total": 64 << 20, "free": 30 << 20},
    }
    lines = doctor.advice(scarce)
    assert lines[0] == "the container grants 1.5 of 8 cores: --num-workers 1"
    assert lines[1] == "/dev/shm has 30 MiB free: workers need more; docker run --shm-size 1g"
    assert doctor.advice({**facts, "shared_memory": None}) == []


def test_extras_that_lack_a_package_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [
        "numpy>=1", "imageio-ffmpeg>=0.5; extra == 'video'", "no-such-package>=1; extra == 'cloud'",
        "gymnasium[nosuch]>=1.1,<2; extra == 'cloud'", "no-such-package>=1; extra == 'cloud'",
        "no-such-tool; extra == 'dev'",
    ]  # fmt: skip
    monkeypatch.setattr(doctor, "requires", lambda name: lines)
    monkeypatch.setattr(doctor, "_extras", lambda: ["video", "cloud", "dev"])
    assert doctor.missing_extras() == {"cloud": ["no-such-package", "nosuch"]}
