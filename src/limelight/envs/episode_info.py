"""The environment's own numbers: those that ``info`` holds when an episode ends, and sums over the episode."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, final

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from limelight.envs.faults import StepValueError, one_number
from limelight.errors import did_you_mean
from limelight.typing import AnyEnv

SUCCESS_KEYS = ("is_success", "success")
"""Keys that are read without being asked for."""
SUM = "sum:"
"""The start of a key that is the sum of an info over the episode."""
_NOTE_AFTER = 20
"""Episodes without a number after which a line says so."""
_MOST_NAMED = 20


class EpisodeInfo(NamedTuple):
    """The numbers that the infos of one episode held."""

    numbers: dict[str, float]
    """By key; finite."""
    faults: dict[str, str]
    """Why a key that is there has no number."""
    present: tuple[str, ...] = ()
    """All keys at the end of the episode, where one that was asked for is missing."""


NO_INFO = EpisodeInfo({}, {})
Ends = dict[int, EpisodeInfo]
"""By number of the environment: those of the episodes that ended in a step, where there are any."""


def read_info(info: Any, keys: Sequence[str] = ()) -> EpisodeInfo | None:
    """Return the numbers at the end of an episode; None where there is nothing to say.

    Args:
        info: of the last step; ``sum:KEY`` are keys in it (:class:`SumInfo`).
        keys: those that were asked for.
    """
    info = info if isinstance(info, Mapping) else {}
    numbers: dict[str, float] = {}
    faults: dict[str, str] = {}
    present: tuple[str, ...] = ()
    for key in (*SUCCESS_KEYS, *keys):
        if key not in info:
            if key in keys:
                present = tuple(str(name) for name in info if not str(name).startswith(SUM))
            continue
        try:
            number = one_number(info[key])
        except StepValueError:
            value = info[key]
            faults[key] = f"{' '.join(str(value).split())[:40]!r} ({type(value).__name__}) is no number"
        else:
            if np.isfinite(number):
                numbers[key] = number
            else:
                faults[key] = f"{number} is no finite number"
    return EpisodeInfo(numbers, faults, present) if numbers or faults or keys else None


def sum_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the keys of infos that are summed over the episode."""
    return tuple(key.removeprefix(SUM) for key in keys if key.startswith(SUM))


