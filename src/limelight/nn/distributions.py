"""Action distributions over the policy head's outputs, without the overhead of torch.distributions.

Noise is drawn from the run's own NumPy generator and turned into actions by a pure function, so that both engines
(PyTorch, NumPy) take the same actions from the same random stream.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Space
from numpy.typing import NDArray
from torch import Tensor, nn

from limelight.errors import ConfigError
from limelight.nn.bounds import ToEnv, log_half_ranges, make_to_env, shaped, unchanged
from limelight.nn.squash import log_slope, mean_log_slope
from limelight.settings.schema import ModelConfig
from limelight.spaces.describe import describe_space
from limelight.spaces.packed import Packed, path_name

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
"""Limits of log σ: without limits it eventually overflows to NaN."""
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)

ActionDtype = type[np.float32] | type[np.int64]


class ActionDistribution(Protocol):
    """A family of distributions π(·|params) over one action space. ``params`` is the policy head's output [..., K].

    The first ``num_outputs`` of the K numbers depend on the state; the others are state-independent parameters.
    """

    num_outputs: int
    initial: NDArray[np.float32]
    """Initial bias of the parameters, [K]."""
    action_shape: tuple[int, ...]
    """() if an action is one number, else (A,)."""
    action_dtype: ActionDtype
    to_env: ToEnv
    """Converts sampled actions [B, *action_shape] to the environments' actions."""

    def noise(self, rng: np.random.Generator, batch: int) -> NDArray[np.float32]:
        """Draw the randomness of ``batch`` actions: one number for each of their numbers, [batch, A], A at least 1."""

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Return actions [..., *action_shape], a deterministic function of ``noise``."""

    def mode(self, params: Tensor) -> Tensor:
        """Return the most probable actions, [..., *action_shape]."""

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Return log π(action), [...]."""

    def entropy(self, params: Tensor) -> Tensor:
        """Return the entropy in nats, [...]."""


