"""Behaviour cloning: the policy learns the actions of a dataset before the first step of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from limelight.algo.learner import Learner
from limelight.algo.losses import mask_weights, policy_gradient_loss_grad
from limelight.algo.rollout import Rollout
from limelight.errors import ConfigError
from limelight.nn.bounds import as_sampled
from limelight.runs.agent import Agent
from limelight.runs.datasets import Episode, read_dataset
from limelight.settings.schema import OptimConfig
from limelight.training.init_agent import Donor

CHUNK = 32
"""Steps of a sequence; without a recurrent core every step is one of its own."""
BATCH, RECURRENT_BATCH = 64, 8
"""Sequences of an update."""
MOST_EPOCHS, EPOCHS_WITHOUT_GAIN = 200, 10
"""Passes over the data; training ends after so many without a better held-out likelihood."""
LEARNING_RATE = 2e-3
_HELD_OUT = 0.1
"""Share of the sequences that are not learnt from."""


@dataclass(frozen=True)
class Dataset:
    """A Minari dataset to begin a run with."""

    name: str
    """Its name, or its folder."""


@dataclass(frozen=True)
class Sequences:
    """N sequences of T steps, cut out of episodes; the last one of an episode is padded."""

    obs: NDArray[np.generic]
    """[T, N, *obs_shape], normalised."""
    actions: NDArray[np.generic]
    """[T, N, *action_shape], as sampled."""
    valid: NDArray[np.float32]
    """0 where a row is padding, [T, N]."""

    def rollout(self, rows: NDArray[np.intp]) -> Rollout:
        """Return some of the sequences as a rollout, each from the initial recurrent state; rewards are 0."""
        T, B = len(self.obs), len(rows)
        obs = np.concatenate([self.obs[:, rows], self.obs[-1:, rows]])
        start = np.zeros((T + 1, B), np.float32)
        start[0] = 1.0
        none = np.zeros((T, B), np.float32)
        valid = self.valid[:, rows]
        return Rollout(obs, self.actions[:, rows], none, none, none, valid, start, int(valid.sum()))


def clone(
    agent: Agent, dataset: Dataset, notify: Callable[[str], None], check: Callable[[], None] = lambda: None
) -> Donor:
    """Return an agent like ``agent`` whose policy imitates a dataset, to begin a run with.

    The loss is −log π(a|s), by the learner of all algorithms with Adam. The critic, and the σ of continuous actions
    where it is a parameter of its own, stay as they were initialised. The statistics of observations are those of the
    dataset. ``check`` is called before each update; it may raise, to end this.

    Raises: ConfigError for a dataset that is not there, is of other spaces, or holds an action out of its bounds.
    """
    episodes = read_dataset(dataset.name, agent)
    cloned = Agent.from_state(agent.get_state())
    sequences = make_sequences(cloned, episodes, dataset.name)
    learner = make_learner(cloned, len(sequences.obs))
    kept = {name: p.detach().clone() for name, p in cloned.model.named_parameters() if name.endswith("log_std")}
    generator = np.random.default_rng(agent.config.seed)
    before, after, epochs = fit(learner, sequences, generator, check)
    with torch.no_grad():
        for name, parameter in cloned.model.named_parameters():
            if name in kept:
                parameter.copy_(kept[name])
    steps = sum(len(episode.actions) for episode in episodes)
    notify(
        f"cloned {dataset.name}: {len(episodes)} episodes, {steps:,} steps, {epochs} epochs; "
        f"held-out log π(a|s) {before:.3f} → {after:.3f}"
    )
    return Donor(f"that imitates {dataset.name}", Agent.from_state(cloned.get_state()))  # with a network of its own


def make_sequences(agent: Agent, episodes: Sequence[Episode], name: str) -> Sequences:
    """Cut episodes into sequences; add their observations to the agent's statistics, and normalise by them."""
    length = CHUNK if agent.model.state_size else 1
    pieces = [
        (np.stack(e.obs[t : t + length]), np.stack(e.actions[t : t + length]))
        for e in episodes
        for t in range(0, len(e.actions), length)
    ]
    pieces = [(obs[: len(actions)], actions) for obs, actions in pieces]
    if len(pieces) < 2:
        raise ConfigError(f"init_from_dataset = {name}: has too few steps; 2 sequences of {length} steps are the least")
    if agent.normalizer is not None:
        for batch in _batches([obs for obs, _ in pieces]):
            agent.normalizer.update(batch)
    sampled = [_sampled(agent, actions, name) for _, actions in pieces]
    valid = np.stack([np.arange(length) < len(actions) for _, actions in pieces], 1).astype(np.float32)
    obs = np.stack([_padded(agent.normalize(obs), length) for obs, _ in pieces], 1)
    return Sequences(obs, np.stack([_padded(actions, length) for actions in sampled], 1), valid)


