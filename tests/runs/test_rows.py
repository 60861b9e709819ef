"""Values, probabilities and log π of an agent: against torch.distributions, and against the policy in training."""

from __future__ import annotations

import copy
import pickle
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from torch import distributions

import limelight
from helpers.manual_workers import quick_config
from helpers.settings import one_line, train_config
from limelight.errors import ConfigError
from limelight.nn.model import make_model
from limelight.runners.sync import SyncRunner
from limelight.spaces.packed import Packed
from limelight.training.run import build

REALS = Box(-1.0, 1.0, (3,))
RNG = np.random.default_rng(0)
OBS = RNG.uniform(-1.0, 1.0, (6, 3)).astype(np.float32)


def make_agent(actions: Space[Any], observations: Space[Any] = REALS, **settings: Any) -> limelight.Agent:
    """An agent with random parameters, whose policy is far from uniform."""
    config = train_config(hidden_sizes=(8,), policy_init_gain=2.0, **settings)
    model = make_model(observations, actions, config.model, 3)
    return limelight.Agent(model, None, config, observations, actions)


def params_of(agent: limelight.Agent, obs: Any = OBS) -> torch.Tensor:
    with torch.no_grad():
        params: torch.Tensor = agent.model(torch.from_numpy(obs)[None]).params[0]
    return params


def assert_rows_alone_equal_the_batch(agent: limelight.Agent, actions: Any) -> None:
    together = agent.log_prob(OBS, actions), agent.value(OBS)
    assert together[0].shape == together[1].shape == (6,)
    for i, obs in enumerate(OBS):
        one = agent.log_prob(obs, actions[i])
        assert one.shape == agent.value(obs).shape == ()
        assert one == pytest.approx(together[0][i], rel=1e-5, abs=1e-6)
        assert agent.value(obs) == pytest.approx(together[1][i], rel=1e-5, abs=1e-6)


def test_discrete_actions_are_softmax() -> None:
    agent = make_agent(Discrete(4, start=2))
    expected = distributions.Categorical(logits=params_of(agent))
    actions = np.array([2, 5, 3, 4, 2, 5])
    np.testing.assert_allclose(agent.action_probabilities(OBS), expected.probs, rtol=1e-5)
    np.testing.assert_allclose(agent.log_prob(OBS, actions), expected.log_prob(torch.tensor(actions - 2)), rtol=1e-5)
    np.testing.assert_array_equal(agent.predict(OBS)[0], agent.action_probabilities(OBS).argmax(-1) + 2)
    assert agent.action_probabilities(OBS[0]).shape == (4,)
    assert_rows_alone_equal_the_batch(agent, actions)


def test_multi_discrete_actions_have_a_distribution_each() -> None:
    agent = make_agent(MultiDiscrete([2, 3]))
    logits = params_of(agent)
    factors = [distributions.Categorical(logits=part) for part in (logits[:, :2], logits[:, 2:])]
    found = agent.action_probabilities(OBS)
    assert isinstance(found, tuple)
    for array, factor in zip(found, factors, strict=True):
        np.testing.assert_allclose(array, factor.probs, rtol=1e-5)
    actions = np.array([[0, 2], [1, 1], [0, 0], [1, 2], [1, 0], [0, 1]])
    expected = sum(factor.log_prob(torch.tensor(actions[:, i])) for i, factor in enumerate(factors))
    np.testing.assert_allclose(agent.log_prob(OBS, actions), expected, rtol=1e-5)
    assert_rows_alone_equal_the_batch(agent, actions)


def test_binary_and_composite_actions_have_the_form_of_their_space() -> None:
    agent = make_agent(MultiBinary(2))
    expected = distributions.Bernoulli(logits=params_of(agent))
    np.testing.assert_allclose(agent.action_probabilities(OBS), expected.probs, rtol=1e-5)
    actions = np.array([[0, 1], [1, 1], [0, 0], [1, 0], [1, 1], [0, 1]])
    np.testing.assert_allclose(
        agent.log_prob(OBS, actions), expected.log_prob(torch.tensor(actions).float()).sum(-1), rtol=1e-5
    )
    composite = make_agent(Packed(Dict(a=Discrete(2), b=Tuple((Discrete(3), MultiDiscrete([2, 2]))))))
    found = composite.action_probabilities(OBS)
    assert [found["a"].shape, found["b"][0].shape, [p.shape for p in found["b"][1]]] == [(6, 2), (6, 3), [(6, 2)] * 2]
    action, _ = composite.predict(OBS)
    parts = (found["a"], found["b"][0], *found["b"][1])
    np.testing.assert_allclose(composite.log_prob(OBS, action), sum(np.log(p.max(-1)) for p in parts), rtol=1e-5)


