"""Flat parameters, and the optimizers over them compared with torch.optim and with formulas."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from limelight.algo import optim
from limelight.algo.optim import Optimizer, clip_by_norm, initial_state, make_optimizer, schedule
from limelight.algo.train_state import FlatParameters, TrainState
from limelight.settings.schema import OptimConfig

STEPS = 100
RATE = 7e-4


def small_net() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


@pytest.fixture(params=["numpy", "torch"])
def arithmetic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Compute steps by NumPy, or on the CPU by torch as on a GPU."""
    if request.param == "torch":
        monkeypatch.setattr(optim, "as_arrays", lambda *tensors: tensors)
    return str(request.param)


def gradients(n: int, steps: int = STEPS) -> list[Tensor]:
    """Gradients whose sizes differ by orders of magnitude between steps and between parameters."""
    generator = torch.Generator().manual_seed(1)
    scale = 10.0 ** (torch.rand(n, generator=generator) * 5 - 4)
    return [
        torch.randn(n, generator=generator) * scale * 10.0 ** float(torch.randn((), generator=generator))
        for _ in range(steps)
    ]


def set_grads(module: nn.Module, flat_grads: Tensor) -> None:
    start = 0
    for p in module.parameters():
        p.grad = flat_grads[start : start + p.numel()].view_as(p).clone()
        start += p.numel()


