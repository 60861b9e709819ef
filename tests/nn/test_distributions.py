"""Distributions compared with torch.distributions and Monte Carlo, and sampling as a function of the noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text, Tuple
from torch import Tensor, nn

from conftest import random_actions
from limelight.errors import ConfigError
from limelight.nn.distributions import (
    LOG_STD_MAX,
    LOG_STD_MIN,
    Bernoulli,
    Categorical,
    FactorizedDistribution,
    Gaussian,
    make_distribution,
)
from limelight.nn.model import ILLEGAL, ActorCritic, make_model
from limelight.nn.numpy_engine.distributions import numpy_distribution
from limelight.settings.schema import ModelConfig
from limelight.spaces.packed import Packed

LARGEST_NOISE = 1.0 - 2.0**-24  # the largest float32 that Generator.random returns


@pytest.fixture
def logits() -> Tensor:
    """[T, B, n], from nearly uniform to nearly certain."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.01, 1.0, 10.0, 50.0])[:, None, None]
    return torch.randn(4, 5, 6, generator=generator) * scale


def test_categorical_agrees_with_torch(logits: Tensor) -> None:
    ours, theirs = Categorical(6), torch.distributions.Categorical(logits=logits)
    actions = torch.arange(20).reshape(4, 5) % 6
    torch.testing.assert_close(ours.log_prob(logits, actions), theirs.log_prob(actions))
    torch.testing.assert_close(ours.log_prob(logits, actions.int()), theirs.log_prob(actions))
    torch.testing.assert_close(ours.entropy(logits), theirs.entropy())
    assert torch.equal(ours.mode(logits), theirs.mode)
    assert ours.mode(torch.zeros(1, 6)).tolist() == [0]


def test_categorical_gradients_at_extreme_logits_are_finite() -> None:
    logits = torch.tensor([[0.0, -1e4, 1e4]], requires_grad=True)
    distribution = Categorical(3)
    (distribution.log_prob(logits, torch.tensor([2])) + distribution.entropy(logits)).sum().backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_categorical_samples_at_the_frequencies_of_its_probabilities() -> None:
    distribution, n = Categorical(4), 100_000
    params = torch.tensor([1.0, 0.0, -1.0, 2.0])
    noise = torch.from_numpy(distribution.noise(np.random.default_rng(0), n))
    actions = distribution.sample(params.expand(n, 4), noise)
    assert actions.dtype == torch.int64
    frequencies = torch.bincount(actions, minlength=4) / n
    torch.testing.assert_close(frequencies, params.softmax(-1), atol=0.006, rtol=0.0)  # 4 standard errors


def test_categorical_noise_is_uniform_and_reproducible() -> None:
    distribution = Categorical(4)
    noise = distribution.noise(np.random.default_rng(0), 1000)
    assert noise.shape == (1000, 1)
    assert noise.dtype == np.float32
    assert noise.min() >= 0.0
    assert noise.max() < 1.0
    np.testing.assert_array_equal(noise, distribution.noise(np.random.default_rng(0), 1000))


@pytest.mark.parametrize("n", [2, 3, 7, 18])
def test_extreme_noise_chooses_the_first_and_last_possible_action(n: int) -> None:
    """An action is possible if its probability is not 0 in float32; rounding must not choose another."""
    generator = torch.Generator().manual_seed(n)
    inner = torch.randn(2000, n, generator=generator)
    impossible = torch.full((2000, 1), -300.0)
    params = torch.cat([impossible, inner, impossible], -1)
    distribution = Categorical(n + 2)
    assert (distribution.sample(params, torch.zeros(2000, 1)) == 1).all()
    assert (distribution.sample(params, torch.full((2000, 1), LARGEST_NOISE)) == n).all()
    assert (Categorical(n).sample(inner, torch.full((2000, 1), LARGEST_NOISE)) == n - 1).all()


def test_noise_is_compared_with_cumulative_probabilities() -> None:
    params = torch.tensor([0.2, 0.5, 0.3]).log()
    noise = torch.tensor([[0.0], [0.19], [0.21], [0.69], [0.71], [LARGEST_NOISE]])
    assert Categorical(3).sample(params.expand(6, 3), noise).tolist() == [0, 0, 1, 1, 2, 2]


