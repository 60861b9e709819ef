"""Episodes as Minari datasets: recorded from evaluations, read for cloning."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Space
from numpy.typing import NDArray

from limelight.envs.base import Step
from limelight.errors import ConfigError
from limelight.runs.evaluation import EnvLike, Evaluation, counts, env_of, evaluation_envs, play
from limelight.settings.values import require_short
from limelight.spaces.describe import describe_space, space_difference
from limelight.spaces.packed import Packed

if TYPE_CHECKING:
    from limelight.runs.agent import Agent


@dataclass
class Episode:
    """The raw data of an episode of T steps; observations and actions of composite spaces are packed vectors."""

    seed: int | None = None
    """Of its environment's reset; None: that of an earlier episode."""
    obs: list[NDArray[Any]] = field(default_factory=list)
    """[T + 1, *obs_shape]."""
    actions: list[NDArray[Any]] = field(default_factory=list)
    """[T, *action_shape], in the units of the environment."""
    rewards: list[float] = field(default_factory=list)
    terminated: bool = False
    """The last step ended in a terminal state; otherwise the episode was truncated or cut."""


# --------------------------------------------------------------------------- recording


@final
class Recorder:
    """Keeps the raw steps of the episodes that count; an :class:`~limelight.runs.evaluation.Observer`.

    Args:
        num_envs: B.
        seed: of the evaluation; environment b has seed + b.
        normalize: returns observations as the policy takes them.
    """

    def __init__(self, num_envs: int, seed: int, normalize: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        self.episodes: list[Episode] = []
        """In the order in which they end."""
        self._normalize = normalize
        self._raw: NDArray[Any] | None = None
        self._running = [Episode(seed + b) for b in range(num_envs)]

    def normalize(self, obs: NDArray[Any]) -> NDArray[Any]:
        """Keep the raw observations [B, *obs_shape]; return them as the policy takes them."""
        self._raw = np.array(obs)
        return self._normalize(obs)

    def before(self, obs: NDArray[Any], episode_start: NDArray[np.float32]) -> None:
        """Begin the episodes whose first observation this is."""
        assert self._raw is not None
        for running, first in zip(self._running, self._raw, strict=True):
            if not running.obs:
                running.obs.append(first)

    def after(self, actions: NDArray[Any], step: Step) -> None:
        """Add the step to the running episode of each environment."""
        for b, running in enumerate(self._running):
            if not step.valid[b]:  # the environment was reset
                self._running[b] = Episode()
                continue
            running.obs.append(np.array(step.obs[b]))
            running.actions.append(np.array(actions[b]))
            running.rewards.append(float(step.rewards[b]))
            running.terminated = bool(step.terminated[b])

    def episode(self, b: int) -> None:
        """Keep the running episode of environment ``b``."""
        self.episodes.append(self._running[b])


def record_dataset(
    agent: Agent, name: str, env: EnvLike = None, *, episodes: int = 100, seed: int = 0, deterministic: bool = True
) -> Evaluation:
    """Evaluate an agent and write the episodes as the Minari dataset ``name``, such as ``cartpole/expert-v0``.

    The arguments are those of :func:`limelight.evaluate`; the environment resets after every episode, as there.

    Raises: ConfigError if the package is missing, the name is not Minari's, or the dataset exists.
    """
    minari = _library(f"record_dataset = {name}")
    _require_new(minari, name)
    episodes, seed, _ = counts(episodes, seed, None)
    with evaluation_envs(agent, env, episodes, None) as (envs, env_id, limits):
        recorder = Recorder(envs.num_envs, seed, agent.normalize)
        policy = agent.policy(None if deterministic else np.random.default_rng(seed))
        result = play(
            envs, policy, recorder.normalize, episodes, seed, name=env_id, limits=limits, observer=recorder
        )  # fmt: skip
    spec = None if env_of(agent, env)[0].env_kwargs else _spec_of(env_id, agent.observation_space)
    _write(minari, name, recorder.episodes, agent, env_id, spec, "greedy" if deterministic else "sampled")
    return result


def _require_new(minari: Any, name: str) -> None:
    from minari.dataset.minari_dataset import parse_dataset_id

    require_short("record_dataset", name)
    try:
        parse_dataset_id(name)
    except (ValueError, TypeError):  # the second one for a name without a version
        raise ConfigError(f"record_dataset = {name}: must be a name like cartpole/expert-v0 (Minari's form)") from None
    if name in minari.list_local_datasets():
        raise ConfigError(f"record_dataset = {name}: exists already; take another name, such as the next version")


def _write(
    minari: Any, name: str, episodes: Sequence[Episode], agent: Agent, env_id: str, spec: EnvSpec | None, how: str
) -> None:
    """Write the episodes; images are stored without loss."""
    from minari.data_collector import EpisodeBuffer

    obs_space, action_space = agent.observation_space, agent.action_space
    buffers = [
        EpisodeBuffer(
            id=i,
            seed=episode.seed,
            observations=_columns(obs_space, episode.obs),
            actions=_columns(action_space, episode.actions),
            rewards=episode.rewards,
            terminations=[False] * (len(episode.rewards) - 1) + [episode.terminated],
            truncations=[False] * (len(episode.rewards) - 1) + [not episode.terminated],
            infos={},
        )
        for i, episode in enumerate(episodes)
    ]
    create = minari.create_dataset_from_buffers
    options: dict[str, Any] = {
        "env": spec,
        "observation_space": _original(obs_space),
        "action_space": _original(action_space),
        "algorithm_name": f"limelight {agent.config.algorithm.algo}, {how} actions",
        "description": f"{len(episodes)} episodes of an agent trained by Limelight on {env_id}",
    }
    if "jpeg_encoding" in inspect.signature(create).parameters:
        options["jpeg_encoding"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on author and address, which are not ours to give
        create(name, buffers, **options)


def _spec_of(env_id: str, obs_space: Space[Any]) -> EnvSpec | None:
    """Return the registered environment if it gives these observations itself; None where it is wrapped."""
    spec = gym.registry.get(env_id)
    if spec is None:
        return None
    try:
        env = gym.make(env_id)
    except Exception:  # the id alone does not make it
        return None
    try:
        return spec if space_difference(env.observation_space, _original(obs_space)) is None else None
    finally:
        env.close()


def _original(space: Space[Any]) -> Space[Any]:
    return space.original if isinstance(space, Packed) else space


def _columns(space: Space[Any], values: Sequence[NDArray[Any]]) -> Any:
    """Return the values of an episode as Minari has them: one array per simple space, nested as the space is."""
    stacked = np.stack(values)
    if isinstance(space, Packed):
        return space.unpack(stacked)
    return stacked.astype(space.dtype)


# --------------------------------------------------------------------------- reading


def read_dataset(name: str, agent: Agent) -> list[Episode]:
    """Read the Minari dataset of this name, or in this folder, for an agent with its spaces.

    Raises: ConfigError if it does not exist, its spaces are others, or it is empty.
    """
    minari = _library(f"init_from_dataset = {name}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = _open(minari, name)
        for key, here in (("observation_space", agent.observation_space), ("action_space", agent.action_space)):
            there = getattr(dataset, key)
            if space_difference(there, _original(here), float_bounds=key == "action_space") is not None:
                raise ConfigError(
                    f"init_from_dataset = {name}: its {key} is {describe_space(there)}, that of the environment "
                    f"{describe_space(_original(here))}"
                )
        found = [_episode(episode, agent) for episode in dataset.iterate_episodes()]
    if not any(episode.actions for episode in found):
        raise ConfigError(f"init_from_dataset = {name}: holds no step")
    return found


def _open(minari: Any, name: str) -> Any:
    """Open a dataset of Minari's folder (MINARI_DATASETS_PATH), or the one in the folder ``name``."""
    require_short("init_from_dataset", name)
    folder = Path(name)
    inside = next((path for path in (folder, folder / "data") if (path / "metadata.json").is_file()), None)
    try:
        return minari.MinariDataset(inside) if inside is not None else minari.load_dataset(name)
    except (FileNotFoundError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else "it cannot be read"
        raise ConfigError(
            f"init_from_dataset = {name}: no such dataset here ({reason}); see minari list local"
        ) from None


def _episode(data: Any, agent: Agent) -> Episode:
    """Return an episode of a dataset in the form of :class:`Episode`."""
    obs = _packed(agent.observation_space, data.observations)
    actions = _packed(agent.action_space, data.actions)
    return Episode(None, list(obs), list(actions), list(map(float, data.rewards)), bool(np.any(data.terminations)))


def _packed(space: Space[Any], values: Any) -> NDArray[Any]:
    return space.pack_batch(values) if isinstance(space, Packed) else np.asarray(values)


def _library(what: str) -> Any:
    try:
        import h5py  # noqa: F401  (its own message would be a traceback)
        import minari
    except ImportError:
        raise ConfigError(f"{what}: needs Minari; pip install 'limelight-rl[minari]'") from None
    return minari