def flat_parameters(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def fresh_optimizer(config: OptimConfig, flat: FlatParameters) -> Optimizer:
    """The optimizer of ``config`` before its first step."""
    return make_optimizer(config, flat.params, flat.grads, initial_state(config, flat.params))


def follow(
    config: OptimConfig,
    theirs: Callable[[nn.Module], torch.optim.Optimizer],
    rates: Callable[[FlatParameters, nn.Module], Sequence[tuple[slice, float]]],
) -> None:
    """Compare our optimizer over the flat vector with ``theirs`` over an ordinary module for 100 steps."""
    module, ordinary = small_net(), small_net()
    flat = FlatParameters(module)
    ours, reference = fresh_optimizer(config, flat), theirs(ordinary)
    for grads in gradients(len(flat)):
        flat.grads.copy_(grads)
        set_grads(ordinary, grads)
        ours.step(rates(flat, module))
        reference.step()
        torch.testing.assert_close(flat.params, flat_parameters(ordinary), atol=1e-6, rtol=0.0)
    assert (flat.params - flat_parameters(small_net())).abs().max() > 1e-3  # the parameters changed


def whole(flat: FlatParameters, module: nn.Module) -> list[tuple[slice, float]]:
    return [(slice(0, len(flat)), RATE)]


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize(("alpha", "eps"), [(0.99, 1e-5), (0.9, 1e-2)])
def test_rmsprop_agrees_with_torch(alpha: float, eps: float) -> None:
    config = OptimConfig(optimizer="rmsprop", rms_alpha=alpha, optim_eps=eps)
    follow(config, lambda m: torch.optim.RMSprop(m.parameters(), RATE, alpha, eps), whole)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize(("beta1", "beta2", "eps"), [(0.9, 0.999, 1e-5), (0.0, 0.9, 1e-8)])
def test_adam_agrees_with_torch(beta1: float, beta2: float, eps: float) -> None:
    config = OptimConfig(optimizer="adam", adam_beta1=beta1, adam_beta2=beta2, optim_eps=eps)
    follow(config, lambda m: torch.optim.Adam(m.parameters(), RATE, (beta1, beta2), eps), whole)


@pytest.mark.usefixtures("arithmetic")
def test_rmsprop_tf_agrees_with_its_formula() -> None:
    """g starts at 1 and ε is inside the root: Mnih et al. 2016 as TensorFlow computes it; the reference is float64."""
    alpha, eps = 0.99, 0.1
    flat = FlatParameters(small_net())
    config = OptimConfig(optimizer="rmsprop_tf", rms_alpha=alpha, optim_eps=eps)
    ours = fresh_optimizer(config, flat)
    theta, g = flat.params.double().numpy().copy(), np.ones(len(flat))
    for grads in gradients(len(flat)):
        flat.grads.copy_(grads)
        ours.step(whole(flat, nn.Module()))
        gradient = grads.double().numpy()
        g = alpha * g + (1 - alpha) * gradient**2
        theta = theta - RATE * gradient / np.sqrt(g + eps)
        np.testing.assert_allclose(flat.params.numpy(), theta, rtol=0.0, atol=1e-6)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("name", ["rmsprop", "adam"])
def test_two_learning_rates_agree_with_parameter_groups_of_torch(name: str) -> None:
    critic_rate = 3e-3

    def theirs(module: nn.Module) -> torch.optim.Optimizer:
        assert isinstance(module, nn.Sequential)
        groups = [
            {"params": module[0].parameters(), "lr": RATE},
            {"params": module[2].parameters(), "lr": critic_rate},
        ]
        return torch.optim.RMSprop(groups, eps=1e-5) if name == "rmsprop" else torch.optim.Adam(groups, eps=1e-5)

    def rates(flat: FlatParameters, module: nn.Module) -> list[tuple[slice, float]]:
        assert isinstance(module, nn.Sequential)
        return [(flat.span(module[0].parameters()), RATE), (flat.span(module[2].parameters()), critic_rate)]

    follow(OptimConfig(optimizer=name), theirs, rates)  # type: ignore[arg-type]


def test_as_arrays_are_views_of_tensors_on_the_cpu() -> None:
    params = torch.zeros(4)
    (array,) = optim.as_arrays(params)
    assert isinstance(array, np.ndarray)
    array[:] = 1.0
    assert params.tolist() == [1.0] * 4
    on_device = torch.zeros(4, device="meta")
    assert optim.as_arrays(on_device) == (on_device,)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("name", ["rmsprop", "rmsprop_tf", "adam"])
def test_a_step_changes_no_gradient_and_allocates_no_tensor(name: str) -> None:
    flat = FlatParameters(small_net())
    ours = fresh_optimizer(OptimConfig(optimizer=name), flat)  # type: ignore[arg-type]
    tensors = {"params": flat.params, "grads": flat.grads, **ours.state}
    where = {key: t.data_ptr() for key, t in tensors.items()}
    before = flat.grads.copy_(gradients(len(flat), 1)[0]).clone()
    ours.step(whole(flat, nn.Module()))
    assert torch.equal(flat.grads, before)
    assert {key: t.data_ptr() for key, t in tensors.items()} == where


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("name", ["rmsprop", "rmsprop_tf", "adam"])
def test_an_optimizer_continues_from_a_saved_state(name: str) -> None:
    """Halfway, a second optimizer continues from a copy of the state; both end with the same bits."""
    config = OptimConfig(optimizer=name)  # type: ignore[arg-type]
    sequence = gradients(len(FlatParameters(small_net())), 20)

    def run(flat: FlatParameters, optimizer: Optimizer, some: list[Tensor]) -> None:
        for grads in some:
            flat.grads.copy_(grads)
            optimizer.step(whole(flat, nn.Module()))

    first = FlatParameters(small_net())
    optimizer = fresh_optimizer(config, first)
    run(first, optimizer, sequence[:10])
    params, state = first.params.clone(), copy.deepcopy(optimizer.state)
    run(first, optimizer, sequence[10:])

    second = FlatParameters(small_net())
    successor = make_optimizer(config, second.params, second.grads, copy.deepcopy(state))
    assert successor.state.keys() == state.keys()
    second.params.copy_(params)
    run(second, successor, sequence[10:])
    assert torch.equal(first.params, second.params)
    for key in state:
        assert torch.equal(optimizer.state[key], successor.state[key])


# --------------------------------------------------------------------------- shared state


def copied_by_numpy(tensor: Tensor) -> Tensor:
    """The same values in memory of NumPy, like shared memory."""
    return torch.from_numpy(np.array(tensor.numpy()))


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("name", ["rmsprop", "rmsprop_tf", "adam"])
def test_two_optimizers_over_one_state_equal_one_optimizer(name: str) -> None:
    """Two workers that update shared parameters in turn equal one worker that makes all updates."""
    config = OptimConfig(optimizer=name)  # type: ignore[arg-type]
    alone = FlatParameters(small_net())
    one = fresh_optimizer(config, alone)
    params = copied_by_numpy(alone.params)
    state = {key: copied_by_numpy(tensor) for key, tensor in initial_state(config, params).items()}
    grads = [torch.zeros_like(params) for _ in range(2)]
    both = [make_optimizer(config, params, mine, state) for mine in grads]
    for turn, gradient in enumerate(gradients(len(alone), 20)):
        alone.grads.copy_(gradient)
        one.step([(slice(0, len(alone)), RATE)])
        grads[turn % 2].copy_(gradient)
        both[turn % 2].step([(slice(0, len(alone)), RATE)])
    assert torch.equal(params, alone.params)
    assert {key: tensor.tolist() for key, tensor in state.items()} == {k: t.tolist() for k, t in one.state.items()}
    assert "step" not in state or int(state["step"]) == 20


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rmsprop", {"square_avg": 0.0}),
        ("rmsprop_tf", {"square_avg": 1.0}),
        ("adam", {"exp_avg": 0.0, "exp_avg_sq": 0.0, "step": 0}),
    ],
)
def test_optimizers_start_from_their_initial_state(name: str, expected: dict[str, float]) -> None:
    params = torch.full((3,), 7.0)
    state = initial_state(OptimConfig(optimizer=name), params)  # type: ignore[arg-type]
    assert {key: set(tensor.reshape(-1).tolist()) for key, tensor in state.items()} == {
        key: {value} for key, value in expected.items()
    }
    assert all(tensor.shape == (() if key == "step" else (3,)) for key, tensor in state.items())
    assert params.tolist() == [7.0] * 3