def test_start_shifts_the_actions_of_the_same_distribution() -> None:
    """Everything else stays equal."""
    params = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    plain, shifted = Categorical(4), Categorical(4, start=-7)
    noise = torch.from_numpy(plain.noise(np.random.default_rng(0), 50))
    actions = plain.sample(params, noise)
    assert torch.equal(shifted.sample(params, noise), actions - 7)
    assert torch.equal(shifted.mode(params), plain.mode(params) - 7)
    assert torch.equal(shifted.log_prob(params, actions - 7), plain.log_prob(params, actions))
    assert torch.equal(shifted.entropy(params), plain.entropy(params))


# --------------------------------------------------------------------------- Bernoulli


def test_bernoulli_agrees_with_torch(logits: Tensor) -> None:
    ours = Bernoulli(6)
    theirs = torch.distributions.Independent(torch.distributions.Bernoulli(logits=logits), 1)
    actions = (torch.arange(120).reshape(4, 5, 6) % 3 == 0).float()
    torch.testing.assert_close(ours.log_prob(logits, actions), theirs.log_prob(actions))
    torch.testing.assert_close(ours.entropy(logits), theirs.entropy())
    assert torch.equal(ours.mode(logits), (logits > 0).float())


def test_bernoulli_samples_at_the_frequencies_of_its_probabilities() -> None:
    distribution, n = Bernoulli(4), 100_000
    params = torch.tensor([1.0, -2.0, -300.0, 300.0])
    noise = distribution.noise(np.random.default_rng(0), n)
    assert noise.shape == (n, 4)
    assert noise.dtype == np.float32
    actions = distribution.sample(params.expand(n, 4), torch.from_numpy(noise))
    torch.testing.assert_close(actions.mean(0), params.sigmoid(), atol=0.006, rtol=0.0)
    for edge in (0.0, LARGEST_NOISE):
        assert distribution.sample(params, torch.full((4,), edge))[2:].tolist() == [0.0, 1.0]


def test_bernoulli_gradients_at_extreme_odds_are_finite() -> None:
    params = torch.tensor([[-1e4, 0.0, 1e4]], requires_grad=True)
    distribution = Bernoulli(3)
    (distribution.log_prob(params, torch.tensor([[1.0, 1.0, 0.0]])) + distribution.entropy(params)).sum().backward()
    assert params.grad is not None
    assert params.grad.isfinite().all()


# --------------------------------------------------------------------------- Gaussian

STDS = ["parameter", "exp", "softplus"]
every_std = pytest.mark.parametrize("std", STDS)
WIDE = Box(np.float32([-2.0, 0.0, -1.0]), np.float32([2.0, 10.0, 1.0]))


def gaussian(std: str = "parameter", bounds: str = "clip", log_std_init: float = 0.0, space: Box = WIDE) -> Gaussian:
    config = ModelConfig(action_std=std, action_bounds=bounds, log_std_init=log_std_init)  # type: ignore[arg-type]
    distribution = make_distribution(space, config)
    assert isinstance(distribution, Gaussian)
    return distribution


def some_params(*lead: int, seed: int = 0) -> Tensor:
    return torch.randn(*lead, 6, generator=torch.Generator().manual_seed(seed))


def expected_normal(std: str, params: Tensor) -> torch.distributions.Normal:
    """The normal distribution of ``params``, by torch."""
    mean, raw = params.chunk(2, -1)
    if std == "softplus":
        return torch.distributions.Normal(mean, nn.functional.softplus(raw).sqrt())
    return torch.distributions.Normal(mean, raw.clamp(LOG_STD_MIN, LOG_STD_MAX).exp())


@every_std
@pytest.mark.parametrize("bounds", ["clip", "rescale"])
def test_gaussian_agrees_with_torch(std: str, bounds: str) -> None:
    """The bounds do not matter: log π is that of the sampled actions."""
    ours, params, actions = gaussian(std, bounds), some_params(4, 5), 3.0 * some_params(4, 5, seed=1)[..., :3]
    theirs = torch.distributions.Independent(expected_normal(std, params), 1)
    torch.testing.assert_close(ours.log_prob(params, actions), theirs.log_prob(actions))
    torch.testing.assert_close(ours.entropy(params), theirs.entropy())
    assert torch.equal(ours.mode(params), params[..., :3])


