"""Action distributions over the policy head's outputs; no torch.distributions in the inner loop.

Noise is drawn from the run's own NumPy generator and turned into actions by a pure function, so that every
acting path (torch, NumPy) takes the same actions from the same random stream.
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
from limelight.nn.bounds import ToEnv, log_half_ranges, make_to_env, shaped
from limelight.nn.squash import log_slope, mean_log_slope
from limelight.settings.schema import ModelConfig
from limelight.spaces.packed import Packed, path_name

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0
"""log σ is held within these: an unbounded one ends in NaN sooner or later."""
GSDE_EPS = 1e-6
"""Keeps log σ finite where all features are 0."""
_HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)

ActionDtype = type[np.float32] | type[np.int64]


class ActionDistribution(Protocol):
    """A family of distributions π(·|params) over one action space. ``params`` is the policy head's output [..., K].

    Of the K numbers the first ``num_outputs`` depend on the state; the others are parameters of their own.
    """

    num_outputs: int
    initial: NDArray[np.float32]
    """What the parameters start from, [K], but for what the head's weights make of the first features."""
    action_shape: tuple[int, ...]
    """() of actions that are one number, else (A,)."""
    action_dtype: ActionDtype
    to_env: ToEnv
    """What the environments get of sampled actions [B, *action_shape]."""

    def noise(self, rng: np.random.Generator, batch: int) -> NDArray[np.float32]:
        """The randomness of ``batch`` samples, a number for each of theirs, [batch, A] ([batch, 1] of one number)."""

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Actions [..., *action_shape] as a deterministic function of ``noise``."""

    def mode(self, params: Tensor) -> Tensor:
        """The most probable actions [..., *action_shape]."""

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Log π(action), [...]."""

    def entropy(self, params: Tensor) -> Tensor:
        """Entropy in nats, [...]."""


def unchanged(actions: NDArray[Any]) -> NDArray[Any]:
    """Actions that are sampled as the environment takes them."""
    return actions


class Categorical:
    """One of the n actions start .. start + n − 1; ``params`` are unnormalised log-probabilities (logits) [..., n]."""

    action_shape: tuple[int, ...] = ()
    action_dtype: ActionDtype = np.int64
    to_env: ToEnv = staticmethod(unchanged)

    def __init__(self, n: int, start: int = 0) -> None:
        self.num_outputs, self.start = n, start
        self.initial = np.zeros(n, np.float32)

    def noise(self, rng: np.random.Generator, batch: int) -> NDArray[np.float32]:
        """One uniform number in [0, 1) per sample, [batch, 1]."""
        return rng.random((batch, 1), dtype=np.float32)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """Inverse transform: the first action whose cumulative probability exceeds the noise, int64 [...]."""
        cumulative = (params - params.amax(-1, keepdim=True)).exp().cumsum(-1)
        # Normalising would round: sums below 1 would let noise near 1 choose an action of probability 0.
        return (cumulative[..., :-1] <= noise * cumulative[..., -1:]).sum(-1) + self.start

    def mode(self, params: Tensor) -> Tensor:
        """The action of the largest logit (the first of equals), int64 [...]."""
        return params.argmax(-1) + self.start

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Log softmax(params)[action], [...]."""
        return params.log_softmax(-1).gather(-1, (actions.long() - self.start).unsqueeze(-1)).squeeze(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """−Σ p log p, [...]."""
        log_p = params.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)


class Bernoulli:
    """A independent yeses (1) or noes (0); ``params`` are log-odds of the yeses, [..., A]."""

    action_dtype: ActionDtype = np.float32

    def __init__(self, size: int, to_env: ToEnv = unchanged) -> None:
        self.num_outputs, self.to_env = size, to_env
        self.action_shape: tuple[int, ...] = (size,)
        self.initial = np.zeros(size, np.float32)

    def noise(self, rng: np.random.Generator, batch: int) -> NDArray[np.float32]:
        """Uniform numbers in [0, 1), [batch, A]."""
        return rng.random((batch, self.num_outputs), dtype=np.float32)

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """1 where the noise is below the probability, float32 [..., A]."""
        return (noise < params.sigmoid()).float()

    def mode(self, params: Tensor) -> Tensor:
        """1 where the probability is above ½, float32 [..., A]."""
        return (params > 0.0).float()

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Σ a z − softplus(z) over the log-odds z, [...]."""
        return (actions * params - nn.functional.softplus(params)).sum(-1)

    def entropy(self, params: Tensor) -> Tensor:
        """Σ softplus(−|z|) + |z| sigmoid(−|z|), [...]."""
        z = params.abs()
        return (nn.functional.softplus(-z) + z * (-z).sigmoid()).sum(-1)