@pytest.mark.parametrize("bounds", ["clip", "rescale", "squash"])
def test_the_density_of_continuous_actions_is_that_of_training(bounds: Any) -> None:
    """A change of variables where actions are squashed: the density of the environment's action integrates to 1."""
    space = Box(np.array([-1.0, 2.0], np.float32), np.array([3.0, 2.5], np.float32))
    agent = make_agent(space, action_bounds=bounds)
    mean, log_std = params_of(agent).chunk(2, -1)
    sampled = distributions.Normal(mean, log_std.exp())
    u = sampled.mean * 0.3 + 0.2
    actions = agent.model.distribution.to_env(u.numpy())
    if bounds == "squash":
        half, centre = torch.tensor([2.0, 0.25]), torch.tensor([1.0, 2.25])
        maps = [distributions.TanhTransform(), distributions.AffineTransform(centre, half)]
        expected = distributions.TransformedDistribution(sampled, maps).log_prob(torch.from_numpy(actions)).sum(-1)
    else:
        u = u.clamp(-1.0, 1.0) if bounds == "rescale" else torch.from_numpy(actions)
        expected = sampled.log_prob(u).sum(-1)
    np.testing.assert_allclose(agent.log_prob(OBS, actions), expected, rtol=2e-4, atol=2e-4)
    assert_rows_alone_equal_the_batch(agent, actions)
    assert np.isfinite(agent.log_prob(OBS[0], space.high))
    with pytest.raises(ConfigError) as error:
        agent.action_probabilities(OBS)
    assert one_line(error).endswith("continuous actions have a density and no probabilities; use log_prob")


def test_a_squashed_density_integrates_to_one() -> None:
    space = Box(-2.0, 2.0, (1,))
    agent = make_agent(space, action_bounds="squash", log_std_init=-1.0)
    edges = np.linspace(-2.0, 2.0, 4001)
    grid = ((edges[:-1] + edges[1:]) / 2)[:, None].astype(np.float32)
    density = np.exp(agent.log_prob(np.repeat(OBS[:1], len(grid), 0), grid))
    assert density.sum() * (edges[1] - edges[0]) == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(ValueError, match=r"action\[0\] = 2\.5: is out of the bounds -2 … 2"):
        agent.log_prob(OBS[0], np.array([2.5], np.float32))


