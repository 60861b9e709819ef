"""Environments that log when they are made and closed, in all processes, and of which only one may be allowed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Discrete


class Counted(gym.Env[Any, Any]):
    """Episodes of 20 steps; appends a line to ``folder/log`` when it is made and when it is closed.

    With ``single``, a second live copy cannot be made in any process, as with a port or a licence.
    """

    def __init__(self, folder: str, single: bool = False) -> None:
        self.observation_space, self.action_space = Box(-1.0, 1.0, (3,)), Discrete(2)
        self.folder, self.single, self.open, self.steps = Path(folder), single, False, 0
        if single:
            (self.folder / "port").touch(exist_ok=False)  # FileExistsError if another copy is open
        self.open = True
        self._write("+")

    def _write(self, sign: str) -> None:
        with (self.folder / "log").open("a") as log:
            log.write(f"{time.monotonic()} {os.getpid()} {sign}\n")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.zeros(3, np.float32), float(action), False, self.steps >= 20, {}

    def close(self) -> None:
        if self.open:
            self.open = False
            self._write("-")
            if self.single:
                (self.folder / "port").unlink()


@dataclass(frozen=True)
class CountedFactory:
    """Makes :class:`Counted` environments that write into ``folder``."""

    folder: Path
    single: bool = False

    def __call__(self) -> Counted:
        return Counted(str(self.folder), self.single)


def copies(folder: Path) -> tuple[int, int]:
    """Return how many :class:`Counted` of ``folder`` were made, and how many were open at the same time at most."""
    lines = sorted(line.split() for line in (folder / "log").read_text().splitlines())
    signs = [1 if sign == "+" else -1 for _, _, sign in lines]
    return signs.count(1), int(np.cumsum(signs).max())