class _Bounded(torch.autograd.Function):
    """log σ within its limits. Beyond them its gradient passes only where a descent leads back: clamp would hold it."""

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
    """Independent normal distributions N(μ, σ²) in A dimensions; ``params`` are μ and a number for σ, [..., 2A].

    log σ is that number itself, or with ``softplus`` ½ log softplus of it (the variance, as in Mnih et al. 2016,
    section 9), and lies within :data:`LOG_STD_MIN` and :data:`LOG_STD_MAX`. Actions [..., A] are stored as they were
    sampled, and log π and entropy are theirs: clipping, and the units that rescaling gives them, are the environment's.
    Where ``to_env`` squashes them, ``log_scale`` is Σ log ½ (high − low), and both are of what the environment gets,
    low + ½ (high − low)(1 + tanh u): a change of variables by a factor that the parameters have no part in.
    """

    action_dtype: ActionDtype = np.float32

    def __init__(self, size: int, to_env: ToEnv, config: ModelConfig, log_scale: float | None = None) -> None:
        self.size, self.to_env, self.log_scale = size, to_env, log_scale
        self.action_shape: tuple[int, ...] = (size,)
        self.num_outputs = size if config.action_std in ("parameter", "gsde") else 2 * size
        self.softplus = config.action_std == "softplus"
        self.gsde_init = config.log_std_init if config.action_std == "gsde" else None
        """What the parameters of :class:`Gsde` start from, where that makes σ."""
        start = config.log_std_init
        if self.softplus:
            start = math.log(math.expm1(math.exp(2.0 * start)))
        self.initial = np.repeat(np.array([0.0, start], np.float32), size)
        if self.gsde_init is not None:
            self.initial = self.initial[:size]

    def noise(self, rng: np.random.Generator, batch: int) -> NDArray[np.float32]:
        """Standard normal, [batch, A]."""
        return rng.standard_normal((batch, self.size), dtype=np.float32)

    def split(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """μ and log σ, each [..., A]."""
        mean, raw = params[..., : self.size], params[..., self.size :]
        log_std = 0.5 * nn.functional.softplus(raw).clamp_min(1e-8).log() if self.softplus else raw
        bounded: Tensor = _Bounded.apply(log_std)  # type: ignore[no-untyped-call]
        return mean, bounded

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """μ + σ · noise, float32 [..., A]."""
        mean, log_std = self.split(params)
        return mean + log_std.exp() * noise

    def mode(self, params: Tensor) -> Tensor:
        """μ, [..., A]; squashed it is the median of what the environment gets, not its densest point."""
        return params[..., : self.size]

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """−½ Σ ((a − μ) / σ)² − Σ log σ − ½ A log 2π, squashed also − Σ log(1 − tanh² a) − log_scale, [...]."""
        mean, log_std = self.split(params)
        z = (actions - mean) * (-log_std).exp()
        log_probs = (-0.5 * z * z - log_std).sum(-1) - self.size * _HALF_LOG_2PI
        return log_probs if self.log_scale is None else log_probs - log_slope(actions).sum(-1) - self.log_scale

    def entropy(self, params: Tensor) -> Tensor:
        """Σ log σ + ½ A (1 + log 2π), squashed also + Σ E log(1 − tanh² a) + log_scale, [...]."""
        mean, log_std = self.split(params)
        entropies = log_std.sum(-1) + self.size * (0.5 + _HALF_LOG_2PI)
        if self.log_scale is None:
            return entropies
        return entropies + mean_log_slope(mean, log_std).sum(-1) + self.log_scale


class Factor(NamedTuple):
    """One of a :class:`FactorizedDistribution`, and where it stands in the whole."""

    distribution: ActionDistribution
    outputs: slice
    state_independent: slice
    """Its parameters among those of the whole."""
    noise: slice
    actions: int | slice
    """Its numbers among those of the whole: one of them, or an array."""


class FactorizedDistribution:
    """Independent parts, π(a) = Π πᵢ(aᵢ): log π and entropy are sums. Of MultiDiscrete, and of packed Dict and Tuple.

    ``params`` are the outputs of all parts, then the free parameters of all, [..., K]; actions (int64 if those of all
    parts are, else float32) and noise are those of all parts, side by side, [..., A].
    """

    def __init__(self, distributions: Sequence[ActionDistribution], to_env: ToEnv = unchanged) -> None:
        self.to_env = to_env
        self.parts: list[Factor] = []
        self.num_outputs = sum(d.num_outputs for d in distributions)
        output, free, number = 0, self.num_outputs, 0
        for d in distributions:
            outputs = slice(output, output + d.num_outputs)
            own = slice(free, free + len(d.initial) - d.num_outputs)
            noise = slice(number, number + math.prod(d.action_shape))
            self.parts.append(Factor(d, outputs, own, noise, noise if d.action_shape else number))
            output, free, number = outputs.stop, own.stop, noise.stop
        self.action_shape: tuple[int, ...] = (number,)
        floats = any(d.action_dtype is np.float32 for d in distributions)
        self.action_dtype: ActionDtype = np.float32 if floats else np.int64
        self.initial = np.empty(free, np.float32)
        for part in self.parts:
            d = part.distribution
            self.initial[part.outputs], self.initial[part.state_independent] = np.split(d.initial, [d.num_outputs])

    def noise(self, rng: np.random.Generator, batch: int) -> NDArray[np.float32]:
        """The noise of every part, [batch, A]."""
        noise: NDArray[np.float32] = np.concatenate([p.distribution.noise(rng, batch) for p in self.parts], -1)
        return noise

    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """A sample of every part, [..., A]."""
        return self._join([p.distribution.sample(_own(params, p), noise[..., p.noise]) for p in self.parts], params)

    def mode(self, params: Tensor) -> Tensor:
        """The mode of every part, [..., A]."""
        return self._join([p.distribution.mode(_own(params, p)) for p in self.parts], params)

    def log_prob(self, params: Tensor, actions: Tensor) -> Tensor:
        """Σ log πᵢ(aᵢ), [...]."""
        terms = [p.distribution.log_prob(_own(params, p), actions[..., p.actions]) for p in self.parts]
        return torch.stack(terms).sum(0)

    def entropy(self, params: Tensor) -> Tensor:
        """Σ Hᵢ, [...]."""
        return torch.stack([p.distribution.entropy(_own(params, p)) for p in self.parts]).sum(0)

    def _join(self, actions: list[Tensor], params: Tensor) -> Tensor:
        """The actions of all parts, side by side; torch makes float32 of int64 beside float32."""
        return torch.cat([a.reshape(*params.shape[:-1], -1) for a in actions], -1)


def _own(params: Tensor, part: Factor) -> Tensor:
    """The parameters of a part among those of the whole."""
    outputs = params[..., part.outputs]
    if part.state_independent.start == part.state_independent.stop:
        return outputs
    return torch.cat((outputs, params[..., part.state_independent]), -1)


class Gsde(nn.Module):
    """Features z [..., F] → log σ [..., A], with σⱼ² = 1/F Σᵢ (zᵢ e^(Lᵢⱼ))², L [F, A] parameters.

    That is the variance of Σᵢ θᵢⱼ zᵢ e^(Lᵢⱼ) / √F for standard normal θ, which is what exploration noise is made of
    (noise.py). No gradient goes through σ into the features. Source: Raffin, Kober & Stulp 2021, *Smooth
    exploration for robotic reinforcement learning*; 1/F is ours: σ starts near e^log_std_init at any width.
    """

    def __init__(self, num_features: int, num_actions: int, log_std_init: float) -> None:
        super().__init__()
        self.log_std = nn.Parameter(torch.full((num_features, num_actions), log_std_init))

    def forward(self, features: Tensor) -> Tensor:
        """Log σ, [..., A]."""
        variance = features.detach().square() @ (2.0 * self.log_std).exp() / features.shape[-1]
        return 0.5 * (variance + GSDE_EPS).log()


class PolicyHead(nn.Module):
    """Features [..., F] → parameters of the distribution [..., K]: linear outputs, then free parameters or log σ."""

    def __init__(self, num_features: int, distribution: ActionDistribution) -> None:
        super().__init__()
        self.linear = nn.Linear(num_features, distribution.num_outputs)
        outputs, free = np.split(distribution.initial, [distribution.num_outputs])
        self.state_independent = nn.Parameter(torch.from_numpy(free.copy())) if len(free) else None
        self.gsde: Gsde | None = None
        if isinstance(distribution, Gaussian) and distribution.gsde_init is not None:
            self.gsde = Gsde(num_features, distribution.size, distribution.gsde_init)
        self._initial_bias = torch.from_numpy(outputs.copy())

    def add_initial_bias(self) -> None:
        """Let the outputs begin where the distribution says; asked once, when all weights and biases are set."""
        with torch.no_grad():
            self.linear.bias.add_(self._initial_bias)

    def forward(self, features: Tensor) -> Tensor:
        """Parameters [..., K]."""
        outputs: Tensor = self.linear(features)
        if self.gsde is not None:
            return torch.cat((outputs, self.gsde(features)), -1)
        if self.state_independent is None:
            return outputs
        return torch.cat((outputs, self.state_independent.expand(*outputs.shape[:-1], -1)), -1)


def make_distribution(space: Space[Any], config: ModelConfig) -> ActionDistribution:
    """The distribution family of an action space.

    Raises: ConfigError for a space that has none, or settings that do not fit the space.
    """
    leaves = [leaf.space for leaf in space.leaves] if isinstance(space, Packed) else [space]
    if not any(isinstance(leaf, Box) for leaf in leaves):
        for name in ("action_std", "log_std_init", "action_bounds"):
            if getattr(config, name) != getattr(ModelConfig, name):
                raise ConfigError(
                    f"{name} = {getattr(config, name)}: only continuous actions use it; "
                    f"leave it out where the action space is {space}"
                )
    if config.action_std == "gsde" and isinstance(space, Packed):
        raise ConfigError(
            f"action_std = gsde: only where the action space is one Box, but it is {space}; set it to exp or softplus"
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
            raise ConfigError(f"action space {space}: a Box of integers is not supported; make it a MultiDiscrete")
        bounds = config.action_bounds
        return Gaussian(math.prod(space.shape), make_to_env(space, bounds), config, log_half_ranges(space, bounds))
    raise ConfigError(
        f"action space {space}: not supported; supported are Box, Discrete, MultiDiscrete, MultiBinary, and Dict and "
        "Tuple of these"
    )


def _packed_family(space: Packed, config: ModelConfig) -> ActionDistribution:
    """A part for every leaf. Environments get float64 where a leaf is: rounded to float32 it might leave its bounds."""
    parts: list[ActionDistribution] = []
    for leaf in space.leaves:
        try:
            parts.append(_family(leaf.space, config))
        except ConfigError as error:
            raise ConfigError(f"{error} (this is {path_name(leaf.path)} of the action space)") from None
    boxes = [leaf.space.dtype for leaf in space.leaves if isinstance(leaf.space, Box)]
    dtype = np.result_type(space.dtype, *boxes)

    def to_env(actions: NDArray[Any]) -> NDArray[Any]:
        vectors = np.empty(actions.shape, dtype)
        for part in factorised.parts:
            vectors[:, part.noise] = part.distribution.to_env(actions[:, part.actions]).reshape(len(actions), -1)
        return vectors

    factorised = FactorizedDistribution(parts, to_env)
    return factorised
