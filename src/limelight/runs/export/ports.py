"""The inputs and outputs of an exported policy: names, dtypes, shapes, and the values of a batch by these names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from gymnasium.spaces import Discrete, Space
from numpy.typing import NDArray

from limelight.nn.distributions import ActionDistribution, FactorizedDistribution, Gaussian
from limelight.spaces.packed import MASK_KEY, Leaf, Packed
from limelight.spaces.reading import leaves_of

if TYPE_CHECKING:
    from limelight.runs.agent import Agent

Arrays = dict[str, NDArray[Any]]
"""Values of the inputs or outputs by name, [batch, ...] or [time, batch, ...]."""
_REAL = np.dtype(np.float32)
STATE, NEXT_STATE, EPISODE_START, NOISE, PARAMS = "state", "next_state", "episode_start", "noise", "params"


class Port(NamedTuple):
    """An input or an output."""

    name: str
    dtype: np.dtype[Any]
    axes: tuple[str, ...]
    """Of any length: batch, or time and batch."""
    shape: tuple[int, ...]
    """Of what follows these axes."""

    def describe(self) -> dict[str, Any]:
        """Return the port as plain data."""
        return {"name": self.name, "dtype": str(self.dtype), "shape": [*self.axes, *self.shape]}


class Ports(NamedTuple):
    """All inputs and outputs, in their order."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    axes: tuple[str, ...]
    """The first axes of most: batch, and time before it if the policy has a memory."""
    noise: tuple[str, ...]
    """How each number of the noise is distributed: uniform in [0, 1) or standard normal; empty: there is none."""

    def describe(self) -> dict[str, Any]:
        """Return inputs, outputs and the distribution of the noise as plain data."""
        found = {key: [port.describe() for port in getattr(self, key)] for key in ("inputs", "outputs")}
        return {**found, "noise": list(self.noise)} if self.noise else found


def ports_of(agent: Agent, deterministic: bool) -> Ports:
    """Return the inputs and outputs of the exported policy of ``agent``.

    Observations come first, then the mask of legal actions if there is one, the memory and where episodes begin, and
    the noise of sampled actions. Actions come first of the outputs, then the parameters of their distribution.
    """
    model, space = agent.model, agent.observation_space
    state_size = model.core.state_size
    axes = ("time", "batch") if state_size else ("batch",)
    state = [(STATE, ("batch",), (state_size,)), (EPISODE_START, axes, ())] if state_size else []
    noise = () if deterministic else _kinds_of_noise(model.distribution)
    more = [*state, *([(NOISE, axes, (len(noise),))] if noise else [])]
    after = [(PARAMS, axes, (len(model.distribution.initial) + _num_gsde(model.distribution),))]
    after += [(NEXT_STATE, ("batch",), (state_size,))] if state_size else []
    real = np.dtype(np.float32)
    observed = [
        Port(obs_name(space, leaf), np.dtype(leaf.space.dtype), axes, leaf.space.shape or ())
        for leaf in leaves_of(space)
    ]
    acted = [
        Port(action_name(leaf), action_dtype(leaf.space), axes, leaf.space.shape or ())
        for leaf in leaves_of(agent.action_space)
    ]
    inputs = [*observed, *(Port(name, real, lead, shape) for name, lead, shape in more)]
    outputs = [*acted, *(Port(name, real, lead, shape) for name, lead, shape in after)]
    return Ports(tuple(inputs), tuple(outputs), axes, noise)


def obs_name(space: Space[Any], leaf: Leaf) -> str:
    """Return the name of an observation's part: obs, obs.camera, obs.0.speed; action_mask for the mask."""
    path = leaf.path
    if isinstance(space, Packed) and leaf is space.mask:
        return MASK_KEY
    if isinstance(space, Packed) and space.mask_source == "info":
        path = path[1:]
    return ".".join(("obs", *map(str, path)))


def action_name(leaf: Leaf) -> str:
    """Return the name of an action's part: action, action.left."""
    return ".".join(("action", *map(str, leaf.path)))


def action_dtype(space: Space[Any]) -> np.dtype[Any]:
    """Return the dtype of exported actions: that of their space, int64 for a single choice."""
    return np.dtype(np.int64) if isinstance(space, Discrete) else np.dtype(space.dtype)


def observations(space: Space[Any], obs: NDArray[Any]) -> Arrays:
    """Return raw observations [..., *obs_shape] by the names of the inputs; packed ones become their parts."""
    if not isinstance(space, Packed):
        return {obs_name(space, leaves_of(space)[0]): obs.astype(space.dtype, copy=False)}
    lead = obs.shape[:-1]
    return {
        obs_name(space, leaf): obs[..., leaf.part].reshape(*lead, *(leaf.space.shape or ())).astype(leaf.space.dtype)
        for leaf in space.leaves
    }


def actions(space: Space[Any], value: Any) -> Arrays:
    """Return actions [B, *shape], nested as ``space`` is, by the names of the outputs."""
    if not isinstance(space, Packed):
        return {action_name(leaves_of(space)[0]): np.asarray(value)}
    vectors = space.pack_batch(value)
    return {action_name(leaf): vectors[:, leaf.part].reshape(-1, *(leaf.space.shape or ())) for leaf in space.leaves}


def _kinds_of_noise(distribution: ActionDistribution) -> tuple[str, ...]:
    """Return how each number of the noise is distributed."""
    if isinstance(distribution, FactorizedDistribution):
        return tuple(kind for factor in distribution.factors for kind in _kinds_of_noise(factor.distribution))
    if isinstance(distribution, Gaussian):
        return ("normal",) * distribution.size
    return ("uniform",) * (distribution.action_shape[0] if distribution.action_shape else 1)


def _num_gsde(distribution: ActionDistribution) -> int:
    """Return how many parameters are computed by gSDE, which ``initial`` lacks."""
    return distribution.size if isinstance(distribution, Gaussian) and distribution.gsde_init is not None else 0