def _batches(arrays: Sequence[NDArray[np.generic]]) -> Iterator[NDArray[np.generic]]:
    """Yield the rows of many arrays, a few thousand at a time."""
    for i in range(0, len(arrays), 4096):
        yield np.concatenate(arrays[i : i + 4096])


def _sampled(agent: Agent, actions: NDArray[np.generic], name: str) -> NDArray[np.generic]:
    try:
        return as_sampled(agent.action_space, agent.config.model.action_bounds, actions)
    except ValueError as error:
        raise ConfigError(f"init_from_dataset = {name}: {error}") from None


def _padded(array: NDArray[np.generic], length: int) -> NDArray[np.generic]:
    """Repeat the last row until there are ``length``."""
    return np.concatenate([array, np.repeat(array[-1:], length - len(array), 0)])


def make_learner(agent: Agent, num_steps: int) -> Learner:
    """Return a learner over the agent's model for sequences of ``num_steps``, with Adam."""
    algorithm = dataclasses.replace(
        agent.config.algorithm, num_steps=num_steps, num_epochs=1, num_minibatches=1, normalize_advantages="none",
        normalize_rewards=False, clip_ratio=None, ent_coef=0.0,
    )  # fmt: skip
    optim = OptimConfig(optimizer="adam", learning_rate=LEARNING_RATE, max_grad_norm=agent.config.optim.max_grad_norm)
    return Learner(agent.model, algorithm, optim)


def fit(
    learner: Learner, data: Sequences, generator: np.random.Generator, check: Callable[[], None] = lambda: None
) -> tuple[float, float, int]:
    """Maximise the likelihood; return that of held-out sequences before and after, and the number of epochs.

    The learner is left with the parameters of the best epoch. ``check``: as for :func:`clone`.
    """
    order = generator.permutation(data.valid.shape[1])
    num_held = max(1, int(_HELD_OUT * len(order)))
    held, learnt = order[:num_held], order[num_held:]
    size = RECURRENT_BATCH if len(data.obs) > 1 else BATCH
    first = best = likelihood(learner, data, held, size)
    params, since, epoch = learner.flat.params.clone(), 0, 0
    while epoch < MOST_EPOCHS and since < EPOCHS_WITHOUT_GAIN:
        epoch += 1
        generator.shuffle(learnt)
        for i in range(0, len(learnt), size):
            check()
            _update(learner, data.rollout(learnt[i : i + size]))
        found = likelihood(learner, data, held, size)
        since = 0 if found > best else since + 1
        if found > best:
            best, params = found, learner.flat.params.clone()
    learner.flat.params.copy_(params)
    learner.network.parameters_changed()
    return first, best, epoch


def _update(learner: Learner, rollout: Rollout) -> None:
    """Make one update by −log π(a|s) of the rollout; the critic gets no gradient."""
    learner.values(rollout)
    w = mask_weights(rollout.valid)
    learner.write_gradients(policy_gradient_loss_grad(np.ones_like(w), w), np.zeros_like(w), w)
    learner.apply(0.0)


def likelihood(learner: Learner, data: Sequences, rows: NDArray[np.intp], size: int) -> float:
    """Return the mean log π(a|s) over sequences, ``size`` of them at a time."""
    total = 0.0
    for i in range(0, len(rows), size):
        rollout = data.rollout(rows[i : i + size])
        total += float((learner.log_probs(rollout) * rollout.valid).sum())
    return total / float(data.valid[:, rows].sum())
