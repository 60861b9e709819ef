"""The Atari game that an id stands for, and the settings of games.

ale-py is optional; it is imported where the list of games is needed. All ids of a game are the same environment here:
their differences are settings of EnvConfig.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from importlib.util import find_spec

from limelight.errors import ConfigError, EnvError, did_you_mean
from limelight.settings.rules import refuse_unused
from limelight.settings.schema import AtariConfig, EnvConfig

# ALE/Pong-v5, PongNoFrameskip-v4, PongDeterministic-v4, pong; Gymnasium writes ale_py:ALE/Pong-v5, too
_IDS = re.compile(r"(?:ale_py:)?(?:ALE/(?P<ale>\w+)-v5|(?P<old>\w+?)(?:NoFrameskip|Deterministic)-v4)|(?P<plain>\w+)")
# Pong-v4, Pong-ram-v0, PongNoFrameskip-v0
_OTHERS = re.compile(
    r"(?:ale_py:)?(?P<name>\w+?)(?P<ram>-ram)?(?P<fixed>NoFrameskip|Deterministic)?-v(?P<version>[04])"
)
_TWO_PLAYER_GAMES = frozenset({"combat", "joust", "maze_craze", "warlords"})
"""Games that ALE lists but that need a second player: starting one would end the process."""
INSTALL = 'pip install "limelight-rl[atari]"'

SETTINGS = tuple(field.name for field in dataclasses.fields(AtariConfig))
"""The settings that only Atari games use."""
_DEFAULT_LIMIT = 27_000 * 4
_SETTING_FOR_KWARG = {
    "frameskip": "frame_skip",
    "repeat_action_probability": "sticky_actions",
    "full_action_space": "full_action_set",
    "max_num_frames_per_episode": "max_episode_steps (in steps of frame_skip frames)",
    "stack_num": "frame_stack",
    "stack_size": "frame_stack",
    "img_height": "frame_size",
    "img_width": "frame_size",
    "screen_size": "frame_size",
    "use_fire_reset": "fire_reset",
    "episodic_life": "terminal_on_life_loss",
    "life_loss_info": "terminal_on_life_loss",
    "reward_clipping": "reward_clip",
    "num_threads": "env_threads",
    **{name: name for name in (*SETTINGS, "max_episode_steps")},
}
"""Arguments of Gymnasium's and ALE's environments → our settings."""


# --------------------------------------------------------------------------- ids


def game_of(env_id: str) -> str | None:
    """Return the ROM that an id stands for, as ALE names it (``space_invaders``); None if it is no Atari game.

    Ids that other packages than ale-py have registered are not Atari games here.

    Raises: ConfigError for an unknown game, or a variant that ALE's vector environment cannot play; EnvError if ale-py
        is missing.
    """
    match = _IDS.fullmatch(env_id) or _OTHERS.fullmatch(env_id)
    if match is None or _is_third_party(env_id):
        return None
    asks_for_ale = match.re is _IDS and match["plain"] is None
    if asks_for_ale and find_spec("ale_py") is None:
        raise EnvError(f"env_id = {env_id}: needs ale-py, which is not installed; {INSTALL}")
    name = match[1] or match[2] or match[3]  # the first one always matches in _OTHERS
    game = all_games().get(_key(name))
    if game is None and asks_for_ale:
        raise ConfigError(f"env_id = {env_id}: {_no_game(name)}")
    if game is not None and match.re is _OTHERS:
        raise ConfigError(f"env_id = {env_id}: {_unsupported_variant(match, game)}")
    return game


def _is_third_party(env_id: str) -> bool:
    import gymnasium as gym  # here, as `limelight train --help` needs the preset of an id, but no gymnasium

    spec = gym.registry.get(env_id)
    return spec is not None and not is_registered_by_ale(spec.entry_point)


def is_registered_by_ale(entry_point: object) -> bool:
    """Return whether ale-py has registered the environment, as Gymnasium's without pre-processing."""
    return isinstance(entry_point, str) and entry_point.startswith("ale_py.")