def test_illegal_actions_have_no_probability() -> None:
    space = Packed(Dict(observation=REALS, action_mask=MultiBinary(4)), "info")
    agent = make_agent(Discrete(4), space)
    mask = np.array([1, 0, 1, 0])
    found = agent.action_probabilities(OBS, action_masks=mask)
    free = agent.action_probabilities(OBS)
    assert (found[:, mask == 0] == 0.0).all()
    np.testing.assert_allclose(found[:, ::2], free[:, ::2] / free[:, ::2].sum(-1, keepdims=True), rtol=1e-5)
    np.testing.assert_allclose(
        agent.log_prob(OBS, np.zeros(6, np.int64), action_masks=mask), np.log(found[:, 0]), rtol=1e-5
    )
    assert agent.log_prob(OBS[0], 1, action_masks=mask) < -1e8
    np.testing.assert_array_equal(agent.predict(OBS, action_masks=mask)[0], found.argmax(-1))
    inside = make_agent(Discrete(4), Packed(Dict(action_mask=MultiBinary(4), x=REALS), "observation"))
    both = inside.action_probabilities({"x": OBS, "action_mask": np.repeat(mask[None], 6, 0)})
    assert (both[:, mask == 0] == 0.0).all()
    np.testing.assert_allclose(both.sum(-1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize("core", ["lstm", "gru"])
def test_a_recurrent_agent_reads_its_state_as_predict_does(core: Any, critic: Any) -> None:
    agent = make_agent(Discrete(3), core=core, core_size=8, critic=critic)
    with torch.no_grad():
        whole = agent.model(torch.from_numpy(OBS)[:, None])  # six steps of one environment
    state = None
    agent.reset()
    for t, obs in enumerate(OBS):
        for given in (state, None):  # the state by hand, and the agent's own
            assert agent.value(obs, given) == pytest.approx(float(whole.values[t, 0]), rel=1e-4, abs=1e-6)
            found = agent.action_probabilities(obs, given)
            np.testing.assert_allclose(found, whole.params[t, 0].softmax(-1), rtol=1e-4)
            assert agent.log_prob(obs, 1, given) == pytest.approx(np.log(found[1]), rel=1e-4)
        agent.predict(obs)
        _, state = agent.predict(obs, np.zeros((1, agent.model.state_size), np.float32) if state is None else state)
    first = agent.value(OBS[0], episode_start=[True])
    assert first == pytest.approx(float(whole.values[0, 0]), rel=1e-4, abs=1e-6)
    with pytest.raises(ValueError, match=r"state of shape \(2, 3\): must be"):
        agent.value(OBS, np.zeros((2, 3), np.float32))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"env_id": "Pendulum-v1", "action_bounds": "squash", "normalize_obs": True},
        {"core": "lstm", "core_size": 8},
        {"env_id": "limelight.envs.toy:Catch", "encoder": "universe", "normalize_obs": True, "core": "gru"},
    ],
    ids=lambda s: "-".join(s) or "default",
)
def test_the_agent_of_a_run_says_what_its_learner_computes(settings: dict[str, Any]) -> None:
    runner, agent = build(quick_config("a2c", total_timesteps=100, **settings), None)
    actor_learner = cast(SyncRunner, runner).actor_learner
    rollout = actor_learner.collect()
    values, _ = actor_learner.learner.network.values(rollout)
    log_probs = actor_learner.learner.network.log_probs()
    state = rollout.recurrent_state
    normalize = agent.normalize
    agent.normalize = lambda obs: obs  # type: ignore[method-assign]  # rollouts hold normalised observations
    for t in range(len(rollout.actions)):
        obs, start = rollout.obs[t], rollout.episode_start[t]
        actions = agent.model.distribution.to_env(rollout.actions[t])
        np.testing.assert_allclose(agent.value(obs, state, start), values[t], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(agent.log_prob(obs, actions, state, start), log_probs[t], rtol=1e-3, atol=2e-3)
        state = agent.predict(obs, state, start)[1]
    agent.normalize = normalize  # type: ignore[method-assign]
    runner.close()


def test_actions_that_do_not_fit_are_refused() -> None:
    agent = make_agent(Discrete(4, start=2))
    for obs, action, message in (
        (OBS[0], 1, r"action = 1: must be Discrete"),
        (OBS, 3, r"action of shape \(\): must be one for each of 6 observations"),
        (OBS, [2, 3], r"action of shape \(2,\): must be one for each of 6 observations"),
        (OBS[0], 2.5, r"action = 2\.5: must be"),
        (OBS[0], np.ones(3), r"one for each of 1 observations|must be"),
    ):
        with pytest.raises(ValueError, match=message):
            agent.log_prob(obs, action)
    with pytest.raises(ValueError, match=r"action\[0\] = nan: must be a finite number"):
        make_agent(Box(-1.0, 1.0, (1,))).log_prob(OBS[0], [np.nan])


IMAGES = Box(0, 255, (1, 42, 42), np.uint8)


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda agent: pickle.loads(pickle.dumps(agent))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("kind", ["plain", "recurrent", "images"])
def test_a_copy_goes_on_as_the_agent_does(kind: str, copied: Any) -> None:
    """Greedy and sampled actions, the recurrent state and the values are the same; nothing is shared."""
    if kind == "images":
        agent = make_agent(Discrete(3), IMAGES, encoder="universe", core="lstm", core_size=8, device="cpu")
        obs = RNG.integers(0, 256, (4, *IMAGES.shape), np.uint8)
    else:
        agent = make_agent(Discrete(3), **({"core": "lstm", "core_size": 8} if kind == "recurrent" else {}))
        obs = OBS[:4]
    agent.env_factory = cast(Any, lambda: gym.make("CartPole-v1"))
    agent.reset()
    agent.predict(obs, deterministic=False)
    other = copied(agent)
    for _ in range(3):
        for deterministic in (True, False):
            np.testing.assert_array_equal(
                agent.predict(obs, deterministic=deterministic)[0], other.predict(obs, deterministic=deterministic)[0]
            )
        np.testing.assert_array_equal(agent.value(obs), other.value(obs))
    assert (other.env_factory is not None) is (copied is copy.deepcopy)
    before = agent.value(obs)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter += 1.0
    other.network.parameters_changed()
    assert not np.array_equal(other.value(obs), before)
    np.testing.assert_array_equal(agent.value(obs), before)


def test_few_observations_are_computed_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    agent, threads = make_agent(Discrete(4)), list[int]()
    act = agent.network.act

    def counted(*args: Any) -> Any:
        threads.append(torch.get_num_threads())
        return act(*args)

    monkeypatch.setattr(agent.network, "act", counted)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        agent.predict(OBS[0])
        agent.predict(OBS)
        agent.predict(np.tile(OBS, (100, 1)))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert threads == [1, 1, 2]