@every_std
def test_gaussian_samples_have_its_mean_and_deviation(std: str) -> None:
    distribution, params, n = gaussian(std), some_params(), 200_000
    noise = torch.from_numpy(distribution.noise(np.random.default_rng(0), n))
    samples = distribution.sample(params.expand(n, 6), noise)
    assert samples.dtype == torch.float32
    expected = expected_normal(std, params)
    torch.testing.assert_close(samples.mean(0), expected.mean, atol=0.02, rtol=0.0)
    torch.testing.assert_close(samples.std(0), expected.stddev, atol=0.0, rtol=0.01)


@every_std
def test_sigma_is_clipped_to_its_limits(std: str) -> None:
    distribution = gaussian(std)
    params = torch.tensor([0.0, 0.0, 0.0, -1e6, 0.5, 1e6], requires_grad=True)
    log_std = distribution.split(params)[1]
    assert log_std.detach()[[0, 2]].tolist() == [LOG_STD_MIN, LOG_STD_MAX]
    assert distribution.log_prob(params, torch.ones(3)).isfinite()


@every_std
def test_sigma_beyond_its_limits_moves_back_but_not_farther_out(std: str) -> None:
    distribution = gaussian(std)
    raw = [-11.0, 0.5, 60.0] if std == "softplus" else [LOG_STD_MIN - 1, 0.5, LOG_STD_MAX + 1]  # softplus(60) > e⁴
    for sign, moved in ((1.0, [False, True, True]), (-1.0, [True, True, False])):
        params = torch.tensor([0.0, 0.0, 0.0, *raw], requires_grad=True)
        (sign * distribution.split(params)[1].sum()).backward()
        assert params.grad is not None
        assert (params.grad[3:] != 0.0).tolist() == moved  # with sign + a descent lowers log σ
        log_probs = distribution.log_prob(params, torch.full((3,), 2.0))
        params.grad = None
        log_probs.backward()
        d_params = numpy_distribution(distribution).grad(
            params.detach().numpy()[None], np.full((1, 3), 2.0, np.float32), np.ones(1, np.float32), np.zeros(1)
        )[2]
        np.testing.assert_allclose(d_params[0], params.grad, rtol=1e-5, atol=1e-6)


@every_std
@pytest.mark.parametrize("log_std_init", [LOG_STD_MIN, -0.7, 0.0, LOG_STD_MAX])
def test_sigma_starts_at_log_std_init(std: str, log_std_init: float) -> None:
    """It does so in the model too, and has a gradient there."""
    distribution = gaussian(std, log_std_init=log_std_init)
    initial = torch.from_numpy(distribution.initial).requires_grad_()
    log_std = distribution.split(initial)[1]
    torch.testing.assert_close(log_std, torch.full((3,), log_std_init), atol=1e-3, rtol=0.0)
    log_std.sum().backward()
    inside = LOG_STD_MIN < log_std_init < LOG_STD_MAX
    assert initial.grad is not None
    assert not inside or bool((initial.grad[3:] > 0).all())
    config = ModelConfig(action_std=std, log_std_init=log_std_init, policy_init_gain=1e-6)  # type: ignore[arg-type]
    model = make_model(Box(-1, 1, (4,)), WIDE, config, seed=0)
    log_std = distribution.split(model(torch.ones(1, 5, 4)).params)[1]
    torch.testing.assert_close(log_std, torch.full((1, 5, 3), log_std_init), atol=1e-3, rtol=0.0)


def gsde_model(log_std_init: float = 0.0) -> ActorCritic:
    config = ModelConfig(action_std="gsde", log_std_init=log_std_init, hidden_sizes=(8, 5), policy_init_gain=1.0)
    model = make_model(Box(-1, 1, (4,)), WIDE, config, seed=0)
    assert model.policy_head.gsde is not None
    return model