@final
class SumInfo(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Adds ``sum:KEY`` to every info: the sum of ``info[KEY]`` over the steps of the episode so far."""

    def __init__(self, env: AnyEnv, keys: tuple[str, ...]) -> None:
        RecordConstructorArgs.__init__(self, keys=keys)
        gym.Wrapper.__init__(self, env)
        self._keys = keys
        self._totals: dict[str, Any] = {}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and the sums."""
        self._totals = {}
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment and add up; a value that is no number takes the place of the sum."""
        result = self.env.step(action)
        if not isinstance(result, tuple) or len(result) != 5 or not isinstance(result[4], Mapping):
            return result  # refused where the environment is stepped
        for key in self._keys:
            total = self._totals.get(key, 0.0)
            if key not in result[4] or isinstance(total, str):
                continue
            try:
                self._totals[key] = total + one_number(result[4][key])
            except StepValueError:
                self._totals[key] = str(result[4][key])
        return *result[:4], {**result[4], **{SUM + key: total for key, total in self._totals.items()}}


@final
class VectorInfo:
    """Reads the infos of a vectorised class: arrays [B] by key, each with a mask ``_key`` [B] or without one.

    Args:
        keys: those that were asked for.
        num_envs: B.
    """

    def __init__(self, keys: Sequence[str], num_envs: int) -> None:
        self.keys = tuple(keys)
        self._wanted = {*SUCCESS_KEYS, *keys}
        self._sums = sum_keys(keys)
        self._num_envs = num_envs
        self.totals = np.full((len(self._sums), num_envs), np.nan)
        """Sums of the running episodes; nan while the key was in none of their infos, [keys, B]."""
        self._wrong: dict[tuple[str, int], Any] = {}

    def reset(self) -> None:
        """Begin new episodes everywhere."""
        self.totals[:] = np.nan
        self._wrong.clear()

    def read(self, infos: Any, done: NDArray[np.bool_], valid: NDArray[np.bool_]) -> Ends | None:
        """Return the infos of the episodes that ended in this step, after adding up.

        Args:
            infos: as the vectorised class returned them, of any content.
            done: where an episode ended, [B].
            valid: where the step belongs to an episode, [B].
        """
        if self._sums:
            for i in np.flatnonzero(valid).tolist():
                self._add(_row(infos, i, {*self._sums}), i)
        if not self.keys and not _has_success(infos):
            return None
        ends: Ends = {}
        for i in np.flatnonzero(done).tolist():
            row = _row(infos, i, self._wanted)
            row |= {SUM + key: self._wrong.pop((key, i), float(self.totals[n, i])) for n, key in self._summed(i)}
            self.totals[:, i] = np.nan
            found = read_info(row, self.keys)
            if found is not None:
                ends[i] = found
        return ends or None

    def _add(self, row: Mapping[str, Any], i: int) -> None:
        for n, key in enumerate(self._sums):
            if key in row:
                try:
                    self.totals[n, i] = np.nan_to_num(self.totals[n, i]) + one_number(row[key])
                except StepValueError:
                    self._wrong[key, i] = str(row[key])

    def _summed(self, i: int) -> list[tuple[int, str]]:
        """Return the sums that the episode of environment ``i`` has."""
        return [
            (n, key) for n, key in enumerate(self._sums) if (key, i) in self._wrong or not np.isnan(self.totals[n, i])
        ]


def _has_success(infos: Any) -> bool:
    if not isinstance(infos, Mapping):
        return bool(infos)
    final = infos.get("final_info", infos)
    return not isinstance(final, Mapping) or any(key in final for key in SUCCESS_KEYS)


def _row(infos: Any, i: int, wanted: set[str]) -> dict[str, Any]:
    """Return the info of environment ``i``; of keys that are not wanted only the name.

    Infos of a step that also reset the environment hold those of the ended episode under ``final_info``.
    """
    try:
        if isinstance(infos, Mapping) and "final_info" in infos and _is_set(infos, "final_info", i):
            infos = infos["final_info"]
        if not isinstance(infos, Mapping):
            return dict(infos[i] or {})
        names = [name for name in infos if not str(name).startswith("_") and _is_set(infos, name, i)]
        return {name: _item(infos[name], i) if name in wanted else None for name in names}
    except (TypeError, ValueError, IndexError, KeyError):  # infos of another form have nothing to say
        return {}


def _is_set(infos: Mapping[str, Any], name: str, i: int) -> bool:
    return f"_{name}" not in infos or bool(infos[f"_{name}"][i])


def _item(values: Any, i: int) -> Any:
    """Return the value of environment ``i``; one value may stand for all."""
    return values if np.ndim(values) == 0 else values[i]


def _has_faults(info: EpisodeInfo) -> bool:
    return bool(info.faults)


@final
class InfoNotes:
    """Lines on keys of info that have no number, each once.

    Args:
        keys: those that were asked for.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._missing = dict.fromkeys(keys, 0)
        """Episodes without the key; a key leaves once it was seen."""
        self._present: dict[str, None] = {}
        self._told: set[str] = set()

    def take(self, infos: Iterable[EpisodeInfo]) -> list[str]:
        """Return the lines that the infos of further episodes give rise to."""
        lines = []
        for numbers, faults, present in infos if self._missing else filter(_has_faults, infos):
            for key, fault in faults.items():
                self._missing.pop(key, None)
                if key not in self._told:
                    self._told.add(key)
                    lines.append(f"info_keys = {key}: {fault}; such episodes are left out of env/{key}")
            for key in [*self._missing]:
                if key in numbers:
                    del self._missing[key]
                elif key not in self._told:
                    self._missing[key] += 1
            self._present |= dict.fromkeys(present)
            lines += self._absent(_NOTE_AFTER)
        return lines

    def end(self) -> list[str]:
        """Return the lines on keys that none of the episodes had."""
        return self._absent(1)

    def _absent(self, least: int) -> list[str]:
        lines = []
        for key, count in self._missing.items():
            if count >= least and key not in self._told:
                self._told.add(key)
                names = list(self._present)
                near = did_you_mean(key.removeprefix(SUM), names)
                had = ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")
                where = "info of a step" if key.startswith(SUM) else "info at their end"
                lines.append(
                    f"info_keys = {key}: none of {count} episodes had it in the {where}, "
                    f"{f'which has: {had}' if names else 'which is empty'}{near}"
                )
        return lines
