"""Recurrent cores: acting, learning, the equations of the papers and all kinds of stream agree."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor

from helpers.toys import Scripted
from limelight.algo.collector import RolloutCollector
from limelight.algo.last_update import Targets
from limelight.algo.learner import Learner
from limelight.algo.rollout import Rollout
from limelight.algo.train_state import FlatParameters
from limelight.envs.gymnasium_backend import SyncBackend
from limelight.nn.cores import Recurrent
from limelight.nn.model import ActorCritic
from limelight.nn.network import make_network
from limelight.nn.policy import ModelPolicy
from limelight.runs.checkpoint import read_state, write_state

SPACE = Box(-np.inf, np.inf, (1,))
ACTIONS = Discrete(4)
EPISODES = [
    [(0, 0, False, False), (1, 1, False, False), (2, 2, True, False)],
    [(-1.0, 0, False, False), (-1.1, 3, False, False), (-1.2, 4, False, False), (-1.3, 5, False, True)],
    [(0.5, 0, False, False), (0.6, 6, True, True)],
]
FIRST = {0.0, -1.0, 0.5}
STATE_SIZE = {"lstm": 10, "gru": 5}
LearnerFactory = Callable[..., Learner]

every_core = pytest.mark.parametrize("core", ["lstm", "gru"])
every_critic = pytest.mark.parametrize("critic", ["shared", "separate", "target"])
every_mode = pytest.mark.parametrize("mode", ["next_step", "same_step", "disabled"])


@pytest.fixture
def make_recurrent(make_actor_critic: Callable[..., ActorCritic]) -> Callable[..., ActorCritic]:
    def make(core: str, critic: str = "shared", **settings: Any) -> ActorCritic:
        return make_actor_critic(
            SPACE, actions=ACTIONS, core=core, core_size=5, critic=critic, policy_init_gain=1.0, **settings
        )

    return make


def random_rows(T: int, B: int) -> tuple[Tensor, Tensor]:
    """Observations [T, B, 1], and episode starts [T, B] in the middle, some in several environments at once."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(T, B, 1, generator=generator), (torch.rand(T, B, generator=generator) < 0.3).float()


# --------------------------------------------------------------------------- the cell