def test_sigma_of_gsde_is_the_deviation_of_features_weighted_by_noise() -> None:
    """Compared with samples of the weights; if all features are 0, log σ is at its lower limit."""
    model, n = gsde_model(), 100_000
    head = model.policy_head
    with torch.no_grad():
        head.gsde.log_std += torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    features = torch.tensor([[0.5, -1.0, 0.2, 0.9, -0.3], [0.0, 0.0, 0.0, 0.0, 0.0]])
    mean, log_std = model.distribution.split(head(features))
    torch.testing.assert_close(mean, head.linear(features))
    theta = torch.randn(n, 5, 3, generator=torch.Generator().manual_seed(0)) * head.gsde.log_std.exp()
    noise = torch.einsum("f,nfa->na", features[0], theta) / math.sqrt(5)
    torch.testing.assert_close(log_std[0].exp(), noise.std(0), rtol=0.01, atol=0.0)
    assert (log_std[1] == LOG_STD_MIN).all()


def test_sigma_of_gsde_has_gradients_into_its_parameters_but_not_into_the_features() -> None:
    model = gsde_model()
    features = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    params = model.policy_head(features)
    params[:, 3:].sum().backward()
    assert features.grad is None or not features.grad.any()
    # ∂ log σⱼ / ∂Lᵢⱼ is the share of feature i in the variance; these sum to 1 for each row and action
    torch.testing.assert_close(model.policy_head.gsde.log_std.grad.sum(), torch.tensor(60.0), rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("log_std_init", [-2.0, 0.0])
def test_sigma_of_gsde_starts_near_log_std_init(log_std_init: float) -> None:
    """It is lower by the size of the features, which are below 1 due to tanh."""
    model = gsde_model(log_std_init)
    obs = torch.randn(1, 200, 4, generator=torch.Generator().manual_seed(0))
    log_std = model.distribution.split(model(obs).params)[1]
    assert (log_std < log_std_init).all()
    assert log_std.mean() > log_std_init - 1.0


def test_sigma_starts_at_log_std_init_with_pytorch_initialisation() -> None:
    config = ModelConfig(action_std="exp", log_std_init=-3.0, orthogonal_init=False)
    bias = make_model(Box(-1, 1, (4,)), WIDE, config, seed=0).policy_head.linear.bias
    assert (bias[3:] < -2.5).all()
    assert bias[:3].abs().max() < 0.5


# --------------------------------------------------------------------------- squashed


def squashed(params: Tensor) -> torch.distributions.Distribution:
    """The distribution of actions in the environment's units, by torch."""
    low, high = torch.from_numpy(WIDE.low), torch.from_numpy(WIDE.high)
    transforms = [
        torch.distributions.TanhTransform(),
        torch.distributions.AffineTransform(0.5 * (low + high), 0.5 * (high - low)),
    ]
    base = expected_normal("parameter", params)
    return torch.distributions.Independent(torch.distributions.TransformedDistribution(base, transforms), 1)


def test_squashed_log_prob_is_that_of_the_environments_action() -> None:
    distribution, params = gaussian(bounds="squash"), some_params(50).double()
    noise = torch.from_numpy(distribution.noise(np.random.default_rng(0), 50)).double()
    sampled = distribution.sample(params, noise)
    low, high = torch.from_numpy(WIDE.low).double(), torch.from_numpy(WIDE.high).double()
    played = 0.5 * (low + high) + 0.5 * (high - low) * sampled.tanh()
    np.testing.assert_allclose(distribution.to_env(sampled.float().numpy()), played, rtol=1e-5, atol=1e-5)
    theirs = squashed(params).log_prob(played)
    torch.testing.assert_close(distribution.log_prob(params, sampled), theirs, rtol=1e-6, atol=1e-6)


def test_squashing_does_not_change_the_gradient_of_log_prob() -> None:
    actions, gradients = some_params(50, seed=1)[..., :3], []
    for bounds in ("clip", "squash"):
        params = some_params(50).requires_grad_()
        gaussian(bounds=bounds).log_prob(params, actions).sum().backward()
        gradients.append(params.grad)
    assert torch.equal(*gradients)


def test_squashed_log_prob_is_finite_for_large_actions() -> None:
    params = torch.tensor([40.0, -40.0, 0.0, 2.0, 2.0, 2.0], requires_grad=True)
    distribution = gaussian(bounds="squash")
    (distribution.log_prob(params, torch.tensor([60.0, -60.0, 1.0])) + distribution.entropy(params)).backward()
    assert params.grad is not None
    assert params.grad.isfinite().all()


@pytest.mark.parametrize("log_std", [-5.0, -1.0, 0.0, 1.0, 2.0])
@pytest.mark.parametrize("mean", [0.0, 0.4, -2.0, 6.0])
def test_squashed_entropy_is_the_mean_of_minus_log_prob(mean: float, log_std: float) -> None:
    """By Monte Carlo with half a million samples; its gradient is the reparametrised one."""
    distribution, n = gaussian(bounds="squash", space=Box(0.0, 10.0, (1,))), 500_000
    params = torch.tensor([mean, log_std], dtype=torch.float64, requires_grad=True)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal((n, 1)))
    samples = distribution.sample(params.expand(n, 2), noise)
    log_probs = distribution.log_prob(params.expand(n, 2), samples)
    error = 4.0 * float(log_probs.detach().std()) / math.sqrt(n) + 0.005
    expected = -log_probs.mean()
    entropy = distribution.entropy(params)
    assert float(entropy.detach()) == pytest.approx(float(expected.detach()), abs=error)
    (ours,) = torch.autograd.grad(entropy, params)
    (theirs,) = torch.autograd.grad(expected, params)
    np.testing.assert_allclose(ours, theirs, atol=0.02 * max(1.0, math.exp(log_std)) / 2)


