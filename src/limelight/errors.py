"""The exceptions of this library. Each message says in one line what is wrong, where, and what would help."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class LimelightError(Exception):
    """Base of all errors that this library raises for its users; the message is put on one line."""

    from_callback: bool = False
    """A callback of the user's own raised it while a run went on."""
    run_dir: Path | None = None
    """Folder from which the run can be resumed, where the error has ended one."""

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(line.strip() for line in message.splitlines()))


class ConfigError(LimelightError, ValueError):
    """A setting, or a combination of settings, that cannot work."""


class EnvError(LimelightError):
    """An environment that cannot be made, or that breaks the contract of docs/environments.md."""

    from_env: bool = False
    """The environment's own code raised it: a new copy of the environment may not."""


class CheckpointError(LimelightError):
    """A checkpoint or run folder that is missing, damaged, or made for something else."""


class NonFiniteError(LimelightError, ArithmeticError):
    """A number that is NaN or infinite, in a reward, an observation, an action or a gradient."""


class FirstNonFiniteError(NonFiniteError):
    """The first number of a replayed run that is NaN or infinite, and its place."""

    def __init__(self, place: str, value: float, row: int | None = None, env: int | None = None) -> None:
        super().__init__(f"{place} = {value}")
        self.place = place
        self.value = value
        self.row = row
        """Of the recorded steps for an environment, otherwise of the rollout; None: no row has it."""
        self.env = env


class WorkerError(LimelightError, RuntimeError):
    """Workers have failed and the run cannot go on; the message has their traceback."""

    def __init__(self, message: str = "") -> None:
        Exception.__init__(self, message)


def did_you_mean(name: str, choices: Iterable[str], cutoff: float = 0.6) -> str:
    """``"; did you mean X or Y?"`` for the nearest choices in any case of letters, or an empty string."""
    by_lower = {choice.lower(): choice for choice in choices}
    if name.lower() in by_lower:
        return f"; did you mean {by_lower[name.lower()]}?"
    near = [by_lower[lower] for lower in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=cutoff)]
    return f"; did you mean {' or '.join(near)}?" if near else ""