def written_cell(core: Recurrent, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step by the equations of the papers; a GRU has no c."""
    gates_x = x @ core.cell.weight_ih.T + core.cell.bias_ih
    gates_h = h @ core.cell.weight_hh.T + core.cell.bias_hh
    if isinstance(core.cell, torch.nn.LSTMCell):
        i, f, g, o = (gates_x + gates_h).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
    (r_x, z_x, n_x), (r_h, z_h, n_h) = gates_x.chunk(3, -1), gates_h.chunk(3, -1)
    z = (z_x + z_h).sigmoid()
    n = (n_x + (r_x + r_h).sigmoid() * n_h).tanh()
    return (1 - z) * n + z * h, c


@every_core
def test_cores_compute_the_equations_of_the_papers_with_resets(
    make_recurrent: Callable[..., ActorCritic], core: str
) -> None:
    """Outputs, last state, and gradients of the weights and the features agree."""
    ours = make_recurrent(core).core
    assert isinstance(ours, Recurrent)
    theirs, generator = copy.deepcopy(ours), torch.Generator().manual_seed(1)
    features, start = torch.randn(9, 3, 6, generator=generator), random_rows(9, 3)[1]
    assert 0 < start.sum() < start.numel()
    state = torch.randn(3, STATE_SIZE[core], generator=generator)
    x, y = features.clone().requires_grad_(), features.clone().requires_grad_()
    outputs, last = ours(x, state, start)

    h, c, expected = state[:, :5], state[:, 5:], []
    for t in range(9):
        keep = 1 - start[t, :, None]
        h, c = written_cell(theirs, y[t], h * keep, c * keep)
        expected.append(h)
    torch.testing.assert_close(outputs, torch.stack(expected), rtol=0.0, atol=1e-6)
    torch.testing.assert_close(last, torch.cat((h, c), -1), rtol=0.0, atol=1e-6)
    factors = torch.randn(outputs.shape, generator=generator)
    (outputs * factors).sum().backward()
    (torch.stack(expected) * factors).sum().backward()
    pairs = [(x.grad, y.grad), *((p.grad, q.grad) for p, q in zip(ours.parameters(), theirs.parameters(), strict=True))]
    for a, b in pairs:
        assert a is not None
        assert a.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------------- one forward


@every_core
@every_critic
def test_one_pass_over_n_rows_equals_n_steps(
    make_recurrent: Callable[..., ActorCritic], core: str, critic: str
) -> None:
    """Acting (T = 1) and learning (T = n) compute the same policy, values and state, with resets."""
    model, (obs, start) = make_recurrent(core, critic), random_rows(12, 3)
    width = STATE_SIZE[core] * (1 if critic == "shared" else 2)
    assert model.state_size == width
    state: Tensor | None = torch.randn(3, width, generator=torch.Generator().manual_seed(2))
    together, apart = model(obs, state, start), []
    for t in range(12):
        apart.append(model(obs[t : t + 1], state, start[t : t + 1]))
        state = apart[-1].recurrent_state
    params, values = torch.cat([o.params for o in apart]), torch.cat([o.values for o in apart])
    torch.testing.assert_close(params, together.params, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(values, together.values, rtol=0.0, atol=1e-6)
    torch.testing.assert_close(state, together.recurrent_state, rtol=0.0, atol=1e-6)
    assert (together.params - model(obs).params).abs().max() > 1e-3  # the state matters


@every_core
@every_critic
def test_after_an_episode_start_earlier_rows_have_no_effect(
    make_recurrent: Callable[..., ActorCritic], core: str, critic: str
) -> None:
    model, (obs, _) = make_recurrent(core, critic), random_rows(5, 2)
    start = torch.zeros(5, 2)
    start[2, 0] = 1.0
    one, other = model(obs, torch.ones(2, model.state_size), start), model(obs, None, start)
    for name in ("params", "values"):
        a, b = getattr(one, name), getattr(other, name)
        assert torch.equal(a[2:, 0], b[2:, 0])
        assert not torch.equal(a[:2, 0], b[:2, 0])
        assert not torch.equal(a[2:, 1], b[2:, 1])


@every_core
@every_critic
def test_flat_parameters_are_views_of_the_cores_parameters(
    make_recurrent: Callable[..., ActorCritic], core: str, critic: str
) -> None:
    """Changes of the vector change the outputs, and gradients arrive in the vector of gradients."""
    model, (obs, start) = make_recurrent(core, critic), random_rows(6, 2)
    flat = FlatParameters(model)
    before = model(obs, None, start)
    critic_span = flat.span(model.critic.parameters())
    assert critic_span.stop == len(flat)  # the critic is last
    cells = [m for m in model.modules() if isinstance(m, Recurrent)]
    assert len(cells) == (1 if critic == "shared" else 2)
    with torch.no_grad():
        for cell in cells:
            flat.params[flat.span([cell.cell.weight_hh])] += 0.1
    after = model(obs, None, start)
    assert not torch.equal(before.params[1:], after.params[1:])
    assert not torch.equal(before.values[1:], after.values[1:])
    (after.params.sum() + after.values.square().sum()).backward()
    for p in model.parameters():
        assert flat.grads[flat.span([p])].abs().max() > 0
        assert p.grad is not None
        assert p.grad.data_ptr() == flat.grads[flat.span([p])].data_ptr()


# --------------------------------------------------------------------------- the stream


class Recorder:
    """A ModelPolicy that records observations and the states before and after, row by row."""

    def __init__(self, model: ActorCritic) -> None:
        self.inner = ModelPolicy(make_network(model), None)
        self.to_env = self.inner.to_env
        self.begin_rollout = self.inner.begin_rollout
        self.rows: list[tuple[Any, Any, Any]] = []

    @property
    def recurrent_state(self) -> Any:
        return self.inner.recurrent_state

    @recurrent_state.setter
    def recurrent_state(self, state: Any) -> None:
        self.inner.recurrent_state = state

    def act(self, obs: Any, episode_start: Any) -> Any:
        before = self.recurrent_state
        actions = self.inner.act(obs, episode_start)
        self.rows.append((obs.copy(), before, self.recurrent_state))
        return actions


def make_collector(num_steps: int, mode: str = "next_step", num_envs: int = 1) -> RolloutCollector:
    envs = SyncBackend([Scripted(EPISODES) for _ in range(num_envs)], mode)  # type: ignore[arg-type]
    collector = RolloutCollector(envs, num_steps, None, "Scripted-v0")
    collector.reset(0)
    return collector


@every_mode
@every_core
@pytest.mark.parametrize("num_steps", [1, 4, 12])
def test_the_state_is_zeroed_only_before_first_observations(
    make_recurrent: Callable[..., ActorCritic], core: str, mode: str, num_steps: int
) -> None:
    """It is not zeroed in the row that ends an episode, nor at its final observation."""
    model, collector = make_recurrent(core, "separate"), make_collector(num_steps, mode, 3)
    policy = Recorder(model)
    for _ in range(24 // num_steps):
        collector.collect(policy)
    starts = 0
    for obs, before, after in policy.rows:
        for b in range(3):
            first = float(obs[b, 0]) in FIRST
            state = None if first else torch.from_numpy(before[b : b + 1])
            expected = model(torch.from_numpy(obs[None, b : b + 1]), state).recurrent_state
            assert expected is not None
            np.testing.assert_allclose(after[b], expected[0].detach(), rtol=0.0, atol=1e-6)
            starts += first
    assert starts > 15


@every_mode
@every_core
def test_rollouts_store_the_state_of_acting(make_recurrent: Callable[..., ActorCritic], core: str, mode: str) -> None:
    model, collector = make_recurrent(core, "separate"), make_collector(5, mode, 3)
    policy = Recorder(model)
    for i in range(5):
        rollout = collector.collect(policy)
        before = policy.rows[5 * i][1]
        assert rollout.recurrent_state is not None
        assert rollout.recurrent_state.dtype == np.float32
        np.testing.assert_array_equal(rollout.recurrent_state, 0.0 if i == 0 else before)
        unrolled = model(
            torch.from_numpy(rollout.obs[:-1]),
            torch.from_numpy(rollout.recurrent_state),
            torch.from_numpy(rollout.episode_start[:-1]),
        ).recurrent_state
        assert unrolled is not None
        np.testing.assert_allclose(policy.rows[-1][2], unrolled.detach(), rtol=0.0, atol=1e-6)


@every_mode
@every_core
def test_the_length_of_rollouts_does_not_change_the_state(
    make_recurrent: Callable[..., ActorCritic], core: str, mode: str
) -> None:
    runs = []
    for num_steps in (1, 12):
        policy, collector = Recorder(make_recurrent(core)), make_collector(num_steps, mode, 2)
        for _ in range(12 // num_steps):
            collector.collect(policy)
        runs.append(policy.rows)
    for (obs, _, state), (other_obs, _, other_state) in zip(*runs, strict=True):
        np.testing.assert_array_equal(obs, other_obs)
        np.testing.assert_array_equal(state, other_state)


@every_core
def test_collecting_continues_exactly_from_a_saved_state(
    make_recurrent: Callable[..., ActorCritic], core: str, tmp_path: Path
) -> None:
    """The state is written to the files of a checkpoint in the middle of episodes."""
    model, first, second = make_recurrent(core), make_collector(4, num_envs=3), make_collector(4, num_envs=3)
    first.collect(ModelPolicy(make_network(model), np.random.default_rng(0)))
    write_state(tmp_path / "state", {"collector": first.get_state(), "envs": first.envs.get_state()})
    state = read_state(tmp_path / "state")
    second.envs.set_state(state["envs"])
    second.set_state(state["collector"])
    policies = [ModelPolicy(make_network(model), np.random.default_rng(1)) for _ in range(2)]
    for _ in range(4):
        a, b = copy.deepcopy(first.collect(policies[0])), second.collect(policies[1])
        for name in ("obs", "actions", "episode_start", "recurrent_state"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert a.recurrent_state is not None
        assert a.recurrent_state.any()


# --------------------------------------------------------------------------- learning


def captured(learner: Learner, rollout: Rollout) -> tuple[Any, ...]:
    """The learner's values, V(sₜ₊₁) and targets of the valid rows, and the gradient."""
    seen: dict[str, Any] = {}
    original = learner.targets

    def targets(rollout: Rollout, values: Any, next_values: Any, ratios: Any = None) -> Targets:
        result = original(rollout, values, next_values, ratios)
        rows = rollout.valid > 0
        useful = rollout.terminated[rows] == 0  # a terminal state has no next value
        seen.update(values=values[rows], next=next_values[rows][useful], returns=result.returns[rows])
        return result

    learner.targets = targets  # type: ignore[method-assign]
    try:
        learner.gradients(rollout)
    finally:
        del learner.targets
    return seen["values"], seen["next"], seen["returns"], learner.flat.grads.clone()


@every_core
@every_critic
@pytest.mark.parametrize("mode", ["same_step", "disabled"])
@pytest.mark.parametrize("output", ["v", "q"])
def test_all_streams_give_the_same_targets_and_gradients(
    make_learner: LearnerFactory, core: str, critic: str, mode: str, output: str
) -> None:
    """Five transitions, with or without reset rows, give the same values, targets and gradients.

    In the second rollout they depend on the state at its first row, and V(final observation) on the state of an
    episode that has ended.
    """
    settings = {"core": core, "core_size": 5, "critic": critic, "critic_output": output}
    learner = make_learner(SPACE, actions=ACTIONS, ent_coef=0.1, gae_lambda=0.9, **settings)
    collectors, policy = (make_collector(7), make_collector(5, mode)), ModelPolicy(make_network(learner.model), None)
    for _ in range(2):
        canonical, other = (c.collect(policy) for c in collectors)
        assert (canonical.num_valid, other.num_valid) == (5, 5)
        assert other.final_obs is not None
        seen = [captured(learner, rollout) for rollout in (canonical, other)]
        assert seen[0][3].abs().max() > 0
        for a, b in zip(*seen, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@every_core
def test_the_target_critic_bootstraps_from_the_critics_state(make_learner: LearnerFactory, core: str) -> None:
    """It starts from the critic's part of the stored state, and values final observations from the states there."""
    learner = make_learner(SPACE, actions=ACTIONS, core=core, core_size=5, critic="target")
    target, policy = learner.network.target_critic, ModelPolicy(make_network(learner.model), None)
    assert target is not None
    with torch.no_grad():
        for p in target.parameters():
            p += 0.05
    collector = make_collector(7, "same_step", 2)
    collector.collect(policy)
    rollout = collector.collect(policy)
    assert rollout.recurrent_state is not None
    assert rollout.final_obs is not None
    own = slice(STATE_SIZE[core], None)
    with torch.no_grad():
        stored, start = torch.from_numpy(rollout.recurrent_state[:, own]), torch.from_numpy(rollout.episode_start)
        expected = target(torch.from_numpy(rollout.obs), stored, start)[1:]
        for t, b, obs, state in zip(*rollout.final_obs, strict=True):
            expected[t, b] = target(torch.from_numpy(obs)[None, None], torch.from_numpy(state[None, own]))
    useful = expected[torch.from_numpy(rollout.terminated) == 0]
    np.testing.assert_allclose(captured(learner, rollout)[1], useful, rtol=1e-5, atol=1e-6)


@every_core
@every_critic
def test_gradients_stop_at_the_first_row_of_a_rollout(make_learner: LearnerFactory, core: str, critic: str) -> None:
    """The stored state is a constant: no graph of earlier rows exists."""
    learner = make_learner(SPACE, actions=ACTIONS, core=core, core_size=5, critic=critic)
    collector, policy = (
        make_collector(4, num_envs=2),
        ModelPolicy(make_network(learner.model), np.random.default_rng(0)),
    )
    for _ in range(3):
        rollout = collector.collect(policy)
        learner.update(rollout, progress=0.0)
    learner.gradients(rollout)
    first = learner.flat.grads.clone()
    learner.gradients(rollout)
    assert torch.equal(first, learner.flat.grads)
    assert isinstance(policy.recurrent_state, np.ndarray)
    gc.collect()
    assert not [x for x in gc.get_objects() if type(x) is Tensor and x.grad_fn is not None]
