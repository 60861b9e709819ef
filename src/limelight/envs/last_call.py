"""A record of the last call of each environment in memory that outlives the process, which its C code may end."""

from __future__ import annotations

from typing import Any, final

import numpy as np
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from numpy.typing import NDArray

LAST_ACTIONS = 5
_NUMBERS = 8
"""Numbers of an action that are recorded, at most."""
_SEED, _STEP, _SIZE, _FIRST_ACTION = range(4)
COLUMNS = _FIRST_ACTION + LAST_ACTIONS * _NUMBERS
"""Of a row: seed (−1: none), step (0: a reset), numbers of an action, and the last actions.

The action of step k is in place k modulo :data:`LAST_ACTIONS`. The row before the first has the number of the
environment that is called, counted from 1, or 0.
"""


@final
class CallRecord:
    """Writes the calls of environment ``index`` into ``calls``, [1 + B, COLUMNS], before they are made."""

    def __init__(self, calls: NDArray[np.float64], index: int, space: Space[Any], seed: int | None, step: int) -> None:
        self._calls = calls
        self._row = calls[index + 1]
        self._index = index
        plain = isinstance(space, Discrete | Box | MultiDiscrete | MultiBinary)
        self._size = int(np.prod(space.shape or ())) if plain else 0
        self._is_number = plain and not space.shape
        self._row[:_FIRST_ACTION] = -1 if seed is None else seed, step, self._size

    def reset(self, seed: int | None) -> None:
        """Record that a reset begins."""
        self._row[_SEED] = -1 if seed is None else seed
        self._row[_STEP] = 0
        self._calls[0, 0] = self._index + 1

    def step(self, step: int, action: Any) -> None:
        """Record that a step begins."""
        begin = _FIRST_ACTION + step % LAST_ACTIONS * _NUMBERS
        if self._is_number:
            self._row[begin] = action
        elif self._size:
            numbers = np.ravel(action)[:_NUMBERS]
            self._row[begin : begin + len(numbers)] = numbers
        self._row[_STEP] = step
        self._calls[0, 0] = self._index + 1

    def end(self) -> None:
        """Record that the call has returned, or raised."""
        self._calls[0, 0] = 0


def describe_call(calls: NDArray[np.float64]) -> str:
    """Return the call in which a process has ended; an empty text where it was in none."""
    index = int(calls[0, 0]) - 1
    if not 0 <= index < len(calls) - 1:
        return ""
    row = calls[index + 1].tolist()
    seed, step, size = (int(row[column]) for column in (_SEED, _STEP, _SIZE))
    facts = [f"seed {seed}"] * (seed >= 0) + [f"step {step}"] * (step > 0)
    if size and step:
        actions = [_action(row, k, size) for k in range(max(1, step - LAST_ACTIONS + 1), step + 1)]
        facts.append(f"last actions [{', '.join(actions)}]")
    return f"{'step()' if step else 'reset()'} of environment {index}" + (f" ({', '.join(facts)})" if facts else "")


def _action(row: list[float], step: int, size: int) -> str:
    begin = _FIRST_ACTION + step % LAST_ACTIONS * _NUMBERS
    numbers = [f"{number:.6g}" for number in row[begin : begin + min(size, _NUMBERS)]]
    return numbers[0] if size == 1 else f"[{', '.join([*numbers, *['…'] * (size > _NUMBERS)])}]"