# --------------------------------------------------------------------------- products

ALL = Packed(
    Dict(
        gear=Discrete(3, start=2),
        wheel=Box(np.array([-2.0, 0.0]), np.array([1.0, 3.0]), dtype=np.float64),
        lights=MultiBinary([2, 2]),
        slots=Tuple([MultiDiscrete([[2, 3], [4, 1]], start=[[0, 5], [-1, 0]]), Box(-1.0, 1.0, ())]),
    )
)


@every_std
@pytest.mark.parametrize("bounds", ["clip", "squash"])
def test_a_product_sums_the_log_probs_and_entropies_of_its_factors(std: str, bounds: str) -> None:
    """Each factor has its own columns: outputs first, then state-independent parameters."""
    config = ModelConfig(action_std=std, action_bounds=bounds, log_std_init=-1.0)  # type: ignore[arg-type]
    whole = make_distribution(ALL, config)
    assert isinstance(whole, FactorizedDistribution)
    gear, wheel, lights, slots, tilt = (
        make_distribution(leaf.space, config_for(leaf.space, config)) for leaf in ALL.leaves
    )
    params = torch.randn(40, len(whole.initial), generator=torch.Generator().manual_seed(0))
    independent = std == "parameter"
    sizes = [3, 2 if independent else 4, 4, 10, 1 if independent else 2]
    own = list(params[:, : sum(sizes)].split(sizes, -1))
    assert whole.num_outputs == sum(sizes)
    if independent:
        own[1] = torch.cat([own[1], params[:, -3:-1]], -1)
        own[4] = torch.cat([own[4], params[:, -1:]], -1)
    actions = torch.from_numpy(random_actions(ALL, np.random.default_rng(0), 40))
    taken = [actions[:, 0], actions[:, 1:3], actions[:, 3:7], actions[:, 7:11], actions[:, 11:]]
    parts = list(zip((gear, wheel, lights, slots, tilt), own, taken, strict=True))
    log_prob = sum(d.log_prob(p, a) for d, p, a in parts)
    torch.testing.assert_close(whole.log_prob(params, actions), log_prob)
    torch.testing.assert_close(whole.entropy(params), sum(d.entropy(p) for d, p, _ in parts))
    modes = [d.mode(p).reshape(40, -1).float() for d, p, _ in parts]
    assert torch.equal(whole.mode(params), torch.cat(modes, -1))
    noise = whole.noise(np.random.default_rng(0), 40)
    assert noise.shape == actions.shape
    expected = [
        d.sample(p, n).reshape(40, -1).float()
        for (d, p, _), n in zip(parts, torch.from_numpy(noise).split([1, 2, 4, 4, 1], -1), strict=True)
    ]
    assert torch.equal(whole.sample(params, torch.from_numpy(noise)), torch.cat(expected, -1))
    assert whole.sample(params, torch.from_numpy(noise)).dtype == torch.float32