def _no_game(name: str) -> str:
    if _key(name) in map(_key, _TWO_PLAYER_GAMES):
        return f"{name} takes two players; `limelight list envs ALE` shows the games for one"
    near = did_you_mean(name, map(_pascal, all_games().values()))
    return f"ALE has no game {name}{near or '; `limelight list envs ALE` shows all'}"


def _unsupported_variant(other: re.Match[str], game: str) -> str:
    """Return the error for an unsupported variant of a game, and the id to use instead."""
    how = "has sticky actions" if other["fixed"] else "skips frames at random"
    why = "shows memory, not images" if other["ram"] else how
    instead = f"{why}; use {id_of(game)}"
    return f"{instead} with sticky_actions 0.25" if other["version"] == "0" else instead


@functools.cache
def all_games() -> dict[str, str]:
    """Return the ROMs of all games by their lower-case names without underscores; empty without ale-py."""
    if find_spec("ale_py") is None:
        return {}
    from ale_py import roms

    return {_key(game): game for game in sorted(roms.get_all_rom_ids()) if game not in _TWO_PLAYER_GAMES}


def id_of(game: str) -> str:
    """Return ``ALE/SpaceInvaders-v5`` for ``space_invaders``."""
    return f"ALE/{_pascal(game)}-v5"


def _key(name: str) -> str:
    return name.replace("_", "").lower()


def _pascal(game: str) -> str:
    return game.title().replace("_", "")


# --------------------------------------------------------------------------- settings


def step_limit(config: EnvConfig) -> int:
    """Return the steps after which a game is truncated: by default half an hour of play, as in the literature."""
    return config.max_episode_steps or max(1, _DEFAULT_LIMIT // config.atari.frame_skip)


def refuse_kwargs(config: EnvConfig) -> None:
    """Refuse constructor arguments, which games do not have.

    Raises: ConfigError naming our setting instead.
    """
    for key in config.env_kwargs:
        start = f"env_kwargs.{key}: {config.env_id} "
        if key in ("mode", "difficulty"):
            own = "for another, train on a callable that makes the environment (docs/environments.md)"
            raise ConfigError(f"{start}is played in its default mode and difficulty; {own}")
        if key in _SETTING_FOR_KWARG:
            raise ConfigError(f"{start}is an Atari game; set {_SETTING_FOR_KWARG[key]} instead")
        near = did_you_mean(key, SETTINGS)
        raise ConfigError(f"{start}is an Atari game, which takes no such argument{near or '; leave it out'}")


def check_settings(config: EnvConfig, name: str, is_game: bool, backend: str) -> None:
    """Raise ConfigError for a setting of Atari games that this environment or backend would not use."""
    if backend == "ale" and not is_game:
        raise ConfigError(f"backend = ale: {name} is no Atari game; use backend auto")
    if not is_game:
        refuse_unused(config.atari, f"only Atari games use it, {name} is none; leave it out")
    if backend != "ale":
        only = f"only backend ale uses it, but backend = {backend}; set it to none"
        refuse_unused(config.atari, only, "env_threads")
    if backend not in ("ale", "envpool"):
        lives = f"backend {backend} does not report lives; use backend ale, or set it to false"
        refuse_unused(config.atari, lives, "terminal_on_life_loss")


def stepped_singly(config: EnvConfig) -> EnvConfig:
    """Return ``config`` without the settings of vector environments of games, of which single copies have no use."""
    atari = dataclasses.replace(config.atari, env_threads=None, terminal_on_life_loss=False)
    return dataclasses.replace(config, atari=atari)


def for_other(config: EnvConfig, env_id: str | None) -> EnvConfig:
    """Return ``config`` for another environment, of this id or of a callable, without settings that it would not use.

    Raises: ConfigError as :func:`game_of`.
    """
    if env_id is not None and game_of(env_id) is not None:
        return dataclasses.replace(config, env_id=env_id)
    return dataclasses.replace(config, env_id=config.env_id if env_id is None else env_id, atari=AtariConfig())