class Categorical:
    """A distribution over the n actions start … start + n − 1; ``params`` are unnormalised logits, [..., n]."""

    action_shape: tuple[int, ...] = ()
    action_dtype: ActionDtype = np.int64
    to_env: ToEnv = staticmethod(unchanged)

    def __init__(self, n: int, start: int = 0) -> None:
        self.num_outputs = n
        self.start = start
        self.initial = np.zeros(n, np.float32)

    def noise(self, rng: np.random.Generator, batch: int) -> NDArray[np.float32]:
        """Draw one uniform number in [0, 1) per action, [batch, 1]."""
        return rng.random((batch, 1), dtype=np.float32)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Return the first action whose cumulative probability exceeds the noise (inverse transform), int64 [...]."""
        cumulative = (params - params.amax(-1, keepdim=True)).exp().cumsum(-1)
        # Normalised sums could round to less than 1, and noise near 1 would choose an action of probability 0
        return (cumulative[..., :-1] <= noise * cumulative[..., -1:]).sum(-1) + self.start

    def mode(self, params: Tensor) -> Tensor:
        """Return the action of the largest logit, the first if several are equal, int64 [...]."""
        return params.argmax(-1) + self.start

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Return log softmax(params)[action], [...]."""
        return params.log_softmax(-1).gather(-1, (actions.long() - self.start).unsqueeze(-1)).squeeze(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Return −Σ p log p, [...]."""
        log_p = params.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)


class Bernoulli:
    """A independent trials with success (1) or failure (0); ``params`` are the log-odds of success, [..., A]."""

    action_dtype: ActionDtype = np.float32

    def __init__(self, size: int, to_env: ToEnv = unchanged) -> None:
        self.num_outputs = size
        self.to_env = to_env
        self.action_shape: tuple[int, ...] = (size,)
        self.initial = np.zeros(size, np.float32)

    def noise(self, rng: np.random.Generator, batch: int) -> NDArray[np.float32]:
        """Draw uniform numbers in [0, 1), [batch, A]."""
        return rng.random((batch, self.num_outputs), dtype=np.float32)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Return 1 where the noise is below the probability of success, else 0, float32 [..., A]."""
        return (noise < params.sigmoid()).float()

    def mode(self, params: Tensor) -> Tensor:
        """Return 1 where the probability of success is above ½, else 0, float32 [..., A]."""
        return (params > 0.0).float()

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Return Σ a z − softplus(z) over the log-odds z, [...]."""
        return (actions * params - nn.functional.softplus(params)).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Return Σ softplus(−|z|) + |z| sigmoid(−|z|), [...]."""
        z = params.abs()
        return (nn.functional.softplus(-z) + z * (-z).sigmoid()).sum(-1)


class _Bounded(torch.autograd.Function):
    """Clips log σ to its limits; beyond a limit only gradients whose descent leads back pass (clamp passes none)."""

    @staticmethod
    def forward(ctx: Any, log_std: Tensor) -> Tensor:
        ctx.save_for_backward(log_std)
        return log_std.clamp(LOG_STD_MIN, LOG_STD_MAX)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (log_std,) = ctx.saved_tensors
        outwards = ((log_std > LOG_STD_MAX) & (grad < 0)) | ((log_std < LOG_STD_MIN) & (grad > 0))
        return grad.masked_fill(outwards, 0.0)


class Gaussian:
    """Independent normal distributions N(μ, σ²) in A dimensions; ``params`` are μ and a raw number for σ, [..., 2A].

    log σ is the raw number r, or with ``softplus`` ½ log softplus(r) (softplus(r) is the variance, as in Mnih et al.
    2016, section 9), or with ``softplus_std`` log softplus(r), clipped to :data:`LOG_STD_MIN` and :data:`LOG_STD_MAX`.
    Actions [..., A] are stored as sampled; log π and entropy are those of the sampled actions, before ``to_env`` clips
    or rescales them. If ``to_env`` squashes them, ``log_scale`` is Σ log ½ (high − low), and log π and entropy are
    those of the environment's actions low + ½ (high − low)(1 + tanh u): a change of variables whose factor does not
    depend on the parameters.
    """

    action_dtype: ActionDtype = np.float32

    def __init__(self, size: int, to_env: ToEnv, config: ModelConfig, log_scale: float | None = None) -> None:
        self.size = size
        self.to_env = to_env
        self.log_scale = log_scale
        self.action_shape: tuple[int, ...] = (size,)
        self.num_outputs = size if config.action_std in ("parameter", "gsde") else 2 * size
        self.power = {"softplus": 0.5, "softplus_std": 1.0}.get(config.action_std)
        """σ is this power of softplus(r); None where log σ is r."""
        self.gsde_init = config.log_std_init if config.action_std == "gsde" else None
        """Initial parameters of :class:`~limelight.nn.policy_head.Gsde`; None if σ is not computed by it."""
        start = config.log_std_init
        if self.power is not None:
            start = math.log(math.expm1(math.exp(start / self.power)))
        self.initial = np.repeat(np.array([0.0, start], np.float32), size)
        if self.gsde_init is not None:
            self.initial = self.initial[:size]

    def noise(self, rng: np.random.Generator, batch: int) -> NDArray[np.float32]:
        """Draw standard normal numbers, [batch, A]."""
        return rng.standard_normal((batch, self.size), dtype=np.float32)

    def split(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """Return μ and log σ, each [..., A]."""
        mean, raw = params[..., : self.size], params[..., self.size :]
        log_std = raw if self.power is None else self.power * nn.functional.softplus(raw).clamp_min(1e-8).log()
        bounded: Tensor = _Bounded.apply(log_std)  # type: ignore[no-untyped-call]
        return mean, bounded

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Return μ + σ · noise, float32 [..., A]."""
        mean, log_std = self.split(params)
        return mean + log_std.exp() * noise

    def mode(self, params: Tensor) -> Tensor:
        """Return μ, [..., A]; squashed, it becomes the median of the environment's actions, not their mode."""
        return params[..., : self.size]

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Return −½ Σ ((a − μ) / σ)² − Σ log σ − ½ A log 2π; squashed: − Σ log(1 − tanh² a) − log_scale more, [...]."""
        mean, log_std = self.split(params)
        z = (actions - mean) * (-log_std).exp()
        log_probs = (-0.5 * z * z - log_std).sum(-1) - self.size * _HALF_LOG_2PI
        return log_probs if self.log_scale is None else log_probs - log_slope(actions).sum(-1) - self.log_scale

    def entropy(self, params: Tensor) -> Tensor:
        """Return Σ log σ + ½ A (1 + log 2π); squashed: + Σ E log(1 − tanh² a) + log_scale more, [...]."""
        mean, log_std = self.split(params)
        entropies = log_std.sum(-1) + self.size * (0.5 + _HALF_LOG_2PI)
        if self.log_scale is None:
            return entropies
        return entropies + mean_log_slope(mean, log_std).sum(-1) + self.log_scale


def probabilities(distribution: ActionDistribution, params: Tensor) -> list[Tensor]:
    """Return the probabilities of every discrete factor: of n actions [..., n], or of success [..., A].

    Raises: ConfigError where a factor is continuous.
    """
    if isinstance(distribution, FactorizedDistribution):
        return [p for f in distribution.factors for p in probabilities(f.distribution, _params_of(f, params))]
    if isinstance(distribution, Categorical):
        return [params.softmax(-1)]
    if isinstance(distribution, Bernoulli):
        return [params.sigmoid()]
    raise ConfigError("action_probabilities: continuous actions have a density and no probabilities; use log_prob")


class Factor(NamedTuple):
    """One factor of a :class:`FactorizedDistribution`, and its columns in the parameters, noise and actions."""

    distribution: ActionDistribution
    outputs: slice
    """Its state-dependent parameters."""
    state_independent: slice
    """Its state-independent parameters."""
    noise: slice
    actions: int | slice
    """Its actions: a column, or several."""


class FactorizedDistribution:
    """A product of independent factors, π(a) = Π πᵢ(aᵢ), so log π and entropy are sums: for MultiDiscrete, Dict, Tuple.

    ``params`` [..., K] are the outputs of all factors, then the state-independent parameters of all factors. Actions
    and noise [..., A] are those of all factors side by side; actions are int64 if those of every factor are, else
    float32.
    """

    def __init__(self, distributions: Sequence[ActionDistribution], to_env: ToEnv = unchanged) -> None:
        self.to_env = to_env
        self.factors: list[Factor] = []
        self.num_outputs = sum(d.num_outputs for d in distributions)
        output, state_independent, column = 0, self.num_outputs, 0
        for d in distributions:
            outputs = slice(output, output + d.num_outputs)
            others = slice(state_independent, state_independent + len(d.initial) - d.num_outputs)
            noise = slice(column, column + math.prod(d.action_shape))
            self.factors.append(Factor(d, outputs, others, noise, noise if d.action_shape else column))
            output, state_independent, column = outputs.stop, others.stop, noise.stop
        self.action_shape: tuple[int, ...] = (column,)
        floats = any(d.action_dtype is np.float32 for d in distributions)
        self.action_dtype: ActionDtype = np.float32 if floats else np.int64
        self.initial = np.empty(state_independent, np.float32)
        for f in self.factors:
            d = f.distribution
            self.initial[f.outputs], self.initial[f.state_independent] = np.split(d.initial, [d.num_outputs])

    def noise(self, rng: np.random.Generator, batch: int) -> NDArray[np.float32]:
        """Draw the noise of every factor, [batch, A]."""
        noise: NDArray[np.float32] = np.concatenate([f.distribution.noise(rng, batch) for f in self.factors], -1)
        return noise

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Return a sample of every factor, [..., A]."""
        samples = [f.distribution.sample(_params_of(f, params), noise[..., f.noise]) for f in self.factors]
        return self._join(samples, params)

    def mode(self, params: Tensor) -> Tensor:
        """Return the mode of every factor, [..., A]."""
        return self._join([f.distribution.mode(_params_of(f, params)) for f in self.factors], params)

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Return Σ log πᵢ(aᵢ), [...]."""
        terms = [f.distribution.log_prob(_params_of(f, params), actions[..., f.actions]) for f in self.factors]
        return torch.stack(terms).sum(0)

    def entropy(self, params: Tensor) -> Tensor:
        """Return Σ Hᵢ, [...]."""
        return torch.stack([f.distribution.entropy(_params_of(f, params)) for f in self.factors]).sum(0)

    def _join(self, actions: list[Tensor], params: Tensor) -> Tensor:
        """Return the actions of all factors side by side, [..., A]; torch promotes int64 beside float32 to float32."""
        return torch.cat([a.reshape(*params.shape[:-1], -1) for a in actions], -1)


def _params_of(factor: Factor, params: Tensor) -> Tensor:
    """Return the parameters [..., K'] of a factor."""
    outputs = params[..., factor.outputs]
    if factor.state_independent.start == factor.state_independent.stop:
        return outputs
    return torch.cat((outputs, params[..., factor.state_independent]), -1)


def make_distribution(space: Space[Any], config: ModelConfig) -> ActionDistribution:
    """Return the distribution over an action space.

    Raises: ConfigError if the space is not supported, or a setting does not fit the space.
    """
    leaves = [leaf.space for leaf in space.leaves] if isinstance(space, Packed) else [space]
    if not any(isinstance(leaf, Box) for leaf in leaves):
        for name in ("action_std", "log_std_init", "action_bounds"):
            if getattr(config, name) != getattr(ModelConfig, name):
                raise ConfigError(
                    f"{name} = {getattr(config, name)}: only continuous actions use it; "
                    f"leave it out where the action space is {describe_space(space)}"
                )
    if config.action_std == "gsde" and isinstance(space, Packed):
        raise ConfigError(
            f"action_std = gsde: only where the action space is one Box, but it is {describe_space(space)}; "
            "set it to exp or softplus"
        )
    return _family(space, config)


def _family(space: Space[Any], config: ModelConfig) -> ActionDistribution:
    if isinstance(space, Discrete):
        return Categorical(int(space.n), int(space.start))
    if isinstance(space, MultiDiscrete):
        choices = zip(space.nvec.reshape(-1), space.start.reshape(-1), strict=True)
        return FactorizedDistribution([Categorical(int(n), int(start)) for n, start in choices], shaped(space))
    if isinstance(space, MultiBinary):
        return Bernoulli(math.prod(space.shape), shaped(space))
    if isinstance(space, Packed):
        return _packed_family(space, config)
    if isinstance(space, Box):
        if space.dtype.kind != "f":
            raise ConfigError(
                f"action space {describe_space(space)}: a Box of integers is not supported; make it a MultiDiscrete"
            )
        bounds = config.action_bounds
        return Gaussian(math.prod(space.shape), make_to_env(space, bounds), config, log_half_ranges(space, bounds))
    raise ConfigError(
        f"action space {describe_space(space)}: not supported; supported are Box, Discrete, MultiDiscrete, "
        "MultiBinary, and Dict and Tuple of these"
    )


def _packed_family(space: Packed, config: ModelConfig) -> ActionDistribution:
    """Return the product of a factor for every leaf.

    If a leaf is float64, the environment's vectors are float64: rounded to float32 they might leave its bounds.
    """
    distributions: list[ActionDistribution] = []
    for leaf in space.leaves:
        try:
            distributions.append(_family(leaf.space, config))
        except ConfigError as error:
            raise ConfigError(f"{error} (this is {path_name(leaf.path)} of the action space)") from None
    boxes = [leaf.space.dtype for leaf in space.leaves if isinstance(leaf.space, Box)]
    dtype = np.result_type(space.dtype, *boxes)

    def to_env(actions: NDArray[Any]) -> NDArray[Any]:
        vectors = np.empty(actions.shape, dtype)
        for factor in whole.factors:
            vectors[:, factor.noise] = factor.distribution.to_env(actions[:, factor.actions]).reshape(len(actions), -1)
        return vectors

    whole = FactorizedDistribution(distributions, to_env)
    return whole
