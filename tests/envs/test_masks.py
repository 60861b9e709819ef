"""Masks of actions: found, checked, obeyed in acting, learning and evaluation."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete

import limelight
from helpers.composite_envs import Doors, Observed
from helpers.manual_workers import draw_no_report
from limelight.envs.base import EnvBackend
from limelight.envs.make import explain_backend, make_envs
from limelight.envs.masks import choices, flat_mask, has_legal_action, random_action, require_legal
from limelight.envs.source import resolve_env
from limelight.envs.toy import Ring
from limelight.errors import ConfigError, EnvError
from limelight.nn.model import ActorCritic, make_model
from limelight.nn.network import make_network
from limelight.nn.numpy_engine.network import supports
from limelight.nn.policy import ModelPolicy
from limelight.settings.schema import EnvConfig, ModelConfig
from limelight.spaces.packed import Packed

N = 5
SPACE = Packed(Dict({"action_mask": MultiBinary(N), "x": Box(-1.0, 1.0, (3,))}), "observation")


def model_that_prefers_illegal(core: str = "feedforward", critic: str = "shared") -> ActorCritic:
    """Make a model whose first actions have far larger logits than the last."""
    config = ModelConfig(hidden_sizes=(8,), core=core, core_size=8, critic=critic)  # type: ignore[arg-type]
    model = make_model(SPACE, Discrete(N), config, 0)
    with torch.no_grad():
        model.policy_head.linear.bias.copy_(torch.linspace(30.0, -30.0, N))
    return model


def observations(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    legal = rng.random((count, N)) < 0.4
    legal[np.arange(count), rng.integers(0, N, count)] = True
    obs = np.concatenate([legal, rng.standard_normal((count, 3))], 1).astype(np.float32)
    assert SPACE.mask is not None
    assert SPACE.mask.part == slice(0, N)
    return obs, legal


@pytest.mark.parametrize("core", ["feedforward", "gru"])
@pytest.mark.parametrize("greedy", [True, False])
def test_illegal_actions_are_never_taken(core: str, greedy: bool) -> None:
    rng = np.random.default_rng(0)
    model = model_that_prefers_illegal(core)
    assert supports(model) is (core == "feedforward")
    policy = ModelPolicy(make_network(model), None if greedy else rng)
    for _ in range(20):
        obs, legal = observations(rng, 500)
        policy.recurrent_state = None
        actions = policy.act(obs, np.ones(500, np.float32))
        assert legal[np.arange(500), actions].all()


def test_rare_noise_does_not_reach_illegal_actions() -> None:
    model = model_that_prefers_illegal()
    obs, legal = observations(np.random.default_rng(1), 2_000)
    params = model.policy(torch.from_numpy(obs)[None])[0][0]
    for noise in (0.0, float(np.nextafter(np.float32(1), np.float32(0)))):
        actions = model.distribution.sample(params, torch.full((2_000, 1), noise))
        assert legal[np.arange(2_000), actions.numpy()].all()


@pytest.mark.parametrize("critic", ["shared", "separate"])
@pytest.mark.parametrize("core", ["feedforward", "lstm"])
def test_the_distribution_is_that_of_the_legal_actions(core: str, critic: str) -> None:
    model = model_that_prefers_illegal(core, critic)
    with torch.no_grad():
        model.policy_head.linear.bias.copy_(torch.linspace(1.0, -1.0, N))
    obs, legal = observations(np.random.default_rng(2), 50)
    x = torch.from_numpy(obs)[None]
    params = model(x).params[0]
    raw = model.policy_head(model.core(model.encoder(x), None, None)[0])[0]
    for i in range(50):
        logits = raw[i, legal[i]]
        expected = torch.distributions.Categorical(logits=logits)
        torch.testing.assert_close(model.distribution.entropy(params)[i], expected.entropy(), atol=1e-6, rtol=1e-5)
        for place, action in enumerate(np.flatnonzero(legal[i])):
            log_prob = model.distribution.log_prob(params[i], torch.tensor(action))
            torch.testing.assert_close(log_prob, expected.logits[place])


def test_illegal_logits_have_no_gradient() -> None:
    model = model_that_prefers_illegal()
    obs, legal = observations(np.random.default_rng(3), 40)
    actions = torch.from_numpy(legal.argmax(1))
    logits: list[torch.Tensor] = []
    model.policy_head.register_forward_hook(lambda m, args, out: (out.retain_grad(), logits.append(out))[0])
    params = model(torch.from_numpy(obs)[None]).params[0]
    (model.distribution.log_prob(params, actions) + model.distribution.entropy(params)).sum().backward()
    assert logits[0].grad is not None
    gradient = logits[0].grad[0].numpy()
    assert np.isfinite(gradient).all()
    assert (gradient[~legal] == 0).all()
    several = legal.sum(1) > 1
    assert (np.abs(gradient[several]).sum(1) > 0).all()


def test_the_encoder_does_not_see_the_mask() -> None:
    model = model_that_prefers_illegal(critic="separate")
    obs, _ = observations(np.random.default_rng(4), 10)
    other = obs.copy()
    other[:, :N] = 1
    values = [model(torch.from_numpy(x)[None]).values for x in (obs, other)]
    assert torch.equal(values[0], values[1])


def test_no_legal_action_gives_no_nan() -> None:
    """An episode may end without a legal action; the action there has no effect."""
    model = model_that_prefers_illegal()
    params = model.policy(torch.zeros(1, 2, N + 3))[0]
    assert math.isclose(float(model.distribution.entropy(params.detach())[0, 0]), math.log(N), rel_tol=1e-5)


# --------------------------------------------------------------------------- where masks come from


def space_of(env: Any, **settings: Any) -> Any:
    return make_envs(env, 1, backend="sync", **settings).single_observation_space


def test_masks_are_found() -> None:
    assert space_of(Doors).mask_source == "info"
    assert space_of(Doors).original["observation"] == Discrete(7)
    assert space_of(Observed).mask_source == "observation"
    assert space_of("Taxi-v4").mask_source == "info"
    assert space_of(lambda: Doors("nowhere")) == Discrete(7)
    assert space_of(Ring) == Discrete(3)


def test_masks_can_be_ignored() -> None:
    assert space_of(Doors, action_masks="off") == Discrete(7)
    seen = space_of(Observed, action_masks="off")
    assert seen.mask_source is None
    assert len(seen.visible) == 2
    with pytest.raises(ConfigError, match="action_masks = 'on': must be auto"):
        make_envs(Doors, 1, action_masks="on")


def test_continuous_and_binary_actions_have_no_masks() -> None:
    class Reach(Observed):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = Box(-1, 1, (5,))

    assert space_of(Reach).mask_source is None


def test_a_mask_of_another_size_is_named() -> None:
    class Short(Observed):
        def __init__(self) -> None:
            super().__init__()
            self.action_space = Discrete(4)

    with pytest.raises(EnvError, match=r"its observation action_mask is MultiBinary\(5\), but there are 4 actions"):
        make_envs(Short, 1)


def step_into_first_legal(envs: EnvBackend, obs: np.ndarray, steps: int = 1) -> None:
    space, actions = envs.single_observation_space, envs.single_action_space
    assert isinstance(space, Packed)
    assert space.mask is not None
    for _ in range(steps):
        parts = np.split(obs[:, space.mask.part], np.cumsum(choices(actions))[:-1], 1)
        action = np.stack([part.argmax(1) for part in parts], -1)
        obs = envs.step(action.reshape(1, *(actions.shape or ()))).obs


class Counts(Doors):
    resets = 0

    def reset(self, **kwargs: Any) -> Any:
        type(self).resets += 1
        return super().reset(**kwargs)


def test_only_the_first_copy_is_reset_to_find_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counts, "resets", 0)
    source = resolve_env(EnvConfig(), Counts)
    for _ in range(3):
        source.make()
    assert Counts.resets == 1
    pickle.loads(pickle.dumps(source)).make()
    assert Counts.resets == 1
    assert resolve_env(EnvConfig(action_masks="off"), Counts).make() is not None
    assert Counts.resets == 1


def test_the_search_for_a_mask_hides_no_error_of_reset() -> None:
    class Broken(Ring):
        def reset(self, **kwargs: Any) -> Any:
            raise KeyError("level")

    with pytest.raises(EnvError, match=r"reset\(\) raised KeyError: 'level'"):
        make_envs(Broken, 1, backend="sync")


@pytest.mark.parametrize(
    ("where", "fault", "words"),
    [
        ("info", "missing", "info has no action_mask; give it at every reset and step, or set action_masks to off"),
        ("info", "shape", "observation['action_mask'] has shape (4,): must be MultiBinary(5), of shape (5,)"),
        ("info", "empty", "action_mask leaves no legal action"),
        ("observation", "shape", "observation['action_mask'] has shape (4,): must be MultiBinary(5), of shape (5,)"),
        ("observation", "empty", "action_mask leaves no legal action"),
    ],
)
def test_masks_that_cannot_be_right_are_named(where: str, fault: str, words: str) -> None:
    envs = make_envs("helpers.composite_envs:Doors", 1, backend="sync", env_kwargs={"where": where, "fault": fault})
    step_into_first_legal(envs, envs.reset(0))
    with pytest.raises(EnvError) as error:
        step_into_first_legal(envs, envs.reset(0), 2)
    assert str(error.value).startswith("helpers.composite_envs:Doors: step 2 of an episode, environment 0: ")
    assert words in str(error.value)


def test_a_mask_needs_a_legal_action_in_every_choice() -> None:
    assert has_legal_action(np.array([0, 1, 1, 0, 0]), [2, 3])
    assert not has_legal_action(np.array([1, 1, 0, 0, 0]), [2, 3])
    assert has_legal_action(np.full(600, 1, np.uint8), [600])
    envs = make_envs(lambda: Doors(fault="empty", choices=(2, 3)), 1, backend="sync")
    assert isinstance(envs.single_action_space, MultiDiscrete)
    with pytest.raises(EnvError, match="leaves no legal action"):
        step_into_first_legal(envs, envs.reset(0), 2)


def test_a_vectorised_class_cannot_carry_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    import gymnasium as gym

    gym.register("limelight-test/Doors-v0", entry_point=Doors, vector_entry_point=Vectorised)
    try:
        assert explain_backend(resolve_env(EnvConfig("limelight-test/Doors-v0", num_envs=9))).backend == "sync"
        with pytest.raises(ConfigError, match="cannot carry the composite spaces or action masks"):
            make_envs("limelight-test/Doors-v0", 9, backend="vector")
        unmasked = EnvConfig("limelight-test/Doors-v0", num_envs=9, action_masks="off")
        assert explain_backend(resolve_env(unmasked)).backend == "vector"
    finally:
        del gym.registry["limelight-test/Doors-v0"]


class Vectorised:
    from gymnasium.vector import AutoresetMode as _Modes

    metadata = {"autoreset_mode": _Modes.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs


# --------------------------------------------------------------------------- whole runs


@pytest.mark.parametrize(
    ("env", "algo"),
    [
        ("helpers.composite_envs:Doors", "ac"),
        ("helpers.composite_envs:Doors", "a2c"),
        ("helpers.composite_envs:Doors", "a3c"),
        ("helpers.composite_envs:Observed", "a2c"),
    ],
)
def test_training_never_walks_into_a_door(env: str, algo: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)
    settings: dict[str, Any] = {"num_workers": 2, "on_worker_error": "raise"} if algo == "a3c" else {}
    result = limelight.train(
        env, algo=algo, run_dir=str(tmp_path / "run"), total_timesteps=600, seed=1, quiet=True, tensorboard=False,
        preset="plain", eval_every=0, final_episodes=10, hidden_sizes=(8,), **settings,
    )  # fmt: skip
    assert result.summary["final_eval_episodes"] == 10
    agent = limelight.load(result.run_dir)
    mask = np.array([0, 0, 1, 1, 0], np.int8)
    for deterministic in (True, False):
        obs: Any = (
            np.arange(6) if env.endswith("Doors") else {"time": np.arange(6), "action_mask": np.tile(mask, (6, 1))}
        )
        masks = mask if env.endswith("Doors") else None
        actions, _ = agent.predict(obs, deterministic=deterministic, action_masks=masks)
        assert set(actions.tolist()) <= {2, 3}


def test_random_play_is_legal() -> None:
    for env in (Doors(), Observed(), Doors(choices=(2, 3, 4))):
        wrapped = resolve_env(EnvConfig(), lambda env=env: env).make()  # type: ignore[misc]
        for played in (env, wrapped):
            played.action_space.seed(0)
            taken = set()
            for seed in range(30):
                obs, info = played.reset(seed=seed)
                action = random_action(played, obs, info)
                assert action in env.action_space
                taken.add(str(action))
                played.step(action)
            assert len(taken) >= 4
    broken = Doors("observation")
    assert random_action(broken, {"action_mask": np.zeros(5)}, {}) in broken.action_space
    assert random_action(broken, {"action_mask": np.ones(4)}, {}) in broken.action_space


def test_without_a_mask_predict_forbids_nothing() -> None:
    config = limelight.TrainConfig()
    space = make_envs(Doors, 1, backend="sync").single_observation_space
    model = make_model(space, Discrete(N), ModelConfig(hidden_sizes=(8,)), 0)
    with torch.no_grad():
        model.policy_head.linear.bias.copy_(torch.linspace(9.0, -9.0, N))
    agent = limelight.Agent(model, None, config, space, Discrete(N))
    assert agent.predict(3)[0] == 0
    assert agent.predict(3, action_masks=[0, 0, 1, 1, 1])[0] == 2


def test_masks_without_a_legal_action_are_refused() -> None:
    require_legal(np.array([[0, 1, 1, 0]]), MultiDiscrete([2, 2]))
    with pytest.raises(ConfigError, match="action_mask of observation 1: leaves no legal action"):
        require_legal(np.array([[0, 1, 1, 0], [1, 1, 0, 0]]), MultiDiscrete([2, 2]))


@pytest.mark.parametrize("mask", [[[1], [1, 1]], object(), ("a", [[1], [2, 3]])], ids=["ragged", "object", "nested"])
def test_what_is_no_array_is_no_mask(mask: Any) -> None:
    assert len(flat_mask(mask)) != 3
