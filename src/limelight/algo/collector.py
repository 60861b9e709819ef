"""The collector: steps environments with a policy and fills rollouts."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

from limelight.algo.episodes import Episode, EpisodeTracker
from limelight.algo.finite import require_finite
from limelight.algo.normalization import ObservationNormalizer
from limelight.algo.outliers import OutlierGuard
from limelight.algo.rollout import FinalObs, Float, Rollout
from limelight.algo.stopwatch import Stopwatch
from limelight.envs.base import EnvBackend, Step
from limelight.envs.episode_info import Ends
from limelight.typing import State


class Policy(Protocol):
    """Chooses actions; the recurrent state of the running episodes is its own."""

    recurrent_state: Float | None
    """State after the last observations, [B, S]; None: all zeros, or no memory. ``act`` replaces the array."""

    def begin_rollout(self) -> None:
        """Announce that the coming calls of :meth:`act` are the rows of one rollout that will be learnt from."""

    def act(self, obs: NDArray[Any], episode_start: Float) -> NDArray[Any]:
        """Return actions [B, *action_shape] for observations [B, *obs_shape].

        ``episode_start`` [B] is 1 where the recurrent state is zeroed first.
        """

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Return the actions as the environments take them: within their bounds, in their units."""


class RolloutCollector:
    """Steps B environments with a policy for T steps at a time; the buffers are allocated once.

    Args:
        envs: the environments.
        num_steps: T.
        normalizer: of observations; None leaves them raw.
        env_id: name of the environment, for messages.
    """

    def __init__(
        self,
        envs: EnvBackend,
        num_steps: int,
        normalizer: ObservationNormalizer | None = None,
        env_id: str = "the environment",
    ) -> None:
        self.envs = envs
        self.num_steps = num_steps
        self.normalizer = normalizer
        self.env_id = env_id
        self.timed_step = Stopwatch(self._step)
        """Steps the environments, and adds up the seconds that it takes."""
        self.tracker = EpisodeTracker(envs.num_envs)
        self._in_network = normalizer is not None and normalizer.in_network
        guarded = normalizer if normalizer is not None and not normalizer.images else None
        self._guard = OutlierGuard(guarded.statistics, env_id) if guarded is not None else None
        self._keep_raw = normalizer is None or self._in_network
        T, B = num_steps, envs.num_envs
        space = self._space = envs.single_observation_space
        as_float = np.issubdtype(space.dtype, np.floating) or not self._keep_raw
        self._obs = np.zeros((T + 1, B, *(space.shape or ())), np.float32 if as_float else space.dtype)
        self._actions: NDArray[Any] | None = None  # allocated for the first actions, which tell shape and dtype
        self._rewards = np.zeros((T, B))  # float64, as the environments give them and as returns are summed
        self._terminated, self._truncated, self._valid, self._float_rewards = np.zeros((4, T, B), np.float32)
        self._episode_start = np.ones((T + 1, B), np.float32)
        self._ends: list[Ends | None] = [None] * T
        self._recurrent_state: Float | None = None
        self._life_lost: NDArray[np.bool_] | None = None  # [T, B]; allocated if a lost life counts as an end

    def reset(self, seed: int | None) -> None:
        """Start new episodes in all environments."""
        obs = self.envs.reset(seed)
        self._obs[-1] = obs if self._keep_raw else self._normalized(obs)
        if self._in_network:
            self._update_statistics(self._obs[-1])
        self._episode_start[-1] = 1.0
        self._recurrent_state = None
        self.tracker.reset()

    def is_finite(self) -> bool:
        """Return whether the last observations are numbers."""
        return bool(np.isfinite(self._obs[-1]).all())

    def collect(self, policy: Policy) -> Rollout:
        """Take T steps in every environment with ``policy``, from where the last rollout ended.

        Raises: NonFiniteError where an observation, reward or continuous action is not finite. (Discrete actions are
            always finite: a policy over them that has diverged shows in the learner's gradient.)
        """
        obs, episode_start = self._obs, self._episode_start
        final: list[tuple[int, Step, Float | None]] = []
        # The last row of the previous rollout is the first of this one
        obs[0], episode_start[0] = obs[-1], episode_start[-1]
        initial_state = policy.recurrent_state = self._recurrent_state
        policy.begin_rollout()
        if self._guard is not None:
            self._guard.begin_rollout()
        for t in range(self.num_steps):
            # Act
            actions = policy.act(obs[t], episode_start[t])
            self._action_buffer(actions)[t] = actions
            # Step the environments
            step: Step = self.timed_step(policy.to_env(actions))
            obs[t + 1] = step.obs if self._keep_raw else self._normalized(step.obs, step.valid)
            self._rewards[t] = step.rewards
            self._terminated[t] = step.terminated
            self._truncated[t] = step.truncated
            self._valid[t] = step.valid
            self._ends[t] = step.ends
            # Episode starts: in NEXT_STEP, a row that only resets returns the next episode's first observation
            np.subtract(1.0, self._valid[t], out=episode_start[t + 1])
            if step.life_lost is not None:
                self._lose_life(t, step.life_lost)
            if step.final_obs is not None:  # obs[t + 1] already is the next episode's first observation
                episode_start[t + 1] = step.terminated | step.truncated
                final.append((t, step, policy.recurrent_state))
        if self._guard is not None:
            self._guard.end_rollout()
        if self._in_network:  # one row of a rollout is sample enough, as consecutive frames are nearly equal
            self._update_statistics(obs[-1][step.valid])
        self._recurrent_state = policy.recurrent_state
        if initial_state is None and self._recurrent_state is not None:
            initial_state = np.zeros_like(self._recurrent_state)
        with np.errstate(over="ignore", invalid="ignore"):  # refused by require_finite, whose sums may overflow too
            np.copyto(self._float_rewards, self._rewards, casting="same_kind")
            rollout = Rollout(
                obs, self._action_buffer(actions), self._float_rewards, self._terminated, self._truncated, self._valid,
                episode_start, num_valid=int(np.count_nonzero(self._valid)),
                final_obs=self._final_obs(final) if final else None, recurrent_state=initial_state,
            )  # fmt: skip
            require_finite(rollout, self.tracker.lengths, self.env_id, self._rewards, self._space)
        self.tracker.add(rollout, self._life_lost, self._rewards, self._ends)
        return rollout

    def _step(self, actions: NDArray[Any]) -> Step:
        """Step the environments."""
        return self.envs.step(actions)

    def clipped_share(self, policy: Policy) -> float:
        """Return the share of the last rollout's action components that ``to_env`` took to a bound of a Box, 0 to 1."""
        if self._actions is None:
            return 0.0
        space = self.envs.single_action_space
        assert isinstance(space, Box)
        actions = policy.to_env(self._actions.reshape(-1, *self._actions.shape[2:]))
        return float(np.mean((actions <= space.low) | (actions >= space.high)))

    def pop_episodes(self) -> list[Episode]:
        """Return the episodes finished since the last call, oldest first."""
        return self.tracker.pop_finished()

    def _lose_life(self, t: int, life_lost: NDArray[np.bool_]) -> None:
        """Terminate for learning, but not for episode statistics nor for the recurrent state."""
        if self._life_lost is None:
            self._life_lost = np.zeros(self._terminated.shape, np.bool_)
        self._life_lost[t] = life_lost
        self._terminated[t] += life_lost

    def _action_buffer(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Return the buffer of T actions, allocated for actions like these."""
        if self._actions is None:
            self._actions = np.zeros((self.num_steps, *actions.shape), actions.dtype)
        return self._actions

    def _normalized(self, obs: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> NDArray[Any]:
        """Add the valid observations to the statistics, then normalise all by them."""
        self._update_statistics(obs if valid is None else obs[valid])
        assert self.normalizer is not None
        return self.normalizer(obs)

    def _update_statistics(self, obs: NDArray[Any]) -> None:
        assert self.normalizer is not None
        self.normalizer.update(obs)

    def _final_obs(self, steps: list[tuple[int, Step, Float | None]]) -> FinalObs:
        """Return the truncated rows of steps that carried final observations, with the recurrent state there."""
        t = np.concatenate([np.full(int(step.truncated.sum()), t) for t, step, _ in steps])
        b = np.concatenate([np.flatnonzero(step.truncated) for _, step, _ in steps])
        obs = np.concatenate([step.final_obs[step.truncated] for _, step, _ in steps if step.final_obs is not None])
        if self.normalizer and len(obs) and (obs.dtype.kind != "f" or np.isfinite(obs).all()):
            obs = self.normalizer(obs)
        states = [state[step.truncated] for _, step, state in steps if state is not None]
        return FinalObs(t, b, obs.astype(self._obs.dtype, copy=False), np.concatenate(states) if states else None)

    def get_state(self) -> State:
        """Return the last observations, the recurrent state and the running episodes (environments not included)."""
        return {
            "obs": self._obs[-1].copy(),
            "episode_start": self._episode_start[-1].copy(),
            "recurrent_state": self._recurrent_state,
            "episodes": self.tracker.get_state(),
        }

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`."""
        self._obs[-1] = state["obs"]
        self._episode_start[-1] = state["episode_start"]
        recurrent_state = state["recurrent_state"]
        self._recurrent_state = None if recurrent_state is None else np.array(recurrent_state, np.float32)
        self.tracker.set_state(state["episodes"])