@pytest.mark.parametrize("target", [True, False])
@pytest.mark.parametrize("name", ["rmsprop", "adam"])
def test_a_train_state_returns_copies_and_keeps_its_memory(name: str, target: bool) -> None:
    config = OptimConfig(optimizer=name)  # type: ignore[arg-type]

    def train_state(value: float) -> TrainState:
        params = torch.full((5,), value)
        state = {key: tensor + int(value) for key, tensor in initial_state(config, params).items()}
        return TrainState(params, torch.full((2,), value + 0.5) if target else None, state)

    def tensors(of: TrainState) -> list[Tensor]:
        targets = [] if of.target_params is None else [of.target_params]
        return [of.params, *targets, *of.optimizer_state.values()]

    first, second = train_state(1.0), train_state(4.0)
    state, where = first.get_state(), [t.data_ptr() for t in tensors(second)]
    assert (state["target_params"] is not None) == target
    second.set_state(state)
    assert all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(second), strict=True))
    assert [t.data_ptr() for t in tensors(second)] == where
    for tensor in tensors(first):
        tensor += 1
    third = train_state(9.0)
    third.set_state(state)  # the changes of the first state are not in the copy
    assert all(torch.equal(a, b) for a, b in zip(tensors(second), tensors(third), strict=True))
    third.set_state(
        {**state, "params": state["params"].numpy(), "optimizer": {k: t.numpy() for k, t in state["optimizer"].items()}}
    )
    assert all(torch.equal(a, b) for a, b in zip(tensors(second), tensors(third), strict=True))


# --------------------------------------------------------------------------- clipping and schedules


@pytest.mark.parametrize("max_norm", [0.1, 0.5, 40.0, 1e9])
def test_clipping_agrees_with_torch(max_norm: float) -> None:
    module = small_net()
    for grads in gradients(len(flat_parameters(module)), 10):
        set_grads(module, grads)
        expected_norm = float(nn.utils.clip_grad_norm_(module.parameters(), max_norm))
        expected = torch.cat([p.grad.reshape(-1) for p in module.parameters() if p.grad is not None])
        assert clip_by_norm(grads, max_norm) == pytest.approx(expected_norm, rel=1e-6)
        torch.testing.assert_close(grads, expected, rtol=1e-5, atol=1e-8)


def test_the_norm_is_computed_without_clipping() -> None:
    grads = torch.tensor([3.0, 4.0])
    assert clip_by_norm(grads, None) == pytest.approx(5.0)
    assert grads.tolist() == [3.0, 4.0]
    assert clip_by_norm(torch.zeros(3), 0.5) == 0.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("max_norm", [None, 0.5])
def test_the_norm_of_non_finite_gradients_is_not_finite(bad: float, max_norm: float | None) -> None:
    assert not np.isfinite(clip_by_norm(torch.tensor([1.0, bad, 2.0]), max_norm))


def test_schedules_are_constant_or_linear() -> None:
    assert [schedule("constant", p) for p in (0.0, 0.5, 1.0, 1.2)] == [1.0] * 4
    assert [schedule("linear", p) for p in (0.0, 0.25, 1.0, 1.2)] == [1.0, 0.75, 0.0, 0.0]


# --------------------------------------------------------------------------- flat parameters


def test_the_flat_vector_keeps_values_and_order() -> None:
    module, ordinary = small_net(), small_net()
    flat = FlatParameters(module)
    assert len(flat) == sum(p.numel() for p in ordinary.parameters())
    assert torch.equal(flat.params, flat_parameters(ordinary))
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(module(x), ordinary(x))


def assert_views(flat: FlatParameters, module: nn.Module) -> None:
    start = 0
    for p in module.parameters():
        assert p.grad is not None
        assert p.data_ptr() == flat.params[start:].data_ptr()
        assert p.grad.data_ptr() == flat.grads[start:].data_ptr()
        start += p.numel()
    assert start == len(flat)


def test_views_stay_views_through_backward_and_steps() -> None:
    module, ordinary = small_net(), small_net()
    flat = FlatParameters(module)
    optimizer = fresh_optimizer(OptimConfig(), flat)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        flat.grads.zero_()
        module(x).square().sum().backward()
        assert_views(flat, module)
        ordinary.zero_grad()
        ordinary.load_state_dict(module.state_dict())
        ordinary(x).square().sum().backward()
        expected = torch.cat([p.grad.reshape(-1) for p in ordinary.parameters() if p.grad is not None])
        torch.testing.assert_close(flat.grads, expected)
        clip_by_norm(flat.grads, 0.5)
        optimizer.step(whole(flat, module))
        assert_views(flat, module)
        assert torch.equal(flat.params, flat_parameters(module))
    module.load_state_dict(ordinary.state_dict())  # as a user would load weights
    assert_views(flat, module)


def test_spans_of_parameters_must_be_contiguous() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4), nn.Linear(4, 1))
    flat = FlatParameters(module)
    assert flat.span(module.parameters()) == slice(0, len(flat))
    assert flat.span(module[1].parameters()) == slice(9, 25)
    assert flat.span(reversed(list(module[:2].parameters()))) == slice(0, 25)
    with pytest.raises(ValueError, match="not contiguous"):
        flat.span([*module[0].parameters(), *module[2].parameters()])
