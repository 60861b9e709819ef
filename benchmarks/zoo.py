"""Hyperparameters of RL Baselines3 Zoo, and a run of Stable-Baselines3 with them until it reaches a score.

The values are those of ``hyperparams/ppo.yml`` and ``hyperparams/a2c.yml`` of
https://github.com/DLR-RM/rl-baselines3-zoo at commit 22e3ff2450fd92033f7f032915e1f64894a09584; what a row does not
name has the default of Stable-Baselines3, as there. ``lin_x`` falls linearly from x to 0 over ``n_timesteps``;
``normalize`` standardises observations and scales rewards by VecNormalize with the row's γ; environments run in one
process (DummyVecEnv), which is the zoo's default as well.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Settings = dict[str, Any]

_WIDE = {
    "log_std_init": -2,
    "ortho_init": False,
    "activation_fn": "ReLU",
    "net_arch": {"pi": [256, 256], "vf": [256, 256]},
}
_MUJOCO = {"normalize": True, "n_timesteps": 1e6}
_PPO_LANDER = {
    "n_envs": 16, "n_timesteps": 1e6, "n_steps": 1024, "batch_size": 64, "gae_lambda": 0.98, "gamma": 0.999,
    "n_epochs": 4, "ent_coef": 0.01,
}  # fmt: skip
_A2C_SDE = {
    "normalize": True, "ent_coef": 0.0, "max_grad_norm": 0.5, "n_steps": 8, "gae_lambda": 0.9, "vf_coef": 0.4,
    "use_rms_prop": True, "normalize_advantage": False, "use_sde": True,
    "policy_kwargs": {"log_std_init": -2, "ortho_init": False},
}  # fmt: skip

PPO: dict[str, Settings] = {
    "CartPole-v1": {
        "n_envs": 8, "n_timesteps": 1e5, "n_steps": 32, "batch_size": 256, "gae_lambda": 0.8, "gamma": 0.98,
        "n_epochs": 20, "ent_coef": 0.0, "learning_rate": "lin_0.001", "clip_range": "lin_0.2",
    },
    "Acrobot-v1": {
        "normalize": True, "n_envs": 16, "n_timesteps": 1e6, "n_steps": 256, "gae_lambda": 0.94, "gamma": 0.99,
        "n_epochs": 4, "ent_coef": 0.0,
    },
    "LunarLander-v3": _PPO_LANDER,
    "LunarLanderContinuous-v3": _PPO_LANDER,
    "BipedalWalker-v3": {
        "normalize": True, "n_envs": 32, "n_timesteps": 5e6, "n_steps": 2048, "batch_size": 64, "gae_lambda": 0.95,
        "gamma": 0.999, "n_epochs": 10, "ent_coef": 0.0, "learning_rate": 3e-4, "clip_range": 0.18,
    },
    "Pendulum-v1": {
        "n_envs": 4, "n_timesteps": 1e5, "n_steps": 1024, "gae_lambda": 0.95, "gamma": 0.9, "n_epochs": 10,
        "ent_coef": 0.0, "learning_rate": 1e-3, "clip_range": 0.2, "use_sde": True, "sde_sample_freq": 4,
    },
    "MountainCarContinuous-v0": {
        "normalize": True, "n_envs": 1, "n_timesteps": 20000, "batch_size": 256, "n_steps": 8, "gamma": 0.9999,
        "learning_rate": 7.77e-05, "ent_coef": 0.00429, "clip_range": 0.1, "n_epochs": 10, "gae_lambda": 0.9,
        "max_grad_norm": 5, "vf_coef": 0.19, "use_sde": True,
        "policy_kwargs": {"log_std_init": -3.29, "ortho_init": False},
    },
    "HalfCheetah-v4": {
        "normalize": True, "n_envs": 1, "n_timesteps": 1e6, "batch_size": 64, "n_steps": 512, "gamma": 0.98,
        "learning_rate": 2.0633e-05, "ent_coef": 0.000401762, "clip_range": 0.1, "n_epochs": 20, "gae_lambda": 0.92,
        "max_grad_norm": 0.8, "vf_coef": 0.58096, "policy_kwargs": _WIDE,
    },
    "Hopper-v4": {
        "normalize": True, "n_envs": 1, "n_timesteps": 1e6, "batch_size": 32, "n_steps": 512, "gamma": 0.999,
        "learning_rate": 9.80828e-05, "ent_coef": 0.00229519, "clip_range": 0.2, "n_epochs": 5, "gae_lambda": 0.99,
        "max_grad_norm": 0.7, "vf_coef": 0.835671, "policy_kwargs": _WIDE,
    },
    "Walker2d-v4": {
        "normalize": True, "n_envs": 1, "n_timesteps": 1e6, "batch_size": 32, "n_steps": 512, "gamma": 0.99,
        "learning_rate": 5.05041e-05, "ent_coef": 0.000585045, "clip_range": 0.1, "n_epochs": 20, "gae_lambda": 0.95,
        "max_grad_norm": 1, "vf_coef": 0.871923,
    },
    "Ant-v4": _MUJOCO,
    "InvertedDoublePendulum-v2": {
        "normalize": True, "n_envs": 1, "n_timesteps": 1e6, "batch_size": 512, "n_steps": 128, "gamma": 0.98,
        "learning_rate": 0.000155454, "ent_coef": 1.05057e-06, "clip_range": 0.4, "n_epochs": 10, "gae_lambda": 0.8,
        "max_grad_norm": 0.5, "vf_coef": 0.695929,
    },
    "default": {"n_timesteps": 1e6},
}  # fmt: skip
A2C: dict[str, Settings] = {
    "CartPole-v1": {"n_envs": 8, "n_timesteps": 5e5, "ent_coef": 0.0},
    "Acrobot-v1": {"normalize": True, "n_envs": 16, "n_timesteps": 5e5, "ent_coef": 0.0},
    "LunarLander-v3": {
        "n_envs": 8, "n_timesteps": 2e5, "gamma": 0.995, "n_steps": 5, "learning_rate": "lin_0.00083",
        "ent_coef": 0.00001,
    },
    "LunarLanderContinuous-v3": {
        **_A2C_SDE, "n_envs": 4, "n_timesteps": 5e6, "gamma": 0.99, "learning_rate": "lin_7e-4",
    },
    "BipedalWalker-v3": {
        **_A2C_SDE, "n_envs": 16, "n_timesteps": 5e6, "gamma": 0.99, "learning_rate": "lin_0.00096",
    },
    "Pendulum-v1": {**_A2C_SDE, "n_envs": 8, "n_timesteps": 1e6, "gamma": 0.9, "learning_rate": "lin_7e-4"},
    "MountainCarContinuous-v0": {
        "normalize": True, "n_envs": 4, "n_steps": 100, "n_timesteps": 1e5, "ent_coef": 0.0, "use_sde": True,
        "sde_sample_freq": 16, "policy_kwargs": {"log_std_init": 0.0, "ortho_init": False},
    },
    "HalfCheetah-v4": _MUJOCO,
    "Ant-v4": _MUJOCO,
    "Hopper-v4": _MUJOCO,
    "Walker2d-v4": _MUJOCO,
    "default": {"n_timesteps": 1e6},
}  # fmt: skip
TABLES = {"ppo": PPO, "a2c": A2C}


def zoo_id(env_id: str, algo: str) -> str:
    """Return the zoo's row for an environment: of its id, of an older version of it, or ``default``."""
    name = env_id.rpartition("-")[0]
    return next((each for each in (env_id, f"{name}-v4", f"{name}-v2") if each in TABLES[algo]), "default")


