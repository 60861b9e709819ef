"""The agent: a trained policy that predicts, is saved and loaded."""

from __future__ import annotations

import logging
import pickle
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Space
from numpy.typing import ArrayLike, NDArray

from limelight.algo.normalization import Moments, ObservationNormalizer, RunningMeanStd, make_normalizer
from limelight.algo.train_state import FlatParameters
from limelight.errors import CheckpointError, ConfigError
from limelight.nn.encoders import is_builtin
from limelight.nn.model import ActorCritic, make_model
from limelight.nn.network import make_network
from limelight.nn.policy import ModelPolicy
from limelight.printable import printable
from limelight.runs.checkpoint import (
    checkpoints,
    fitting,
    has_state,
    newest_state,
    read_state,
    write_state,
)
from limelight.runs.export.export import export as export_agent
from limelight.runs.folder import CONFIG, EVALUATIONS, as_folder
from limelight.runs.hub import download, is_on_hub
from limelight.runs.modest import require_modest
from limelight.runs.rows import RecurrentState, Row, forward, log_prob_of, probabilities_of, read_row, threads_for
from limelight.settings.io import from_dict, to_dict
from limelight.settings.schema import TrainConfig
from limelight.settings.values import coerce
from limelight.spaces.describe import space_from_json, space_to_json
from limelight.spaces.packed import Packed
from limelight.typing import EnvFactory, State

_LOG = logging.getLogger("limelight")


