"""A learner on a GPU compared with the same on the CPU: gradients, optimizer steps, acting, and whole runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from torch import Tensor

import limelight
from helpers.learners import gradient_metrics, update_metrics
from limelight.algo.collector import RolloutCollector
from limelight.algo.learner import Learner
from limelight.algo.normalization import make_normalizer
from limelight.algo.rollout import Rollout
from limelight.envs.gymnasium_backend import SyncBackend
from limelight.envs.toy import Catch
from limelight.nn.policy import ModelPolicy
from limelight.settings.io import with_settings
from limelight.settings.schema import TrainConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

VECTOR, IMAGE = Box(-1.0, 1.0, (5,), np.float32), Box(0, 255, (4, 42, 42), np.uint8)
CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "mlp": (VECTOR, Discrete(3), {}),
    "separate-critic": (VECTOR, Discrete(3), {"critic": "separate", "normalize_advantages": "batch"}),
    "target-critic": (VECTOR, Discrete(3), {"critic": "target", "critic_learning_rate": 1e-3}),
    "continuous": (VECTOR, Box(-2.0, 2.0, (2,), np.float32), {"normalize_rewards": True}),
    "squashed": (VECTOR, Box(-2.0, 2.0, (2,), np.float32), {"action_bounds": "squash", "action_std": "softplus"}),
    "gsde": (VECTOR, Box(-2.0, 2.0, (2,), np.float32), {"action_std": "gsde"}),
    "choices": (MultiDiscrete([3, 4]), MultiDiscrete([2, 3]), {}),
    "a3c": (IMAGE, Discrete(3), {"encoder": "a3c"}),
    "impala": (IMAGE, Discrete(3), {"encoder": "impala"}),
    "catch": (Box(0, 255, (36, 36), np.uint8), Discrete(3), {"encoder": "a3c-half"}),
}


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute convolutions in float32; TF32 has only 10 bits of mantissa."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def pair(make_actor_critic: Callable[..., Any]) -> Callable[..., list[Learner]]:
    """``pair(case, **settings)``: one learner on the CPU and an equal one on the GPU."""

    def make(case: str, **settings: Any) -> list[Learner]:
        space, actions, case_settings = CASES[case]
        settings = {"hidden_sizes": (8, 6), "policy_init_gain": 1.0, **case_settings, **settings}
        config = with_settings(TrainConfig(), settings)
        models = [make_actor_critic(space, 0, actions, **settings).to(device) for device in ("cpu", "cuda")]
        return [Learner(model, config.algorithm, config.optim) for model in models]

    return make


def assert_close(one: Tensor, other: Tensor, tolerance: float) -> None:
    """Equal to ``tolerance`` of the length of ``one``."""
    one, other = one.cpu(), other.cpu()
    assert one.norm() > 0
    assert (one - other).norm() <= tolerance * one.norm()


@pytest.mark.parametrize("core", ["feedforward", "lstm", "gru"])
@pytest.mark.parametrize("case", CASES)
def test_gradients_and_metrics_agree(pair: Any, make_rollout: Callable[..., Rollout], case: str, core: str) -> None:
    space, actions, _ = CASES[case]
    learners = pair(case, **({} if core == "feedforward" else {"core": core, "core_size": 6}))
    rollout = make_rollout(space, stream="next_step", actions=actions)
    if core != "feedforward":
        state = np.random.default_rng(1).standard_normal((3, learners[0].model.state_size)).astype(np.float32)
        rollout = replace(rollout, recurrent_state=state)
    metrics = [gradient_metrics(learner, rollout) for learner in learners]
    assert_close(learners[0].flat.grads, learners[1].flat.grads, 1e-4)
    for name, value in metrics[1].items():
        assert value == pytest.approx(metrics[0][name], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("optimizer", ["rmsprop", "rmsprop_tf", "adam"])
@pytest.mark.parametrize("case", ["mlp", "target-critic"])
def test_ten_updates_agree(pair: Any, make_rollout: Callable[..., Rollout], case: str, optimizer: str) -> None:
    """Each is from another rollout; parameters and the optimizer's state are compared."""
    learners = pair(case, optimizer=optimizer, learning_rate=1e-2)
    before = learners[0].flat.params.clone()
    for seed in range(10):
        rollout = make_rollout(VECTOR, seed)
        norms = [update_metrics(learner, rollout, seed / 10)["train/grad_norm"] for learner in learners]
        assert norms[1] == pytest.approx(norms[0], rel=1e-3)
    assert (learners[0].flat.params - before).abs().max() > 1e-3
    for mine, theirs in zip(*(learner.train_state.optimizer_state.values() for learner in learners), strict=True):
        torch.testing.assert_close(theirs.cpu(), mine, rtol=1e-2, atol=1e-5)
    torch.testing.assert_close(learners[1].flat.params.cpu(), learners[0].flat.params, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_acting_and_learning_from_images_agree(pair: Any, precision: str) -> None:
    """Images are standardised in the network; the same random numbers give the same actions."""
    seen, space = [], CASES["catch"][0]
    for learner in pair("catch", num_steps=5, precision=precision):
        collector = RolloutCollector(SyncBackend([Catch() for _ in range(3)]), 5, make_normalizer(space), "Catch")
        collector.reset(0)
        policy = ModelPolicy(learner.network, np.random.default_rng(0))
        assert collector.normalizer is not None
        for _ in range(3):
            learner.network.set_image_scale(collector.normalizer.image_scale())
            rollout = collector.collect(policy)
            learner.gradients(rollout)
        seen.append((rollout.actions.copy(), learner.flat.grads.clone()))
    if precision == "float32":
        np.testing.assert_array_equal(seen[0][0], seen[1][0])
        assert_close(seen[0][1], seen[1][1], 1e-3)
    assert bool(torch.isfinite(seen[1][1]).all())
    assert seen[1][1].norm() > 0


@pytest.mark.parametrize("algo", ["ac", "a2c"])
@pytest.mark.parametrize("core", ["feedforward", "lstm"])
def test_a_run_is_saved_loaded_without_a_gpu_and_resumed(tmp_path: Path, algo: str, core: str) -> None:
    own = {"core": core, "core_size": 8} if core != "feedforward" else {}
    result = limelight.train(
        "CartPole-v1", algo=algo, run_dir=str(tmp_path / "r"), device="cuda", total_timesteps=1_000, seed=0, quiet=True,
        eval_every=500, eval_episodes=2, final_episodes=2, tensorboard=False, optimizer="adam", **own,
    )  # fmt: skip
    assert result.status == "completed"
    agent = limelight.load(tmp_path / "r", "last")
    assert next(agent.model.parameters()).device.type == "cpu"
    assert int(agent.predict(np.zeros(4, np.float32))[0]) in (0, 1)
    again = limelight.resume(tmp_path / "r", total_timesteps=2_000, quiet=True)
    assert again.summary["total_timesteps"] >= 2_000


def test_a2c_learns_on_a_gpu(tmp_path: Path) -> None:
    result = limelight.train(
        "helpers.toys:Corridor", run_dir=str(tmp_path / "r"), device="cuda", total_timesteps=6_000, seed=0,
        learning_rate=1e-2, quiet=True, tensorboard=False, eval_every=1_000, eval_episodes=4, final_episodes=8,
    )  # fmt: skip
    assert result.summary["final_eval_return"] == pytest.approx(1.0)
