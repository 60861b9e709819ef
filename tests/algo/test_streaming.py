"""Stream AC(λ): traces, bounded steps, episode ends, on both engines and against a plain PyTorch loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, Space

from helpers.manual_workers import quick_config
from limelight.algo.learner import Learner
from limelight.algo.optim import ObGD
from limelight.algo.rollout import FinalObs, Rollout
from limelight.errors import NonFiniteError
from limelight.nn.model import Critic
from limelight.runners.actor_learner import make_actor_learner

OBS = Box(-1.0, 1.0, (3,))
STREAMING: dict[str, Any] = {
    "optimizer": "obgd", "num_envs": 1, "num_steps": 1, "critic": "separate", "max_grad_norm": None, "vf_coef": 1.0,
    "learning_rate": 1.0, "lr_schedule": "constant", "gamma": 0.9, "gae_lambda": 0.8, "ent_coef": 0.01,
    "layer_norm": True, "activation": "leaky_relu",
}  # fmt: skip
both_engines = pytest.mark.parametrize("engine", ["numpy", "autograd"])


def transition(make_rollout: Callable[..., Rollout], seed: int, ends: str = "", **changes: Any) -> Rollout:
    """One random step that ends as said."""
    rollout = make_rollout(OBS, seed, T=1, B=1, **changes)
    one, zero = np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32)
    return dataclasses.replace(
        rollout,
        terminated=one if ends == "terminated" else zero,
        truncated=one if ends == "truncated" else zero,
        valid=one,
        num_valid=1,
        rewards=np.full((1, 1), np.random.default_rng(seed).normal(), np.float32),
        final_obs=None,
    )


# --------------------------------------------------------------------------- the optimizer


def test_steps_are_those_computed_by_hand() -> None:
    params, grads = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, -0.25, 2.0])
    state = {"trace": torch.zeros(3)}
    optimizer = ObGD(params, grads, state, [(slice(0, 2), 3.0), (slice(2, 3), 2.0)], decay=0.5)
    rates = [(slice(0, 2), 1.0), (slice(2, 3), 1.0)]
    optimizer.observe(-2.0, episode_ended=False)
    # The traces are the gradients, of length .75 and 2: steps 1 / (3 · 2 · .75) and 1 / (2 · 2 · 2)
    assert optimizer.accumulate() == pytest.approx(2.75)
    optimizer.step(rates)
    expected = [1.0 + 2.0 * 0.5 / 4.5, 2.0 - 2.0 * 0.25 / 4.5, 3.0 + 2.0 * 2.0 / 8.0]
    torch.testing.assert_close(params, torch.tensor(expected))
    # Now the traces are [.25, −.125] and 1 − .9: the actor is bounded by 3 · 1 · .375, the critic not at all
    grads.copy_(torch.tensor([0.0, 0.0, -0.9]))
    optimizer.observe(0.1, episode_ended=True)
    optimizer.accumulate()
    optimizer.step(rates)
    expected = [expected[0] - 0.1 * 0.25 / 1.125, expected[1] + 0.1 * 0.125 / 1.125, expected[2] - 0.1 * 0.1]
    torch.testing.assert_close(params, torch.tensor(expected))
    assert state["trace"].tolist() == [0.0, 0.0, 0.0]  # the episode ended


# --------------------------------------------------------------------------- the learner


def written_gradients(learner: Learner, rollout: Rollout) -> tuple[torch.Tensor, float]:
    """The gradient of −log π − τ sign(δ) H − V by autograd on the model, and δ."""
    a, model = learner.algorithm, learner.model
    assert isinstance(model.critic, Critic)
    obs = torch.from_numpy(rollout.obs)
    output = model(obs)
    log_p = output.params[0, 0].log_softmax(-1)
    value, next_value = output.values[0, 0], float(output.values[1, 0].detach())
    if rollout.final_obs is not None:
        next_value = float(model(torch.from_numpy(rollout.final_obs.obs)[None]).values.detach())
    alive = 1.0 - float(rollout.terminated[0, 0])
    td_error = float(rollout.rewards[0, 0]) + a.gamma * alive * next_value - float(value.detach())
    entropy = -(log_p.exp() * log_p).sum()
    loss = -log_p[int(rollout.actions[0, 0])] - a.ent_coef * np.sign(td_error) * entropy - value
    grads = torch.autograd.grad(loss, list(model.parameters()))
    return torch.cat([g.reshape(-1) for g in grads]), td_error


@both_engines
def test_training_is_that_of_a_plain_loop(
    make_learner: Callable[..., Learner], make_rollout: Callable[..., Rollout], engine: str
) -> None:
    """Traces are the explicit sums Σ (γλ)ᵏ ∇ₜ₋ₖ over the episode, and steps those of the formula."""
    learner = make_learner(OBS, engine, **STREAMING)
    decay, start = 0.9 * 0.8, len(learner.flat) - sum(p.numel() for p in learner.model.critic.parameters())
    gradients: list[torch.Tensor] = []
    for seed in range(30):
        rollout = transition(make_rollout, seed, {4: "terminated", 11: "truncated", 12: "terminated"}.get(seed, ""))
        gradient, td_error = written_gradients(learner, rollout)
        gradients.append(gradient)
        trace = sum(decay**k * g for k, g in enumerate(reversed(gradients)))
        assert isinstance(trace, torch.Tensor)
        expected = learner.flat.params.clone()
        for part, kappa in ((slice(0, start), 3.0), (slice(start, None), 2.0)):
            bound = kappa * max(abs(td_error), 1.0) * float(trace[part].abs().sum())
            expected[part] -= min(1.0, 1.0 / bound) * td_error * trace[part]
        learner.update(rollout, 0.0)
        torch.testing.assert_close(learner.flat.params, expected, rtol=1e-4, atol=2e-6)
        learner.flat.params.copy_(expected)  # rounding does not add up
        learner.network.parameters_changed()
        kept = learner.train_state.optimizer_state["trace"]
        if rollout.episodes_ended:
            gradients.clear()
            assert float(kept.abs().max()) == 0.0
        else:
            torch.testing.assert_close(kept, trace, rtol=1e-4, atol=1e-5)


@both_engines
def test_truncation_bootstraps_from_the_final_observation(
    make_learner: Callable[..., Learner], make_rollout: Callable[..., Rollout], engine: str
) -> None:
    learner = make_learner(OBS, engine, **STREAMING)
    final = FinalObs(np.array([0]), np.array([0]), np.float32([[0.5, -0.5, 0.25]]))
    rollout = dataclasses.replace(transition(make_rollout, 3, "truncated"), final_obs=final)
    expected = written_gradients(learner, rollout)[1]
    learner.update(rollout, 0.0)
    assert float(learner.last_updates[0].targets.advantages[0, 0]) == pytest.approx(expected, rel=1e-5)
    other = written_gradients(learner, dataclasses.replace(rollout, final_obs=None))[1]
    assert abs(other - expected) > 1e-3


def test_a_row_that_only_resets_changes_nothing(
    make_learner: Callable[..., Learner], make_rollout: Callable[..., Rollout]
) -> None:
    learner = make_learner(OBS, **STREAMING)
    learner.update(transition(make_rollout, 0), 0.0)
    params, trace = learner.flat.params.clone(), learner.train_state.optimizer_state["trace"].clone()
    invalid = dataclasses.replace(transition(make_rollout, 1), valid=np.zeros((1, 1), np.float32), num_valid=0)
    learner.update(invalid, 0.0)
    assert torch.equal(learner.flat.params, params)
    assert torch.equal(learner.train_state.optimizer_state["trace"], trace)
    assert float(trace.abs().max()) > 0.0


def test_a_gradient_that_is_not_finite_moves_no_parameter(
    make_learner: Callable[..., Learner], make_rollout: Callable[..., Rollout]
) -> None:
    learner = make_learner(OBS, **STREAMING)
    before = learner.flat.params.clone()
    rollout = dataclasses.replace(transition(make_rollout, 0), rewards=np.full((1, 1), np.inf, np.float32))
    with pytest.raises(NonFiniteError, match="no longer finite"):
        learner.update(rollout, 0.0)
    assert torch.equal(learner.flat.params, before)


# --------------------------------------------------------------------------- runs


@pytest.mark.parametrize(("env_id", "actions"), [("CartPole-v1", Discrete), ("Pendulum-v1", Box)])
def test_both_engines_train_alike(env_id: str, actions: type[Space[Any]]) -> None:
    """Whole steps with environments, normalisation and sampled actions."""
    own = {"num_envs": 1, "num_steps": 1, "max_episode_steps": 30}
    config = quick_config("stream-ac", env_id=env_id, **own)
    vectors = []
    for engine in ("numpy", "autograd"):
        actor = make_actor_learner(config, None, 0)
        if engine == "autograd":
            learner = Learner(actor.learner.model, config.algorithm, config.optim, engine="autograd")
            actor = type(actor)(actor.collector, learner, np.random.default_rng(5))
        else:
            actor = type(actor)(actor.collector, actor.learner, np.random.default_rng(5))
        assert isinstance(actor.collector.envs.single_action_space, actions)
        for _ in range(70):
            actor.learner.update(actor.collect(), 0.0)
        vectors.append(actor.learner.flat.params.clone())
        assert actor.learner.num_updates in (68, 69, 70) or env_id == "CartPole-v1"
        actor.close()
    start = make_actor_learner(config, None, 0).learner.flat.params
    assert float((vectors[0] - start).abs().max()) > 1e-3
    torch.testing.assert_close(vectors[0], vectors[1], rtol=1e-2, atol=1e-4)