def config_for(space: Space[Any], config: ModelConfig) -> ModelConfig:
    """The settings that a distribution over ``space`` alone allows."""
    return config if isinstance(space, Box) else ModelConfig()


def test_a_product_starts_at_the_initial_parameters_of_its_factors() -> None:
    initial = make_distribution(ALL, ModelConfig(log_std_init=-1.0)).initial
    assert initial.tolist() == [0.0] * 20 + [-1.0] * 3
    initial = make_distribution(ALL, ModelConfig(log_std_init=-1.0, action_std="exp")).initial
    assert np.flatnonzero(initial == -1.0).tolist() == [5, 6, 22]


@pytest.mark.parametrize("bounds", ["auto", "clip", "rescale", "squash"])
def test_packed_actions_are_in_their_space(bounds: str) -> None:
    config = ModelConfig(action_bounds=bounds, log_std_init=2.0)  # type: ignore[arg-type]
    distribution = make_distribution(ALL, config)
    params = 5.0 * torch.randn(500, len(distribution.initial), generator=torch.Generator().manual_seed(0))
    noise = torch.from_numpy(distribution.noise(np.random.default_rng(0), 500))
    played = distribution.to_env(distribution.sample(params, noise).numpy())
    for vector in played:
        assert ALL.original.contains(ALL.unpack(vector))
    assert len(np.unique(played[:, 0])) == 3


def test_packed_actions_without_a_box_are_integers() -> None:
    space = Packed(Tuple([Discrete(300), MultiDiscrete([2, 2])]))
    distribution = make_distribution(space, ModelConfig())
    actions = distribution.mode(torch.eye(304)[[299]])
    assert actions.dtype == torch.int64
    assert distribution.action_dtype is np.int64
    value = space.unpack(distribution.to_env(actions.numpy())[0])
    assert value[0] == 299
    assert space.original.contains(value)


@pytest.mark.parametrize(
    "space",
    [MultiDiscrete([3, 2, 4]), MultiDiscrete([[3, 2], [1, 4]], start=[[-1, 0], [7, 2]], dtype=np.int32)],
)
def test_multi_discrete_is_a_product_of_categoricals(space: MultiDiscrete) -> None:
    """Compared with a Categorical of torch for every choice: frequencies, modes, and the environment's actions."""
    distribution, n = make_distribution(space, ModelConfig()), 50_000
    sizes, starts = space.nvec.reshape(-1).tolist(), space.start.reshape(-1)
    params = torch.randn(sum(sizes), generator=torch.Generator().manual_seed(0))
    theirs = [torch.distributions.Categorical(logits=z) for z in params.split(sizes)]
    noise = torch.from_numpy(distribution.noise(np.random.default_rng(0), n))
    actions = distribution.sample(params.expand(n, -1), noise)
    assert actions.dtype == torch.int64
    for d, expected in enumerate(theirs):
        counts = torch.bincount(actions[:, d] - int(starts[d]), minlength=sizes[d])
        torch.testing.assert_close(counts / n, expected.probs, atol=0.01, rtol=0.0)
    log_prob = sum(c.log_prob(actions[:, d] - int(starts[d])) for d, c in enumerate(theirs))
    torch.testing.assert_close(distribution.log_prob(params.expand(n, -1), actions), log_prob)
    torch.testing.assert_close(distribution.entropy(params), torch.stack([c.entropy() for c in theirs]).sum())
    mode = [int(c.logits.argmax() + starts[d]) for d, c in enumerate(theirs)]
    assert distribution.mode(params).tolist() == mode
    played = distribution.to_env(actions[:50].numpy())
    assert played.shape == (50, *space.shape)
    assert all(space.contains(action) for action in played)


