"""The collector: steps environments with a policy and fills a rollout."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from limelight.algo.episodes import Episode
from limelight.algo.normalization import ObservationNormalizer
from limelight.algo.rollout import FinalObs, Float, Rollout
from limelight.envs.base import EnvBackend, Step
from limelight.errors import NonFiniteError
from limelight.typing import State


class Policy(Protocol):
    """What the collector and the evaluation need of an agent."""

    recurrent_state: Float | None
    """What it remembers, [B, S]; None: nothing yet, or no memory. ``act`` replaces it and never writes into it."""

    def act(self, obs: NDArray[Any], episode_start: Float) -> NDArray[Any]:
        """Actions [B, *action_shape] for observations [B, *obs_shape]; ``episode_start`` [B] is 1 where to forget."""

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        """What the environments get of these actions: within their bounds, in their units."""


class RolloutCollector:
    """Steps B environments with a policy into buffers that are allocated once.

    Episode statistics are kept here, from raw rewards and valid rows alone: wrappers have been wrong about both.
    So is what the policy remembers between two rollouts: memory belongs to episodes, and these are the collector's.
    """

    def __init__(self, envs: EnvBackend, num_steps: int, normalizer: ObservationNormalizer | None, env_id: str) -> None:
        self.envs, self.num_steps, self.normalizer, self.env_id = envs, num_steps, normalizer, env_id
        by_network = normalizer is not None and normalizer.by_network
        self._normalizer = None if by_network else normalizer
        self._pictures = normalizer if by_network else None
        T, B = num_steps, envs.num_envs
        space = envs.single_observation_space
        real = np.issubdtype(space.dtype, np.floating)
        obs_dtype = np.float32 if real or self._normalizer is not None else space.dtype
        self._obs = np.zeros((T + 1, B, *(space.shape or ())), obs_dtype)
        self._actions: NDArray[Any] | None = None  # of what shape, the policy's first actions tell
        self._rewards, self._terminated, self._truncated, self._valid = np.zeros((4, T, B), np.float32)
        self._episode_start = np.ones((T + 1, B), np.float32)
        self._recurrent_state: Float | None = None
        self._episode_return = np.zeros(B, np.float64)
        self._episode_length = np.zeros(B, np.float64)
        self._finished: list[Episode] = []
        self._life_lost: NDArray[np.bool_] | None = None  # [T, B], where a life lost counts as an end
        self._check_finite = real
        self._real_actions: NDArray[Any] | None = None  # the same, where numbers may be NaN

    def reset(self, seed: int | None) -> None:
        """Start fresh episodes."""
        self._obs[-1] = self._normalized(self.envs.reset(seed))
        if self._pictures is not None:
            self._pictures.update(self._obs[-1])
        self._episode_start[-1] = 1.0
        self._recurrent_state = None
        self._episode_return[:] = 0.0
        self._episode_length[:] = 0

    def collect(self, policy: Policy) -> Rollout:
        """T steps in every environment with ``policy``, from where the last rollout ended.

        Raises: NonFiniteError when an observation, reward or continuous action is not finite; it names env, step
        and key.
            (Of a policy over choices whose parameters diverged, the learner's gradient tells.)
        """
        obs, episode_start = self._obs, self._episode_start
        final: list[tuple[int, Step, Float | None]] = []
        obs[0], episode_start[0] = obs[-1], episode_start[-1]
        before = policy.recurrent_state = self._recurrent_state
        for t in range(self.num_steps):
            actions = policy.act(obs[t], episode_start[t])
            if t == 0:
                stored = self._action_buffer(actions)
            stored[t] = actions
            step = self.envs.step(policy.to_env(actions))
            obs[t + 1] = step.obs if self._normalizer is None else self._normalized(step.obs, step.valid)
            self._rewards[t] = step.rewards
            self._terminated[t] = step.terminated
            self._truncated[t] = step.truncated
            self._valid[t] = step.valid
            np.subtract(1.0, self._valid[t], out=episode_start[t + 1])
            if step.life_lost is not None:
                self._lose_life(t, step.life_lost)
            if step.final_obs is not None:  # then obs[t + 1] already is the next episode's first
                episode_start[t + 1] = step.terminated | step.truncated
                final.append((t, step, policy.recurrent_state))
        if self._pictures is not None:  # the last ones tell enough: those before look much like them
            self._pictures.update(obs[-1][step.valid])
        self._recurrent_state = policy.recurrent_state
        if before is None and self._recurrent_state is not None:
            before = np.zeros_like(self._recurrent_state)
        final_obs = self._final_obs(final) if final else None
        self._require_finite(final_obs)
        self._track_episodes()
        return Rollout(
            obs, stored, self._rewards, self._terminated, self._truncated, self._valid, episode_start,
            num_valid=int(np.count_nonzero(self._valid)), final_obs=final_obs, recurrent_state=before,
        )  # fmt: skip

    def _lose_life(self, t: int, life_lost: NDArray[np.bool_]) -> None:
        """An end for whoever learns, but not for the statistics of episodes, nor for the memory."""
        if self._life_lost is None:
            self._life_lost = np.zeros(self._terminated.shape, np.bool_)
        self._life_lost[t] = life_lost
        self._terminated[t] += life_lost

    def _action_buffer(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Room for T such actions."""
        if self._actions is None:
            self._actions = np.zeros((self.num_steps, *actions.shape), actions.dtype)
            self._real_actions = self._actions if self._actions.dtype.kind == "f" else None
        return self._actions

    def pop_episodes(self) -> list[Episode]:
        """Episodes finished since the last call, oldest first."""
        finished, self._finished = self._finished, []
        return finished

    def _normalized(self, obs: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> NDArray[Any]:
        if self._normalizer is None:
            return obs
        self._normalizer.update(obs if valid is None else obs[valid])
        return self._normalizer(obs)

    def _final_obs(self, steps: list[tuple[int, Step, Float | None]]) -> FinalObs:
        """The truncated rows of the steps that carried final observations, with the memory after acting there."""
        t = np.concatenate([np.full(int(step.truncated.sum()), t) for t, step, _ in steps])
        b = np.concatenate([np.flatnonzero(step.truncated) for _, step, _ in steps])
        obs = np.concatenate([step.final_obs[step.truncated] for _, step, _ in steps if step.final_obs is not None])
        obs = self._normalizer(obs) if self._normalizer and len(obs) else obs
        states = [state[step.truncated] for _, step, state in steps if state is not None]
        return FinalObs(t, b, obs.astype(self._obs.dtype, copy=False), np.concatenate(states) if states else None)

    def _track_episodes(self) -> None:
        """Add the rollout to the running episodes and record those it finished."""
        if not (np.count_nonzero(self._terminated) or np.count_nonzero(self._truncated)):  # the common rollout
            self._episode_return += np.add.reduce(self._rewards, axis=0)
            self._episode_length += np.add.reduce(self._valid, axis=0)
            return
        ended = self._terminated if self._life_lost is None else self._terminated * ~self._life_lost
        for rewards, valid, terminated, truncated in zip(
            self._rewards, self._valid, ended, self._truncated, strict=True
        ):
            self._episode_return += rewards
            self._episode_length += valid
            for b in np.flatnonzero(terminated + truncated):
                self._finished.append(
                    Episode(
                        int(b),
                        float(self._episode_return[b]),
                        int(self._episode_length[b]),
                        bool(terminated[b]),
                    )
                )
                self._episode_return[b] = 0.0
                self._episode_length[b] = 0

    def _require_finite(self, final: FinalObs | None) -> None:
        """One sum per rollout; the search for the culprit only where the sum is not finite."""
        with np.errstate(over="ignore", invalid="ignore"):
            total = float(np.add.reduce(self._rewards, axis=None))
            if self._check_finite:
                total += float(np.add.reduce(self._obs, axis=None))
                if final is not None:
                    total += float(np.add.reduce(final.obs, axis=None))
            if self._real_actions is not None:
                total += float(np.add.reduce(self._real_actions, axis=None))
        if math.isfinite(total):
            return
        if self._real_actions is not None:
            self._refuse_actions(self._real_actions)
        self._refuse_non_finite("reward", self._rewards)
        if self._check_finite:
            self._refuse_non_finite("observation", self._obs)
            if final is not None:
                at_end = np.zeros_like(self._obs)
                at_end[final.t + 1, final.b] = final.obs
                self._refuse_non_finite("final observation", at_end)

    def _refuse_actions(self, actions: NDArray[Any]) -> None:
        """Raise for the first action that is not finite, unless the observations up to it were not either."""
        T, B = self._rewards.shape
        finite = np.isfinite(self._obs[:-1]).reshape(T, B, -1).all(-1)
        so_far = np.logical_and.accumulate(finite)
        mend = "the policy has diverged; a smaller learning_rate or max_grad_norm would help"
        self._refuse_non_finite("action", np.where(so_far[:, :, None], actions.reshape(T, B, -1), 0.0), mend)

    def _refuse_non_finite(self, key: str, values: NDArray[Any], mend: str | None = None) -> None:
        """Raise for the first of the rewards, actions [T, B, ...] or observations [T+1, B, ...] that is not finite."""
        bad = np.argwhere(~np.isfinite(values))
        if not len(bad):
            return
        row, b, *index = (int(i) for i in bad[0])
        t = row + self.num_steps - len(values)  # of the step that gave it; -1 is the one before this rollout
        ends = np.flatnonzero(self._terminated[: max(t, 0), b] + self._truncated[: max(t, 0), b])
        first, before = (int(ends[-1]) + 1, 0) if len(ends) else (0, int(self._episode_length[b]))
        raise NonFiniteError(
            f"{self.env_id}: {key}{index or ''} = {values[(row, b, *index)]} in environment {b}, step "
            f"{before + int(self._valid[first : t + 1, b].sum())} of its episode; "
            f"{mend or f'fix the environment (limelight check {self.env_id})'}"
        )

    def get_state(self) -> State:
        """The last observations, the policy's memory and the running episodes (the environments' state is theirs)."""
        return {
            "obs": self._obs[-1].copy(),
            "episode_start": self._episode_start[-1].copy(),
            "recurrent_state": self._recurrent_state,
            "episode_return": self._episode_return.copy(),
            "episode_length": self._episode_length.copy(),
        }

    def set_state(self, state: State) -> None:
        """Continue from :meth:`get_state`."""
        self._obs[-1] = state["obs"]
        self._episode_start[-1] = state["episode_start"]
        remembered = state["recurrent_state"]
        self._recurrent_state = None if remembered is None else np.array(remembered, np.float32)
        self._episode_return[:] = state["episode_return"]
        self._episode_length[:] = state["episode_length"]
