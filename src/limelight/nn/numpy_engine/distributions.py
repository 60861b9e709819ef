"""Action distributions in NumPy: sampling, and written-out derivatives of log π and of the entropy.

tests/equivalence/test_engine_copies.py holds each to its counterpart in nn/distributions.py and to autograd.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from limelight.nn.distributions import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    ActionDistribution,
    Bernoulli,
    Categorical,
    Factor,
    FactorizedDistribution,
    Gaussian,
)
from limelight.nn.squash import numpy_log_slope, numpy_mean_log_slope
from limelight.typing import FloatArray


class NumpyDistribution(Protocol):
    """The NumPy form of an :class:`~limelight.nn.distributions.ActionDistribution`; ``params`` are [N, K]."""

    def act(self, params: FloatArray, noise: FloatArray | None) -> NDArray[Any]:
        """Return the actions [N, *action_shape] of ``noise``, or the mode if it is None; may overwrite ``params``."""

    def grad(
        self, params: FloatArray, actions: NDArray[Any], d_log_probs: FloatArray, d_entropies: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return log π(a) [N], the entropies [N] and ∂L/∂params [N, K] from ∂L/∂ log π(a) [N] and ∂L/∂H [N]."""


class NumpyCategorical:
    """Samples and differentiates a :class:`~limelight.nn.distributions.Categorical`."""

    def __init__(self, distribution: Categorical) -> None:
        self.start = distribution.start

    def act(self, params: FloatArray, noise: FloatArray | None) -> NDArray[np.int64]:
        """Return the actions of the inverse transform, as Categorical.sample does, int64 [N]."""
        if noise is None:
            return params.argmax(-1) + self.start
        params -= np.maximum.reduce(params, axis=-1, keepdims=True)
        cumulative = np.add.accumulate(np.exp(params, out=params), axis=-1)
        # The cumulative weights are not normalised, so the noise is scaled
        actions: NDArray[np.int64] = np.add.reduce(
            cumulative[:, :-1] <= noise * cumulative[:, -1:], axis=-1, dtype=np.int64
        )
        actions += self.start
        return actions

    def grad(
        self, params: FloatArray, actions: NDArray[Any], d_log_probs: FloatArray, d_entropies: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Compute  ∂ log π(a) / ∂zⱼ = 1[j = a] − pⱼ   and   ∂H / ∂zⱼ = −pⱼ (log pⱼ + H)."""
        actions = actions - self.start
        log_p = params - np.maximum.reduce(params, axis=-1, keepdims=True)
        p = np.exp(log_p)
        total = np.add.reduce(p, axis=-1, keepdims=True)
        p /= total
        log_p -= np.log(total, out=total)
        negative_entropies = np.add.reduce(p * log_p, axis=-1, keepdims=True)
        taken = np.arange(len(actions)), actions
        d_params = np.negative(p)
        d_params[taken] += 1.0
        d_params *= d_log_probs[:, None]
        d_params -= d_entropies[:, None] * p * (log_p - negative_entropies)
        log_probs = log_p[taken]
        return log_probs, -negative_entropies[:, 0], d_params


class NumpyBernoulli:
    """Samples and differentiates a :class:`~limelight.nn.distributions.Bernoulli`."""

    def act(self, params: FloatArray, noise: FloatArray | None) -> NDArray[np.float32]:
        """Return 1 where the noise is below the probability of success, or where this is above ½, float32 [N, A]."""
        successes = params > 0.0 if noise is None else noise < sigmoid(params)
        return successes.astype(np.float32)

    def grad(
        self, params: FloatArray, actions: NDArray[Any], d_log_probs: FloatArray, d_entropies: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Compute, with p = sigmoid(z),  ∂ log π / ∂z = a − p   and   ∂H / ∂z = −z p (1 − p)."""
        p, distance = sigmoid(params), np.abs(params)
        softplus = np.log1p(np.exp(-distance))  # of −|z|
        log_probs = np.add.reduce(actions * params - softplus - np.maximum(params, 0.0), axis=-1)
        entropies = np.add.reduce(softplus + distance * sigmoid(-distance), axis=-1)
        d_params = d_log_probs[:, None] * (actions - p) - d_entropies[:, None] * params * p * (1.0 - p)
        return log_probs, entropies, d_params


class NumpyGaussian:
    """Samples and differentiates a :class:`~limelight.nn.distributions.Gaussian`."""

    def __init__(self, distribution: Gaussian) -> None:
        self.size = distribution.size
        self.power = distribution.power
        self.constant = self.size * 0.5 * math.log(2.0 * math.pi)
        self.log_scale = distribution.log_scale

    def act(self, params: FloatArray, noise: FloatArray | None) -> FloatArray:
        """Return μ + σ · noise, or μ, float32 [N, A]."""
        mean = params[:, : self.size]
        if noise is None:
            return mean.copy()  # the next step overwrites params
        unbounded, _ = self._log_std(params[:, self.size :])
        actions = np.exp(unbounded.clip(LOG_STD_MIN, LOG_STD_MAX))
        actions *= noise
        actions += mean
        return actions

    def grad(
        self, params: FloatArray, actions: NDArray[Any], d_log_probs: FloatArray, d_entropies: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Compute, with z = (a − μ)/σ,  ∂ log π / ∂μ = z/σ,  ∂ log π / ∂ log σ = z² − 1  and  ∂H / ∂ log σ = 1.

        Squashed, the entropy also has E log(1 − tanh² u), which depends on μ and on σ.
        """
        unbounded, slope = self._log_std(params[:, self.size :])
        log_std = unbounded.clip(LOG_STD_MIN, LOG_STD_MAX)
        inverse_std = np.exp(-log_std)
        z = (actions - params[:, : self.size]) * inverse_std
        square = z * z
        sum_log_std = np.add.reduce(log_std, axis=-1)
        log_probs = -0.5 * np.add.reduce(square, axis=-1) - sum_log_std - self.constant
        entropies = sum_log_std + (0.5 * self.size + self.constant)
        d_params = np.empty_like(params)
        d_log_probs = d_log_probs[:, None]
        d_mean, d_log_std = d_params[:, : self.size], d_params[:, self.size :]
        np.multiply(z, inverse_std, out=d_mean)
        d_mean *= d_log_probs
        square -= 1.0
        square *= d_log_probs
        by_entropy = np.broadcast_to(d_entropies[:, None], square.shape)
        if self.log_scale is not None:
            log_probs -= np.add.reduce(numpy_log_slope(actions), axis=-1) + self.log_scale
            change, by_mean, by_log_std = numpy_mean_log_slope(params[:, : self.size], np.exp(log_std))
            entropies += np.add.reduce(change, axis=-1) + self.log_scale
            d_mean += d_entropies[:, None] * by_mean
            by_entropy = by_entropy * (1.0 + by_log_std)
        np.add(inwards(unbounded, square), inwards(unbounded, by_entropy), out=d_log_std)
        d_log_std *= slope
        return log_probs, entropies, d_params

    def _log_std(self, raw: FloatArray) -> tuple[FloatArray, FloatArray | float]:
        """Return log σ [N, A] of the raw numbers, before its limits, and its derivative."""
        if self.power is None:
            return raw, 1.0
        softplus = np.logaddexp(raw, np.float32(0.0))
        slope = np.where(softplus > 1e-8, -self.power * np.expm1(-softplus) / np.maximum(softplus, 1e-8), 0.0)
        return self.power * np.log(np.maximum(softplus, np.float32(1e-8))), slope.astype(np.float32)


def inwards(log_std: FloatArray, grad: FloatArray) -> FloatArray:
    """Return ``grad``, 0 where log σ is beyond a limit and a descent would move it farther out."""
    outwards = ((log_std > LOG_STD_MAX) & (grad < 0.0)) | ((log_std < LOG_STD_MIN) & (grad > 0.0))
    return np.where(outwards, np.float32(0.0), grad)


class NumpyFactorized:
    """Samples and differentiates a :class:`~limelight.nn.distributions.FactorizedDistribution`."""

    def __init__(self, distribution: FactorizedDistribution, forms: list[NumpyDistribution]) -> None:
        self.factors = list(zip(distribution.factors, forms, strict=True))
        (self.size,) = distribution.action_shape
        self.dtype = distribution.action_dtype

    def act(self, params: FloatArray, noise: FloatArray | None) -> NDArray[Any]:
        """Return the actions of all factors side by side, [N, A]."""
        actions = np.empty((len(params), self.size), self.dtype)
        for f, form in self.factors:
            actions[:, f.actions] = form.act(_params_of(f, params), None if noise is None else noise[:, f.noise])
        return actions

    def grad(
        self, params: FloatArray, actions: NDArray[Any], d_log_probs: FloatArray, d_entropies: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Sum log π and the entropies over the factors; each factor has its own columns of ∂L/∂params."""
        log_probs, entropies = np.zeros((2, len(params)), np.float32)
        d_params = np.empty_like(params)
        for f, form in self.factors:
            taken = actions[:, f.actions].astype(f.distribution.action_dtype, copy=False)
            log_prob, entropy, d_factor = form.grad(_params_of(f, params), taken, d_log_probs, d_entropies)
            log_probs += log_prob
            entropies += entropy
            num_outputs = f.distribution.num_outputs
            d_params[:, f.outputs], d_params[:, f.state_independent] = np.split(d_factor, [num_outputs], axis=1)
        return log_probs, entropies, d_params


def _params_of(factor: Factor, params: FloatArray) -> FloatArray:
    """Return the parameters [N, K'] of a factor."""
    outputs = params[:, factor.outputs]
    if factor.state_independent.start == factor.state_independent.stop:
        return outputs
    return np.concatenate((outputs, params[:, factor.state_independent]), axis=1)


def sigmoid(x: FloatArray, out: FloatArray | None = None) -> FloatArray:
    """Return 1 / (1 + e⁻ˣ) = ½ + ½ tanh(x / 2), in ``out`` (may be x) or in new memory; it does not overflow."""
    y = np.multiply(x, 0.5, out=out)
    np.tanh(y, out=y)
    y *= 0.5
    y += 0.5
    return y


def numpy_distribution(distribution: ActionDistribution) -> NumpyDistribution | None:
    """Return the NumPy form of ``distribution``; None if it, or one of its factors, has none."""
    if type(distribution) is Categorical:
        return NumpyCategorical(distribution)
    if type(distribution) is Bernoulli:
        return NumpyBernoulli()
    if type(distribution) is Gaussian:
        return NumpyGaussian(distribution)
    if type(distribution) is FactorizedDistribution:
        forms = [numpy_distribution(factor.distribution) for factor in distribution.factors]
        known = [form for form in forms if form is not None]
        return NumpyFactorized(distribution, known) if len(known) == len(forms) else None
    return None