@pytest.mark.parametrize("space", [Discrete(5), MultiDiscrete([3, 2])])
def test_masked_logits_leave_the_distribution_over_the_legal_actions(space: Space[Any]) -> None:
    """The model's mask sets the logits of illegal actions to ILLEGAL."""
    distribution = make_distribution(space, ModelConfig())
    legal = torch.tensor([True, False, True, True, False])
    raw = torch.tensor([1.0, 30.0, -1.0, 0.5, 40.0], requires_grad=True)
    params = raw.masked_fill(~legal, ILLEGAL)
    small = [1.0, -1.0] if isinstance(space, MultiDiscrete) else [1.0, -1.0, 0.5]  # MultiDiscrete: one choice is left
    expected = torch.distributions.Categorical(logits=torch.tensor(small)).entropy()
    entropy = distribution.entropy(params)
    torch.testing.assert_close(entropy, expected)
    noise = torch.from_numpy(distribution.noise(np.random.default_rng(0), 5000))
    actions = distribution.sample(params.expand(5000, 5), noise)
    seen = {tuple(np.atleast_1d(a)) for a in actions.numpy()}
    assert seen == ({(0, 0), (2, 0)} if isinstance(space, MultiDiscrete) else {(0,), (2,), (3,)})
    assert tuple(np.atleast_1d(distribution.mode(params))) in seen
    (distribution.log_prob(params, actions[0]) + entropy).backward()
    assert raw.grad is not None
    assert raw.grad[~legal].tolist() == [0.0, 0.0]
    assert raw.grad[0] != 0


# --------------------------------------------------------------------------- the choice of the distribution


@pytest.mark.parametrize(
    ("space", "kind", "num_params"),
    [
        (Discrete(7, start=2), Categorical, 7),
        (MultiBinary(3), Bernoulli, 3),
        (MultiBinary((2, 3)), Bernoulli, 6),
        (MultiDiscrete([2, 5]), FactorizedDistribution, 7),
        (Box(-1.0, 1.0, (2, 3)), Gaussian, 12),
        (Box(-1.0, 1.0, ()), Gaussian, 2),
        (Packed(Dict(a=Discrete(2), b=Box(-1.0, 1.0, (2,)))), FactorizedDistribution, 6),
    ],
)
def test_the_action_space_determines_the_distribution(space: Space[Any], kind: type, num_params: int) -> None:
    distribution = make_distribution(space, ModelConfig())
    assert type(distribution) is kind
    assert len(distribution.initial) == num_params
    assert isinstance(distribution, Gaussian) or distribution.num_outputs >= num_params - 2


@pytest.mark.parametrize(
    ("space", "settings", "words"),
    [
        (Text(3), {}, "Text.*supported are Box, Discrete, MultiDiscrete, MultiBinary"),
        (
            Box(np.zeros((9, 9), int), np.eye(9, dtype=int), (9, 9), int),
            {},
            r"^action space Box\(9, 9\) int64: a Box of",
        ),
        (Box(0, 9, (2,), np.int32), {}, "Box of integers is not supported; make it a MultiDiscrete"),
        (
            Packed(Dict(a=Discrete(2), b=Box(0, 9, (2,), np.uint8))),
            {},
            r"MultiDiscrete \(this is \['b'\] of the action",
        ),
        (Packed(Tuple([Box(-np.inf, 1.0, (1,))])), {"action_bounds": "squash"}, r"finite bounds.*\(this is \[0\]"),
        (Discrete(2), {"action_bounds": "squash"}, "action_bounds = squash: only continuous actions use it"),
        (MultiBinary(2), {"action_std": "exp"}, "action_std = exp: only continuous actions use it"),
        (Packed(Dict(a=Discrete(2))), {"log_std_init": -1.0}, "log_std_init = -1.0: only continuous actions use it"),
        (Discrete(2), {"action_std": "gsde"}, "action_std = gsde: only continuous actions use it"),
        (
            Packed(Dict(a=Box(-1.0, 1.0, (2,)))),
            {"action_std": "gsde"},
            "^action_std = gsde: only where the action space is one Box, .*set it to exp or softplus$",
        ),
    ],
)
def test_unsupported_spaces_and_settings_are_refused_in_one_line(
    space: Space[Any], settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        make_distribution(space, ModelConfig(**settings))
    assert "\n" not in str(error.value)