def hyperparameters(env_id: str, algo: str) -> Settings:
    """Return the zoo's row of settings, with ``zoo_id`` as its name there."""
    name = zoo_id(env_id, algo)
    return {"zoo_id": name, **TABLES[algo][name]}


def is_tuned(settings: Mapping[str, Any]) -> bool:
    """Return whether a row of the zoo sets more than normalization and the budget."""
    return not set(settings) <= {"zoo_id", "normalize", "n_timesteps"}


def schedule(value: Any) -> Any:
    """Return ``lin_x`` as a function of the progress that remains, anything else as it is."""
    if not isinstance(value, str):
        return value
    start = float(value.removeprefix("lin_"))
    return lambda remaining: remaining * start


def make_model(env_id: str, algo: str, settings: Mapping[str, Any], seed: int) -> Any:
    """Make Stable-Baselines3's model with these settings and its environments."""
    import stable_baselines3
    import torch
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    rest = {key: value for key, value in settings.items() if key not in ("zoo_id", "n_timesteps")}
    envs = make_vec_env(env_id, n_envs=rest.pop("n_envs", 1), seed=seed)
    if rest.pop("normalize", False):
        envs = VecNormalize(envs, **({"gamma": rest["gamma"]} if "gamma" in rest else {}))
    for name in ("learning_rate", "clip_range"):
        if name in rest:
            rest[name] = schedule(rest[name])
    if "activation_fn" in rest.get("policy_kwargs", {}):
        activation = getattr(torch.nn, rest["policy_kwargs"]["activation_fn"])
        rest["policy_kwargs"] = {**rest["policy_kwargs"], "activation_fn": activation}
    return getattr(stable_baselines3, algo.upper())("MlpPolicy", envs, seed=seed, device="cpu", **rest)


