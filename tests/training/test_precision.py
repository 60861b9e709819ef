"""Device and precision: the rules of ``auto``, their messages, and agents that load wherever they were trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, Space

import limelight
from limelight.envs.toy import Catch
from limelight.errors import ConfigError
from limelight.nn.images import ImageEncoder
from limelight.nn.model import make_model
from limelight.runs.agent import Agent
from limelight.settings.io import with_settings
from limelight.settings.schema import ModelConfig, TrainConfig
from limelight.spaces.packed import Packed
from limelight.training import precision as precision_module
from limelight.training.precision import (
    choose_device,
    choose_precision,
    has_convolutions,
    is_amd,
    prefers_bfloat16,
)
from limelight.training.prepare import prepare
from limelight.training.presets import resolve_config

IMAGE, CODES, REAL = Box(0, 255, (36, 36), np.uint8), Box(0, 10, (7, 7, 3), np.uint8), Box(-1.0, 1.0, (3,))
AVX512, AMX = "_is_avx512_bf16_supported", "_is_amx_tile_supported"


def simulate_processor(monkeypatch: pytest.MonkeyPatch, *instructions: str, vendor: str = "GenuineIntel") -> None:
    """Let the processor have these instructions alone, and be made by that vendor."""
    monkeypatch.setattr(precision_module, "is_amd", lambda: vendor == "AuthenticAMD")
    for name in (AVX512, AMX):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name in instructions, raising=False)


@pytest.mark.parametrize(
    ("vendor", "instructions", "expected"),
    [
        ("GenuineIntel", (), False),
        ("GenuineIntel", (AVX512,), False),
        ("GenuineIntel", (AMX,), True),
        ("GenuineIntel", (AVX512, AMX), True),
        ("AuthenticAMD", (), False),
        ("AuthenticAMD", (AVX512,), True),
    ],
)
def test_instructions_and_vendor_decide(
    monkeypatch: pytest.MonkeyPatch, vendor: str, instructions: tuple[str, ...], expected: bool
) -> None:
    simulate_processor(monkeypatch, *instructions, vendor=vendor)
    assert prefers_bfloat16("cpu") is expected
    for name in (AVX512, AMX):  # another version of PyTorch
        monkeypatch.delattr(torch.cpu, name)
    assert prefers_bfloat16("cpu") is False


@pytest.mark.parametrize(("vendor", "expected"), [("AuthenticAMD", True), ("GenuineIntel", False)])
def test_the_vendor_is_read_from_the_system(
    vendor: str, expected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision_module, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(precision_module.platform, "processor", lambda: f"AMD64 Family 25 Model 1, {vendor}")
    assert is_amd() is expected  # as on Windows
    (tmp_path / "cpuinfo").write_bytes(f"processor\t: 0\nvendor_id\t: {vendor}\nmodel name\t: \xff\n".encode("latin-1"))
    monkeypatch.setattr(precision_module.platform, "processor", lambda: pytest.fail("not needed"))
    assert is_amd() is expected


def test_emulation_by_a_gpu_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or native)  # noqa: B023
        assert prefers_bfloat16("cuda") is native


@pytest.mark.parametrize(
    ("space", "encoder", "expected"),
    [
        (IMAGE, None, True),
        (IMAGE, "impala", True),
        (IMAGE, "my_nets:Own", False),
        (Packed(Dict({"camera": IMAGE, "speed": REAL})), None, True),
        (Packed(Dict({"map": CODES, "speed": REAL})), None, False),
        (CODES, None, False),
        (Box(0, 255, (8, 8, 3), np.uint8), None, False),  # too small to gain by it
        (Box(0, 9, (40, 40, 3), np.uint8), None, False),
        (REAL, None, False),
        (Discrete(3), None, False),
    ],
)
def test_auto_is_bfloat16_for_convolutions_on_a_fitting_processor(
    monkeypatch: pytest.MonkeyPatch, space: Space[Any], encoder: str | None, expected: bool
) -> None:
    config = ModelConfig(encoder=encoder)
    assert has_convolutions(space, config) is expected
    simulate_processor(monkeypatch, AMX)
    for _ in range(2):  # every start decides the same
        precision, note = choose_precision(config, "cpu", lambda: space)
        assert precision == ("bfloat16" if expected else "float32")
        assert (note is not None) is expected
        assert note is None or note.startswith("precision bfloat16: ")
    for instructions in ((), (AVX512,)):
        simulate_processor(monkeypatch, *instructions)
        assert choose_precision(config, "cpu", not_called) == ("float32", None)


def not_called() -> Space[Any]:
    raise AssertionError("an environment was made for nothing")


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("native", [True, False])
def test_a_precision_that_is_asked_for_is_taken(
    monkeypatch: pytest.MonkeyPatch, native: bool, device: Literal["cpu", "cuda"]
) -> None:
    simulate_processor(monkeypatch, *((AVX512, AMX) if native else ()))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert choose_precision(ModelConfig(precision="float32"), device, not_called) == ("float32", None)
    precision, note = choose_precision(ModelConfig(precision="bfloat16"), device, not_called)
    assert precision == "bfloat16"
    assert (note is None) is native
    assert note is None or ("slower than float32" in note and "\n" not in note)


@pytest.mark.parametrize(
    ("space", "has_workers", "expected"),
    [(IMAGE, False, "cuda"), (IMAGE, True, "cpu"), (REAL, False, "cpu"), (CODES, False, "cpu")],
)
def test_auto_takes_a_gpu_for_images_alone(
    monkeypatch: pytest.MonkeyPatch, space: Space[Any], has_workers: bool, expected: str
) -> None:
    for is_there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda is_there=is_there: is_there)
        device, note = choose_device("auto", has_workers, ModelConfig(), lambda: space)
        assert device == (expected if is_there else "cpu")
        assert (note is not None) is is_there
        assert note is None or note.startswith(f"device {expected}: there is a GPU, ")
        for asked in ("cpu", "cuda"):
            assert choose_device(asked, has_workers, ModelConfig(), not_called) == (asked, None)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("algo", ["a2c", "a3c"])
def test_a_run_saves_the_precision_that_auto_means(monkeypatch: pytest.MonkeyPatch, native: bool, algo: str) -> None:
    simulate_processor(monkeypatch, *((AVX512, AMX) if native else ()))
    notes: list[str] = []
    prepared = prepare(
        resolve_config("limelight.envs.toy:Catch", algo, "plain", {"backend": "sync"}), None, notes.append
    )
    assert prepared.model.precision == ("bfloat16" if native else "float32")
    assert [line.startswith("precision bfloat16: ") for line in notes] == ([True] if native else [])
    assert prepare(prepared, None).model == prepared.model
    assert prepare(resolve_config("CartPole-v1", algo, "plain", {}), None).model.precision == "float32"


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_without_convolutions_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, native: bool
) -> None:
    simulate_processor(monkeypatch, *((AVX512, AMX) if native else ()))
    with pytest.raises(ConfigError, match=r"^precision = bfloat16: .* this one has none; leave it auto$"):
        limelight.train("CartPole-v1", precision="bfloat16", run_dir=str(tmp_path / "r"), quiet=True)
    assert not (tmp_path / "r").exists()


def test_an_agent_loads_where_there_are_no_instructions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It acts as it did."""
    env = Catch()
    config = with_settings(TrainConfig(), {"encoder": "a3c", "precision": "bfloat16"})
    spaces = env.observation_space, env.action_space
    agent = Agent(make_model(*spaces, config.model, 0), None, config, *spaces)
    agent.save(tmp_path / "agent")
    simulate_processor(monkeypatch)
    loaded = limelight.load(tmp_path / "agent")
    assert isinstance(loaded.model.encoder, ImageEncoder)
    assert loaded.model.encoder.dtype == torch.bfloat16
    obs = np.random.default_rng(0).integers(0, 256, (9, 36, 36)).astype(np.uint8)
    np.testing.assert_array_equal(loaded.predict(obs)[0], agent.predict(obs)[0])