class Agent:
    """A trained policy with its observation normalization and the configuration it came from."""

    def __init__(
        self,
        model: ActorCritic,
        normalizer: ObservationNormalizer | None,
        config: TrainConfig,
        observation_space: Space[Any],
        action_space: Space[Any],
        env_factory: EnvFactory | None = None,
    ) -> None:
        self.model = model
        self.normalizer = normalizer
        self.config = config
        self.observation_space = observation_space
        self.action_space = action_space
        self.env_factory = env_factory
        """Makes the environment of training, where that was given as a Python object and not by name."""
        self.reward_statistics: RunningMeanStd | None = None
        """Of discounted returns, by which rewards were normalised; None: they were not, or a file lacks it."""
        self.network = make_network(model)
        self._greedy = self.policy(None)
        self._sampling = self.policy(np.random.default_rng(config.seed))
        self._stateful = False
        self._recurrent_state: RecurrentState | None = None
        self._applied_moments: Moments | None = None  # of the image scale that the network has

    def policy(self, rng: np.random.Generator | None) -> ModelPolicy:
        """Return a policy for normalised observations [B, *obs_shape]: sampling with ``rng``, greedy if it is None.

        It starts without a recurrent state, and shares none with the agent or with another policy.
        """
        return ModelPolicy(self.network, rng)

    def normalize(self, obs: NDArray[Any]) -> NDArray[Any]:
        """Return observations as the policy was trained on; the running statistics stay as they are."""
        if self.normalizer is None:
            return obs
        moments = self.normalizer.statistics.moments
        if self.normalizer.in_network and moments is not self._applied_moments:
            self._applied_moments = moments
            self.network.set_image_scale(self.normalizer.image_scale())
        return self.normalizer(obs)

    def reset(self) -> None:
        """Clear the agent's recurrent state, and from now on keep it from one ``predict(obs)`` to the next.

        With one environment (or one batch) the state then need not be carried by hand: call ``reset`` before the first
        observation of an episode. Without it, every ``predict(obs)`` starts from the initial state.
        """
        self._stateful = True
        self._recurrent_state = None

    def predict(
        self,
        obs: Any,
        state: RecurrentState | None = None,
        episode_start: ArrayLike | None = None,
        deterministic: bool = True,
        action_masks: ArrayLike | None = None,
    ) -> tuple[Any, Any]:
        """Return actions for raw observations, with Stable-Baselines3's signature.

        Args:
            obs: one observation [*obs_shape] or a batch [B, *obs_shape]; of a Dict or Tuple space, dicts or tuples of
                such arrays.
            state: the recurrent state that the last call returned, [B, S] (one observation: B = 1). None is the initial
                state, or after :meth:`reset` the agent's own, which a given ``state`` does not change. Policies without
                a recurrent core return it as given.
            episode_start: true where an observation begins an episode: that row starts from the initial state, [B].
            deterministic: the most probable action instead of a sample.
            action_masks: 1 for legal actions, [n] or [B, n], where the environment gives masks in info; all are legal
                without it. It replaces a mask that is a part of ``obs``.
        Returns: (actions, state); a batch gives [B, *action_shape], one observation [*action_shape] (a NumPy integer,
            equal to an int, for Discrete actions); Dict and Tuple actions are dicts and tuples of such.
        Raises: ConfigError, which is a ValueError, if an observation, mask, ``state`` or ``episode_start`` has another
            form than stated here.
        """
        row = self._row(obs, state, episode_start, action_masks)
        # Act
        if deterministic is not True and deterministic is not False:
            deterministic = coerce("deterministic", deterministic, bool)
        policy = self._greedy if deterministic else self._sampling
        policy.recurrent_state = row.state
        with threads_for(row):
            actions = policy.to_env(policy.act(row.obs, row.episode_start))
        if policy.recurrent_state is not None:
            own = state is None and self._stateful
            state = policy.recurrent_state
            self._recurrent_state = state if own else self._recurrent_state
        # Return actions of the environment's own form
        actions = actions[0] if row.single else actions
        return (self.action_space.unpack(actions) if isinstance(self.action_space, Packed) else actions), state

    def value(self, obs: Any, state: RecurrentState | None = None, episode_start: ArrayLike | None = None) -> Any:
        """Return V(s) of raw observations: a number for one, [B] for a batch.

        It is in the units of the rewards that the critic learnt from: clipped, scaled, normalised. The arguments are
        those of :meth:`predict`; the agent's own recurrent state is used, and stays as it is.
        """
        row = self._row(obs, state, episode_start)
        values = forward(self.model, row).values[0].cpu().numpy()
        return values[0] if row.single else values

    def action_probabilities(
        self,
        obs: Any,
        state: RecurrentState | None = None,
        episode_start: ArrayLike | None = None,
        action_masks: ArrayLike | None = None,
    ) -> Any:
        """Return π(·|s) of raw observations, with the arguments of :meth:`predict` and as :meth:`value` uses them.

        Returns: Discrete, [n] or [B, n] for a batch; MultiDiscrete, a tuple of such; MultiBinary, of success, [A] or
            [B, A]; Dict and Tuple, dicts and tuples of these.
        Raises: ConfigError where actions are continuous.
        """
        return probabilities_of(self.model, self.action_space, self._row(obs, state, episode_start, action_masks))

    def log_prob(
        self,
        obs: Any,
        action: Any,
        state: RecurrentState | None = None,
        episode_start: ArrayLike | None = None,
        action_masks: ArrayLike | None = None,
    ) -> Any:
        """Return log π(action|s) of raw observations: a number for one, [B] for a batch.

        ``action`` is as :meth:`predict` returns it; the other arguments are those of :meth:`action_probabilities`. For
        continuous actions it is the log density: of the environment's action where it is squashed, otherwise of the
        sampled one, before it is rescaled and clipped, as training has it.
        """
        row = self._row(obs, state, episode_start, action_masks)
        return log_prob_of(self.model, self.action_space, row, action)

    def _row(self, obs: Any, state: Any, episode_start: Any, action_masks: Any = None) -> Row:
        """Return the arguments of :meth:`predict` as the network takes them."""
        before = self._recurrent_state if state is None and self._stateful else state
        spaces = self.observation_space, self.action_space
        row = read_row(*spaces, self.model.state_size, obs, before, episode_start, action_masks)
        return row._replace(obs=self.normalize(row.obs))

    def get_state(self) -> dict[str, Any]:
        """Return everything that :meth:`from_state` needs, as plain data and arrays."""
        return {
            "params": torch.cat([p.detach().reshape(-1) for p in self.model.parameters()]).cpu(),
            "normalizer": self.normalizer.get_state() if self.normalizer is not None else None,
            "reward_variance": None if self.reward_statistics is None else float(self.reward_statistics.moments.var),
            "config": to_dict(self.config),
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
        }

    @classmethod
    def from_state(cls, state: State) -> Agent:
        """Return the agent of :meth:`get_state`.

        Raises: CheckpointError if the parameters do not fit the network.
        """
        config = from_dict(state["config"])
        observation_space = space_from_json(state["observation_space"])
        action_space = space_from_json(state["action_space"])
        model = make_model(observation_space, action_space, config.model, config.seed)
        params = torch.as_tensor(state["params"])
        flat = FlatParameters(model)
        if len(flat) != len(params):
            raise CheckpointError(
                f"the saved agent has {len(params)} parameters, its network {len(flat)}; has the encoder changed?"
            )
        flat.params.copy_(params)
        agent = cls(model, _saved_normalizer(state, config, observation_space), config, observation_space, action_space)
        agent.reward_statistics = _saved_reward_statistics(state)
        return agent

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the agent as it is saved, with its recurrent state; a callable that made its environment stays behind.

        The copy also draws the same actions as this agent would.
        """
        own = self._stateful, self._recurrent_state, self._sampling.get_state()
        return Agent.from_state, (self.get_state(),), own

    def __setstate__(self, own: tuple[bool, RecurrentState | None, dict[str, Any]]) -> None:
        """Continue with a recurrent state and a random stream."""
        self._stateful, self._recurrent_state, sampling = own
        self._sampling.set_state(sampling)

    def __deepcopy__(self, memo: dict[int, Any]) -> Agent:
        """Return a copy that shares nothing but the callable that makes its environment."""
        agent: Agent = pickle.loads(pickle.dumps(self))
        agent.env_factory = self.env_factory
        return agent

    def save(self, folder: str | Path) -> None:
        """Write the agent into ``folder`` (replaced as a whole): safetensors and JSON, checksummed, no pickle."""
        write_state(Path(folder), self.get_state())

    export = export_agent


def _saved_normalizer(state: State, config: TrainConfig, space: Space[Any]) -> ObservationNormalizer | None:
    """Return the normalizer of observations of :meth:`Agent.get_state`."""
    if state["normalizer"] is None:
        return None
    normalizer = make_normalizer(space, is_builtin(config.model.encoder), config.env.image_statistics == "frame")
    normalizer.set_state(state["normalizer"])
    return normalizer


def _saved_reward_statistics(state: State) -> RunningMeanStd | None:
    """Return the statistics of rewards of :meth:`Agent.get_state`; files of older versions have none."""
    if state.get("reward_variance") is None:
        return None
    statistics = RunningMeanStd(())
    statistics.update(Moments(np.zeros(()), np.asarray(state["reward_variance"], np.float64), 1))
    return statistics


def folder_of_files(run_dir: Path) -> Path:
    """Return the folder in which an evaluation writes videos and tables: that of the run.

    An agent's own folder is replaced as a whole when it is saved again, and may be under version control, so the files
    of one within a run (``best/``, a checkpoint) go to that run, those of any other to ``runs/evaluations/<name>``.
    """
    if is_on_hub(run_dir):
        return EVALUATIONS / Path(run_dir).name
    if not (run_dir / "state.json").is_file():
        return run_dir
    folder = run_dir.resolve()
    runs = (above for above in folder.parents[:2] if (above / CONFIG).is_file())
    return next(runs, EVALUATIONS / folder.name)


def load(run_dir: str | Path, which: str = "best", fallback: bool = False) -> Agent:
    """Load the agent of a run folder, of a folder written by :meth:`Agent.save`, or of the Hugging Face Hub.

    No code of the folder runs: a network of the user's own is imported from where Python finds modules.

    Args:
        run_dir: the folder, or ``hf:user/name`` (``hf:user/name@revision``).
        which: ``best`` (the agent of the best evaluation; of the last checkpoint if there was none) or ``last``.
        fallback: where the newest checkpoint is damaged, load the newest that is intact.
    Raises: CheckpointError if there is no agent, or it is damaged.
    """
    folder = download(run_dir) if is_on_hub(run_dir) else as_folder(run_dir)
    if which not in ("best", "last"):
        raise ConfigError(f"which = {which!r}: must be best | last")
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; give the folder of a run or of a saved agent")
    if which == "best" and has_state(folder / "best"):
        return agent_in(folder / "best", read_state(folder / "best"), folder)
    if checkpoints(folder):
        newest, state, skipped = newest_state(folder, fallback)
        if skipped is not None:
            _LOG.warning("limelight: note: %s", printable(skipped))
        return agent_in(newest, state, folder)
    if not (folder / "state.json").is_file():
        raise CheckpointError(f"{folder}: holds no agent; give a run folder with best/ or checkpoints/")
    return agent_in(folder, read_state(folder), folder)


def agent_in(place: Path | str, state: State, folder: Path) -> Agent:
    """Return the agent of a state that was read from ``place``, in the folder that was given.

    Raises: CheckpointError naming ``place``, above all where the network is far larger than the state.
    """
    with fitting(place):
        require_modest(state)
        encoder = state["config"]["model"]["encoder"]
        if isinstance(encoder, str) and ":" in encoder:
            _require_elsewhere(encoder, folder)
        return Agent.from_state(state)


def _require_elsewhere(encoder: str, folder: Path) -> None:
    """Refuse a network of Python's own modules, or whose code lies in the folder that is loaded, before its import.

    Programs of packages (``package.__main__``) are refused too, as importing one runs it.

    Raises: CheckpointError.
    """
    module = encoder.partition(":")[0]
    name = module.partition(".")[0]
    if module.endswith(".__main__"):
        raise CheckpointError(f"encoder = {encoder[:100]}: is a program, and has no network")
    if name in sys.stdlib_module_names:
        raise CheckpointError(f"encoder = {encoder[:100]}: Python's own modules have no network")
    spec = find_spec(name) if name not in sys.modules else None
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    if any(place is not None and Path(place).resolve().is_relative_to(folder.resolve()) for place in places):
        raise CheckpointError(f"encoder = {encoder}: its code lies in {folder}; read it, then move it elsewhere")