def greedy_mean(model: Any, env_id: str, episodes: int, seed: int) -> float:
    """Return the mean return of greedy episodes side by side, on raw environments with the statistics of training."""
    import gymnasium as gym

    normalizer = model.get_vec_normalize_env()
    envs = [gym.make(env_id) for _ in range(episodes)]
    obs = np.stack([env.reset(seed=seed + i)[0] for i, env in enumerate(envs)])
    returns, active = np.zeros(episodes), np.ones(episodes, bool)
    while active.any():
        actions, _ = model.predict(normalizer.normalize_obs(obs) if normalizer else obs, deterministic=True)
        for i in np.flatnonzero(active):
            obs[i], reward, terminated, truncated, _ = envs[i].step(actions[i])
            returns[i] += float(reward)
            active[i] = not (terminated or truncated)
    for env in envs:
        env.close()
    return float(returns.mean())


Evaluate = Callable[[int, int], float]
"""(episodes, seed) → mean return of greedy episodes."""


def train_until(
    env_id: str,
    algo: str,
    settings: Mapping[str, Any],
    seed: int,
    every: int,
    is_over: Callable[[int, float], bool],
    is_reached: Callable[[int, float, Evaluate], bool],
) -> tuple[int, float]:
    """Train until one of the two says so, or to the end of the row's budget.

    A policy changes at the end of a rollout only, so an evaluation that is due takes place at the next one.

    Args:
        env_id: the environment.
        algo: ``ppo`` or ``a2c``.
        settings: a row of the zoo.
        seed: of the environments and of the model.
        every: environment steps between two evaluations.
        is_over: called with steps and training seconds after each step of all environments; True ends the run.
        is_reached: called with steps, training seconds and a function that evaluates; True ends the run.
    Returns: environment steps and training seconds (without evaluations).
    """
    model = make_model(env_id, algo, settings, seed)
    watch = make_watch(every, is_over, is_reached, lambda episodes, seed: greedy_mean(model, env_id, episodes, seed))
    model.learn(int(settings["n_timesteps"]), callback=watch)
    model.get_env().close()
    result: tuple[int, float] = watch.result
    return result


def make_watch(
    every: int,
    is_over: Callable[[int, float], bool],
    is_reached: Callable[[int, float, Evaluate], bool],
    evaluate: Evaluate,
) -> Any:
    """Return a callback of Stable-Baselines3 that evaluates between rollouts, with the clock stopped.

    Its ``result`` is what :func:`train_until` returns, whose arguments these are.
    """
    from stable_baselines3.common.callbacks import BaseCallback

    class Watch(BaseCallback):  # type: ignore[misc]
        """Holds the clock, and the step at which the next evaluation is due."""

        def __init__(self) -> None:
            super().__init__()
            self.due, self.reached = every, False
            self.started = 0.0

        def seconds(self) -> float:
            return time.perf_counter() - self.started

        def _on_training_start(self) -> None:
            self.started = time.perf_counter()

        def evaluate_if_due(self) -> None:
            steps, seconds = self.num_timesteps, self.seconds()
            if steps < self.due or is_over(steps, seconds):
                return
            self.due = every * (steps // every + 1)
            paused = time.perf_counter()
            self.reached = is_reached(steps, seconds, evaluate)
            self.started += time.perf_counter() - paused

        def _on_rollout_start(self) -> None:
            self.evaluate_if_due()

        def _on_step(self) -> bool:
            return not (self.reached or is_over(self.num_timesteps, self.seconds()))

        def _on_training_end(self) -> None:
            if not self.reached:
                self.due = min(self.due, self.num_timesteps)  # the last parameters are always evaluated
                self.evaluate_if_due()
            self.result = self.num_timesteps, self.seconds()

    return Watch()
