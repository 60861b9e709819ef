"""float32 or bfloat16: what ``auto`` comes to, what is said, and that an agent loads wherever it was trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    bfloat16_speedup,
    choose_device,
    choose_precision,
    convolved_pictures,
    has_bfloat16,
)
from limelight.training.presets import resolve
from limelight.training.run import prepare

PICTURE, CODES, REAL = Box(0, 255, (36, 36), np.uint8), Box(0, 10, (7, 7, 3), np.uint8), Box(-1.0, 1.0, (3,))
FLAGS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def processor(monkeypatch: pytest.MonkeyPatch, *flags: str, gain: float = 3.0) -> None:
    """As if the processor had these instructions alone, and were so much faster by them."""
    monkeypatch.setattr(precision_module, "bfloat16_speedup", lambda picture, network: gain)
    for name in FLAGS:
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name in flags, raising=False)


@pytest.mark.parametrize("flags", [(), *((flag,) for flag in FLAGS), FLAGS])
def test_the_processors_instructions_count(monkeypatch: pytest.MonkeyPatch, flags: tuple[str, ...]) -> None:
    processor(monkeypatch, *flags)
    assert has_bfloat16("cpu") is bool(flags)
    for name in FLAGS:  # an older PyTorch
        monkeypatch.delattr(torch.cpu, name)
    assert has_bfloat16("cpu") is False


def test_emulation_by_a_gpu_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    for native in (True, False):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or native)  # noqa: B023
        assert has_bfloat16("cuda") is native


@pytest.mark.parametrize(
    ("space", "encoder", "expected"),
    [
        (PICTURE, None, True),
        (PICTURE, "impala", True),
        (PICTURE, "my_nets:Own", False),
        (Packed(Dict({"camera": PICTURE, "speed": REAL})), None, True),
        (Packed(Dict({"map": CODES, "speed": REAL})), None, False),
        (CODES, None, False),
        (Box(0, 255, (8, 8, 3), np.uint8), None, False),  # so small that it would not pay
        (Box(0, 9, (40, 40, 3), np.uint8), None, False),
        (REAL, None, False),
        (Discrete(3), None, False),
    ],
)
def test_auto_is_for_pictures(
    monkeypatch: pytest.MonkeyPatch, space: Space[Any], encoder: str | None, expected: bool
) -> None:
    config = ModelConfig(encoder=encoder)
    assert bool(convolved_pictures(space, config)) is expected
    processor(monkeypatch, *FLAGS)
    for gain in (3.0, 1.1, 0.9):
        processor(monkeypatch, *FLAGS, gain=gain)
        precision, said = choose_precision(config, "cpu", lambda: space)
        assert precision == ("bfloat16" if expected and gain > 1.2 else "float32")
        assert (said is not None) is expected
        assert said is None or said.startswith(f"precision {precision}: bfloat16 was just timed at {gain} × ")
    processor(monkeypatch)
    assert choose_precision(config, "cpu", not_asked) == ("float32", None)


@pytest.mark.parametrize("network", [None, "a3c", "impala"])  # of which the last keeps nothing
def test_the_gain_is_measured_and_draws_nobody_elses_numbers(network: str | None) -> None:
    before = torch.random.get_rng_state()
    assert 0.01 < bfloat16_speedup(PICTURE, network) < 100.0
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_gain_is_of_one_thread_in_turns_and_of_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a run computes; and so that neither other processes nor what comes first decides."""
    seen = []

    def seconds(once: Callable[[], None]) -> float:
        seen.append((once, torch.get_num_threads()))
        return [9.0, 9.0, 3.0, 8.0, 2.0, 1.0, 4.0, 8.0][len(seen) - 1]

    monkeypatch.setattr(precision_module, "_seconds", seconds)
    before = torch.get_num_threads()
    assert bfloat16_speedup(PICTURE, None) == 2.0
    assert torch.get_num_threads() == before
    works = [once for once, _ in seen]
    assert works == works[:2] * 4
    assert works[0] is not works[1]
    assert {threads for _, threads in seen} == {1}


def not_asked() -> Space[Any]:
    raise AssertionError("an environment was made for nothing")


@pytest.mark.parametrize("native", [True, False])
def test_what_was_asked_for_is_taken(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    processor(monkeypatch, *(FLAGS if native else ()))
    assert choose_precision(ModelConfig(precision="float32"), "cpu", not_asked) == ("float32", None)
    precision, said = choose_precision(ModelConfig(precision="bfloat16"), "cpu", not_asked)
    assert precision == "bfloat16"
    assert (said is None) is native
    assert said is None or ("slow" in said and "\n" not in said)


@pytest.mark.parametrize(
    ("space", "has_workers", "expected"),
    [(PICTURE, False, "cuda"), (PICTURE, True, "cpu"), (REAL, False, "cpu"), (CODES, False, "cpu")],
)
def test_auto_takes_a_gpu_for_pictures_alone(
    monkeypatch: pytest.MonkeyPatch, space: Space[Any], has_workers: bool, expected: str
) -> None:
    for is_there in (True, False):
        monkeypatch.setattr(torch.cuda, "is_available", lambda is_there=is_there: is_there)
        device, said = choose_device("auto", has_workers, ModelConfig(), lambda: space)
        assert device == (expected if is_there else "cpu")
        assert (said is not None) is is_there
        assert said is None or said.startswith(f"device {expected}: there is a GPU, ")
        for asked in ("cpu", "cuda"):
            assert choose_device(asked, has_workers, ModelConfig(), not_asked) == (asked, None)


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("algo", ["a2c", "a3c"])
def test_a_run_saves_what_auto_came_to(monkeypatch: pytest.MonkeyPatch, native: bool, algo: str) -> None:
    processor(monkeypatch, *(FLAGS if native else ()))
    said: list[str] = []
    prepared = prepare(resolve("limelight.envs.toy:Catch", algo, "none", {"backend": "sync"}), None, said.append)
    assert prepared.model.precision == ("bfloat16" if native else "float32")
    assert [line.startswith("precision bfloat16: ") for line in said] == ([True] if native else [])
    assert prepare(prepared, None).model == prepared.model
    assert prepare(resolve("CartPole-v1", algo, "none", {}), None).model.precision == "float32"


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_without_convolutions_is_refused_before_anything_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, native: bool
) -> None:
    processor(monkeypatch, *(FLAGS if native else ()))
    with pytest.raises(ConfigError, match=r"^precision = bfloat16: .* this one has none; leave it auto$"):
        limelight.train("CartPole-v1", precision="bfloat16", run_dir=str(tmp_path / "r"), quiet=True)
    assert not (tmp_path / "r").exists()


def test_an_agent_loads_where_there_are_no_instructions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And acts as it did."""
    env = Catch()
    config = with_settings(TrainConfig(), {"encoder": "a3c", "precision": "bfloat16"})
    spaces = env.observation_space, env.action_space
    agent = Agent(make_model(*spaces, config.model, 0), None, config, *spaces)
    agent.save(tmp_path / "agent")
    processor(monkeypatch)
    loaded = limelight.load(tmp_path / "agent")
    assert isinstance(loaded.model.encoder, ImageEncoder)
    assert loaded.model.encoder.dtype == torch.bfloat16
    obs = np.random.default_rng(0).integers(0, 256, (9, 36, 36)).astype(np.uint8)
    np.testing.assert_array_equal(loaded.predict(obs)[0], agent.predict(obs)[0])
