"""Comparison of an exported file with ``Agent.predict``, on the same observations and the same noise."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from limelight.runs.export.module import compute_in_float32
from limelight.runs.export.ports import (
    EPISODE_START,
    NEXT_STATE,
    NOISE,
    PARAMS,
    STATE,
    Arrays,
    Ports,
    actions,
    observations,
)
from limelight.runs.export.recording import Recording
from limelight.runs.rows import forward, read_row
from limelight.spaces.packed import MASK_KEY, Packed

if TYPE_CHECKING:
    from limelight.runs.agent import Agent

LARGEST_DIFFERENCE = 1e-5
_MOST_ROWS = 128
"""Observations that a file computes at once."""
Run = Callable[[Arrays], Arrays]
"""Computes the outputs of an exported file."""


class Parity(NamedTuple):
    """How far an exported file is from the agent."""

    difference: float
    """The largest |file − agent| / max(1, |agent|) over actions, distribution parameters and states."""
    output: str
    """Where it is."""
    observations: int
    ties: int
    """Discrete actions that differ, though both are right to rounding: of equal probability, or at the edge of it."""


class _Answers(NamedTuple):
    """The outputs that a file should give, and the noise to give it."""

    outputs: Arrays
    """[T, B, ...]."""
    state: NDArray[np.float32] | None
    """The policy's state after the last row, [B, S]."""
    noise: NDArray[np.float32]
    """[T, B, A]."""


def compare(agent: Agent, run: Run, ports: Ports, recording: Recording, seed: int) -> Parity:
    """Return the difference of a file from ``agent.predict``, one observation at first and then all that follow.

    Args:
        agent: is not changed.
        run: computes the file.
        ports: its inputs and outputs; with noise, its actions are sampled.
        recording: the observations.
        seed: of the noise.
    """
    T, B = recording.episode_start.shape
    answers = _predict(agent, recording, bool(ports.noise), seed)
    given = {**observations(agent.observation_space, recording.obs), EPISODE_START: recording.episode_start}
    if ports.noise:
        given[NOISE] = answers.noise
    outputs = _run_unrolled(run, ports, given, B) if "time" in ports.axes else _run_batches(run, ports, given)
    found = {name: array.reshape(T, B, *array.shape[len(ports.axes) :]) for name, array in outputs.items()
             if name != NEXT_STATE}  # fmt: skip
    differences, ties = _differences(agent, found, answers)
    if answers.state is not None:
        differences[NEXT_STATE] = _largest(outputs[NEXT_STATE], answers.state)
    output = max(differences, key=lambda name: differences[name])
    return Parity(differences[output], output, T * B, ties)


def _predict(agent: Agent, recording: Recording, sampled: bool, seed: int) -> _Answers:
    """Return what ``agent`` predicts of every row, and the noise that it drew."""
    agent = copy.deepcopy(agent)
    compute_in_float32(agent.model)
    rng = np.random.default_rng(seed)
    agent.__setstate__((False, None, {"rng": rng.bit_generator.state, "noise": None}))
    B, state, rows, noise = recording.episode_start.shape[1], None, list[Arrays](), []
    for obs, start in zip(recording.obs, recording.episode_start, strict=True):
        nested, masks = _as_given(agent, obs)
        row = read_row(agent.observation_space, agent.action_space, agent.model.state_size, nested, state, start, masks)
        params = forward(agent.model, row._replace(obs=agent.normalize(row.obs))).params[0].numpy()
        noise.append(agent.model.distribution.noise(rng, B) if sampled else np.zeros((B, 0), np.float32))
        found, state = agent.predict(nested, state, start, not sampled, masks)
        rows.append({**actions(agent.action_space, found), PARAMS: params})
    outputs = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    own = None if state is None else state[:, : agent.model.core.state_size]
    return _Answers(outputs, own, np.stack(noise))


def _as_given(agent: Agent, obs: NDArray[Any]) -> tuple[Any, NDArray[Any] | None]:
    """Return observations [B, *obs_shape] as the environment gives them, and the masks of its info."""
    space = agent.observation_space
    nested = space.unpack(obs) if isinstance(space, Packed) else obs
    if isinstance(space, Packed) and space.mask_source == "info":
        return nested["observation"], nested[MASK_KEY]
    return nested, None


def _run_batches(run: Run, ports: Ports, given: Arrays) -> Arrays:
    """Run a policy without memory on batches of several sizes: 1, then more."""
    names = [port.name for port in ports.inputs]
    flat = {name: given[name].reshape(-1, *given[name].shape[2:]) for name in names}
    count = len(next(iter(flat.values())))
    parts = [run({name: array[part] for name, array in flat.items()}) for part in _stretches(count, _MOST_ROWS)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _run_unrolled(run: Run, ports: Ports, given: Arrays, batch: int) -> Arrays:
    """Run a policy with memory over stretches of time, one row and then more, and pass its state on."""
    (size,) = next(port.shape for port in ports.inputs if port.name == STATE)
    state, parts = np.zeros((batch, size), np.float32), []
    for part in _stretches(len(given[EPISODE_START]), max(2, _MOST_ROWS // batch)):
        inputs = {port.name: state if port.name == STATE else given[port.name][part] for port in ports.inputs}
        parts.append(run(inputs))
        state = parts[-1][NEXT_STATE]
    outputs = {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if name != NEXT_STATE}
    return {**outputs, NEXT_STATE: state}


def _stretches(length: int, most: int) -> list[slice]:
    """Return the parts of a sequence: its first item, then at most ``most`` at a time."""
    return [slice(0, 1), *(slice(start, start + most) for start in range(1, length, most))]


def _differences(agent: Agent, found: Arrays, answers: _Answers) -> tuple[dict[str, float], int]:
    """Return the largest difference of each output, and the number of ties among discrete actions."""
    params = torch.from_numpy(found[PARAMS])
    distribution = agent.model.distribution
    sampled = answers.noise.shape[-1] > 0
    drawn = distribution.sample(params, torch.from_numpy(answers.noise)) if sampled else distribution.mode(params)
    T, B = params.shape[:2]
    vectors = distribution.to_env(drawn.numpy().reshape(T * B, *drawn.shape[2:]))
    space = agent.action_space
    of_params = actions(space, space.unpack(vectors) if isinstance(space, Packed) else vectors)
    differences, ties = {}, 0
    for name, expected in answers.outputs.items():
        array = found[name]
        if array.dtype.kind in "iub":  # the parameters, of which they are made, are compared too
            is_tie = (array != expected) & (array == of_params[name].reshape(array.shape))
            ties += int(is_tie.sum())
            array = np.where(is_tie, expected, array)
        differences[name] = _largest(array, expected)
    return differences, ties


def _largest(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Return the largest difference, relative to expected numbers beyond ±1; infinite if a number is not finite."""
    if found.shape != expected.shape:
        return float("inf")
    wanted = expected.astype(np.float64)
    differences = np.abs(found.astype(np.float64) - wanted) / np.maximum(1.0, np.abs(wanted))
    return float(np.nan_to_num(differences, nan=np.inf).max(initial=0.0))
