"""The environment's own numbers: read at the end of episodes, the same in every backend and autoreset mode."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from helpers.informing_envs import Informs, InformsVector
from limelight.envs.base import EnvBackend
from limelight.envs.episode_info import EpisodeInfo, InfoNotes, SumInfo, read_info
from limelight.envs.gymnasium_backend import VectorBackend
from limelight.envs.make import make_envs

KEYS = ("distance", "rare", "sum:cost")


def summed_vector(mode: AutoresetMode) -> VectorBackend:
    return VectorBackend(SyncVectorEnv([Informs] * 2, autoreset_mode=mode), "x", KEYS)


BACKENDS: dict[str, Callable[[], EnvBackend]] = {
    **{
        f"sync-{mode}": lambda mode=mode: make_envs(Informs, 2, backend="sync", autoreset_mode=mode, info_keys=KEYS)
        for mode in ("next_step", "same_step", "disabled")
    },
    **{f"vector-{mode.name}": lambda mode=mode: summed_vector(mode) for mode in AutoresetMode},
    "own-vector": lambda: VectorBackend(InformsVector(), "x", KEYS),
    "own-vector-without-masks": lambda: VectorBackend(InformsVector(masks=False), "x", KEYS),
    "async": lambda: make_envs(Informs, 2, backend="async", info_keys=KEYS),
    "async-same": lambda: make_envs(Informs, 2, backend="async", autoreset_mode="same_step", info_keys=KEYS),
}


@pytest.mark.parametrize("name", BACKENDS)
def test_every_backend_reads_the_same_numbers(name: str) -> None:
    envs = BACKENDS[name]()
    try:
        envs.reset(seed=0)
        found: list[EpisodeInfo] = []
        while len(found) < 8:
            step = envs.step(np.zeros(2, np.int64))
            assert (step.ends is not None) == bool((step.terminated | step.truncated).any())
            found += (step.ends or {}).values()
    finally:
        envs.close()
    for i, info in enumerate(found):
        episode = i // 2
        expected = {"is_success": float(episode % 2 == 0), "distance": episode / 4, "sum:cost": 3.0}
        if episode % 3 == 0:
            expected["rare"] = float(episode)
        assert info.numbers == expected
        assert info.faults == {}
        assert ("cost" in info.present) == (episode % 3 != 0), "the keys are told where one is missing"


def test_nothing_is_read_where_there_is_nothing() -> None:
    assert read_info({}) is read_info({"x": 1}) is read_info("no mapping") is None
    assert read_info({"success": True}) == EpisodeInfo({"success": 1.0}, {})


@pytest.mark.parametrize("value", [True, 1, 1.0, np.float16(1), np.array([1]), [1.0], np.bool_(True)])
def test_every_form_of_a_number_is_one(value: Any) -> None:
    assert read_info({"x": value}, ["x"]) == EpisodeInfo({"x": 1.0}, {})


@pytest.mark.parametrize("value", ["far", None, {"a": 1}, [1, 2], math.nan, -math.inf])
def test_all_else_is_a_fault_and_no_number(value: Any) -> None:
    info = read_info({"x": value}, ["x"])
    assert info is not None
    assert info.numbers == {}
    assert "is no" in info.faults["x"]


def test_a_sum_over_values_that_are_no_numbers_is_a_fault() -> None:
    env = SumInfo(Informs(), ("text", "undefined"))
    env.reset()
    for _ in range(3):
        *_, info = env.step(0)
    found = read_info(info, ["sum:text", "sum:undefined"])
    assert found is not None
    assert found.numbers == {"is_success": 1.0}
    assert "'far'" in found.faults["sum:text"]
    assert "nan" in found.faults["sum:undefined"]


def test_notes_tell_a_wrong_value_once_and_a_missing_key_after_twenty_episodes() -> None:
    notes = InfoNotes(["distanse", "text"])
    info = read_info({"distance": 1.0, "text": "far"}, ["distanse", "text"])
    assert info is not None
    assert notes.take([info]) == ["info_keys = text: 'far' (str) is no number; such episodes are left out of env/text"]
    assert notes.take([info] * 18) == []
    (line,) = notes.take([info] * 5)
    assert line == (
        "info_keys = distanse: none of 20 episodes had it in the info at their end, which has: distance, text; "
        "did you mean distance?"
    )
    assert notes.take([info] * 50) == notes.end() == []


def test_a_key_that_some_episodes_have_is_not_missing() -> None:
    notes = InfoNotes(["rare"])
    infos = [read_info({"rare": 1} if i == 3 else {}, ["rare"]) for i in range(60)]
    assert notes.take([info for info in infos if info is not None]) == []
