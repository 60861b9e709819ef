"""The check that every number of a rollout is finite, and the search for the first one that is not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium.spaces import Space
from numpy.typing import NDArray

from limelight.algo.rollout import Rollout
from limelight.errors import NonFiniteError
from limelight.spaces.packed import place_name


def require_finite(
    rollout: Rollout,
    lengths: NDArray[np.float64],
    env_id: str,
    rewards: NDArray[np.float64] | None = None,
    space: Space[Any] | None = None,
) -> None:
    """Raise for the first reward, observation or continuous action of a rollout that is not finite.

    The check is one sum per array; only where a sum is not finite follows the search. A sum may overflow, of which
    NumPy warns unless its caller has turned that off.

    Args:
        rollout: the rollout to check.
        lengths: steps of the running episodes before the rollout, [B], for the message.
        env_id: name of the environment, for the message.
        rewards: [T, B], as the environments gave them, where those of the rollout are rounded to float32.
        space: of observations, for the name of a part.
    Raises: NonFiniteError naming array, environment, index and step of the episode.
    """
    real_obs, real_actions = rollout.obs.dtype.kind == "f", rollout.actions.dtype.kind == "f"
    final = rollout.final_obs
    total = float(np.add.reduce(rollout.rewards, axis=None))
    if real_obs:
        total += float(np.add.reduce(rollout.obs, axis=None))
        if final is not None:
            total += float(np.add.reduce(final.obs, axis=None))
    if real_actions:
        total += float(np.add.reduce(rollout.actions, axis=None))
    if math.isfinite(total):
        return
    fix_env = f"fix the environment (limelight check {env_id})"
    if real_actions:
        fix_policy = "the policy has diverged; a smaller learning_rate or max_grad_norm would help"
        _refuse(rollout, lengths, env_id, "action", _actions_of_finite_obs(rollout), fix_policy)
    if rewards is not None:
        _refuse(rollout, lengths, env_id, "reward", rewards, fix_env)
        scale = "beyond float32, in which networks learn; scale the rewards in the environment"
        _refuse(rollout, lengths, env_id, "reward", rewards, scale, np.isfinite(rollout.rewards))
    _refuse(rollout, lengths, env_id, "reward", rollout.rewards, fix_env)
    if real_obs:
        _refuse(rollout, lengths, env_id, "observation", rollout.obs, fix_env, space=space)
        if final is not None:
            at_end = np.zeros_like(rollout.obs)
            at_end[final.t + 1, final.b] = final.obs
            _refuse(rollout, lengths, env_id, "final observation", at_end, fix_env, space=space)


def _actions_of_finite_obs(rollout: Rollout) -> NDArray[Any]:
    """Return the actions [T, B, A], with 0 in place of those that follow a non-finite observation."""
    T, B = rollout.rewards.shape
    actions = rollout.actions.reshape(T, B, -1)
    if rollout.obs.dtype.kind != "f":
        return actions
    finite = np.isfinite(rollout.obs[:-1]).reshape(T, B, -1).all(-1)
    return np.where(np.logical_and.accumulate(finite)[:, :, None], actions, 0.0)


def _refuse(
    rollout: Rollout,
    lengths: NDArray[np.float64],
    env_id: str,
    key: str,
    values: NDArray[Any],
    fix: str,
    fine: NDArray[np.bool_] | None = None,
    space: Space[Any] | None = None,
) -> None:
    """Raise for the first value [T, B, ...] (observations: [T+1, B, ...]) that is not ``fine``, if there is one.

    ``fine``: by default, where the values are finite.
    """
    bad = np.argwhere(~(np.isfinite(values) if fine is None else fine))
    if not len(bad):
        return
    row, b, *index = (int(i) for i in bad[0])
    t = row + len(rollout.rewards) - len(values)  # the step that returned the value; -1: the one before this rollout
    ends = np.flatnonzero(rollout.terminated[: max(t, 0), b] + rollout.truncated[: max(t, 0), b])
    first, before = (int(ends[-1]) + 1, 0) if len(ends) else (0, int(lengths[b]))
    value = values[(row, b, *index)]
    if key.endswith("observation") and np.isinf(value):
        fix += "; it may have been a number beyond float32, in which networks learn"
    raise NonFiniteError(
        f"{env_id}: {key}{place_name(space, index)} = {value} in environment {b}, step "
        f"{before + int(rollout.valid[first : t + 1, b].sum())} of its episode; {fix}"
    )
