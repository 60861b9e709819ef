"""Lists of environments, algorithms and presets, as lines of text."""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from limelight.envs import minigrid
from limelight.envs.games import INSTALL, all_games, id_of, is_registered_by_ale
from limelight.envs.source import known_ids, near_ids, resolve_env
from limelight.errors import ConfigError, EnvError, LimelightError, did_you_mean
from limelight.settings.schema import EnvConfig
from limelight.spaces.describe import check_spaces
from limelight.training.algorithms import ALGORITHMS
from limelight.training.presets import PRESETS


def environments(text: str = "") -> list[str]:
    """Return the newest environments with ``text`` in their id, by family, with what prevents training.

    Atari games are listed by ALE's ids without making each: they are all of one kind.
    """
    with contextlib.suppress(LimelightError):  # which says that minigrid is not installed
        minigrid.register(minigrid.PREFIXES[0])
    shown = {env_id for env_id in known_ids() if text.lower() in env_id.lower()}
    played = [f"  {id_of(game):28} {game}" for game in all_games().values() if shown & {id_of(game)} or text in game]
    specs = [spec for spec in gym.registry.values() if spec.id in shown and not is_registered_by_ale(spec.entry_point)]
    if not specs and not played:
        near = f"; did you mean {' or '.join(near_ids(text))}?" if near_ids(text) else ""
        raise ConfigError(f"{text}: no environment has this in its id{near}")
    families: dict[str, list[EnvSpec]] = {}
    for spec in _newest(specs):
        families.setdefault(_family(spec), []).append(spec)
    lines: list[str] = []
    obstacles: dict[tuple[str, frozenset[str]], str] = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):  # MuJoCo leaves a log where it runs
        for family, members in families.items():
            lines.append(family)
            for spec in members:
                kind = (str(spec.entry_point), frozenset(spec.kwargs))  # one class under many ids is made once
                if kind not in obstacles:
                    obstacles[kind] = _obstacle(spec)
                lines.append(f"  {spec.id:28} {obstacles[kind]}".rstrip())
    if not text and not all_games():
        played = [f"  {'ALE/Pong-v5, pong, …':28} {INSTALL}"]
    return [*lines, "atari", *played] if played else lines


def algorithms(text: str = "") -> list[str]:
    """Return the algorithms whose name contains ``text``."""
    return _table(((row.name, row.summary) for row in ALGORITHMS.values()), text)


def presets(text: str = "") -> list[str]:
    """Return the presets whose name contains ``text``."""
    return _table(((row.name, row.summary) for row in PRESETS.values()), text)


CATALOGUES: dict[str, Callable[[str], list[str]]] = {
    "envs": environments,
    "algos": algorithms,
    "presets": presets,
}


def _table(rows: Iterable[tuple[str, str]], text: str) -> list[str]:
    names = dict(rows)
    shown = {name: summary for name, summary in names.items() if text.lower() in name.lower()}
    if not shown and text:
        raise ConfigError(f"{text}: not in any name{did_you_mean(text, names)}")
    width = max(map(len, shown), default=0)
    return [f"{name:{width}}  {summary}" for name, summary in shown.items()]


def _newest(specs: Iterable[EnvSpec]) -> list[EnvSpec]:
    newest: dict[tuple[str | None, str], EnvSpec] = {}
    for spec in specs:
        key = (spec.namespace, spec.name)
        if key not in newest or (spec.version or 0) > (newest[key].version or 0):
            newest[key] = spec
    return list(newest.values())


def _family(spec: EnvSpec) -> str:
    """Return ``box2d`` for ``gymnasium.envs.box2d.lunar_lander:LunarLander``, and the package for others."""
    entry = spec.entry_point
    module = entry.partition(":")[0] if isinstance(entry, str) else getattr(entry, "__module__", "other")
    inside = re.match(r"gymnasium\.envs\.(\w+)", module)
    return inside[1] if inside else module.partition(".")[0]


def _obstacle(spec: EnvSpec) -> str:
    """Return why this environment cannot be trained on here, in a few words; empty if it can."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            spaces = resolve_env(EnvConfig(env_id=spec.id)).spaces()
    except Exception as error:  # an environment's constructor may raise anything, and one must not end the list
        raised = error.__cause__ if isinstance(error, EnvError) and error.from_env else error
        return " ".join(str(raised).removeprefix(f"env_id = {spec.id}: ").split())
    try:
        check_spaces(*spaces, spec.id)
    except EnvError as error:
        return str(error).removeprefix(f"env_id = {spec.id}: ").partition(";")[0]
    return ""
