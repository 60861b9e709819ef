"""A3C on Atari as tutorials and scripts write it, for comparison: PyTorch and Gymnasium, without Limelight.

Each process has one environment and runs one forward for every step, with its graph kept for the backward after 20
steps. Gradients go to a shared model that a shared Adam moves without locks. Network and images are those of Limelight.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from throughput import Sample
from torch import Tensor, multiprocessing, nn
from torch.nn import functional

NUM_STEPS, GAMMA, ENTROPY = 20, 0.99, 0.01


class Network(nn.Module):
    """The A3C paper's network, on four frames of 84 × 84."""

    def __init__(self, num_actions: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(4, 16, 8, 4), nn.ReLU(), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(2592, 256),
            nn.ReLU(),
        )  # fmt: skip
        self.policy, self.value = nn.Linear(256, num_actions), nn.Linear(256, 1)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits [1, A] and value [1] of one stack of frames [1, 4, 84, 84]."""
        features = self.trunk(frames)
        return self.policy(features), self.value(features)[:, 0]


def make_env(env_id: str) -> Any:
    """Make the game with Gymnasium's preprocessing."""
    import ale_py
    import gymnasium as gym
    from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

    gym.register_envs(ale_py)
    env = gym.make(env_id, frameskip=1, repeat_action_probability=0.0)
    return FrameStackObservation(AtariPreprocessing(env, frame_skip=4), 4)


def loss_of(rewards: list[float], log_probs: list[Tensor], values: list[Tensor], entropies: list[Tensor]) -> Tensor:
    """Return the loss of one rollout; ``values`` has one entry more, to bootstrap from."""
    target = values[-1].detach()
    loss = torch.zeros(1)
    for i in reversed(range(len(rewards))):
        target = GAMMA * target + rewards[i]
        advantage = target - values[i]
        loss = loss + 0.5 * advantage**2 - log_probs[i] * advantage.detach() - ENTROPY * entropies[i]
    return loss


def work(shared: Network, optimizer: Any, env_id: str, seed: int, go: Any, steps: Tensor) -> None:
    """Run one worker until its process is ended; it waits while ``go`` is not set."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
    env = make_env(env_id)
    model = Network(int(env.action_space.n))
    obs, _ = env.reset(seed=seed)
    while True:
        go.wait()
        model.load_state_dict(shared.state_dict())
        rewards, log_probs, values, entropies, done = [], [], [], [], False
        for _ in range(NUM_STEPS):
            logits, value = model(torch.from_numpy(np.asarray(obs, np.float32) / 255)[None])
            log_p = functional.log_softmax(logits, -1)
            action = log_p.exp().multinomial(1)
            obs, reward, terminated, truncated, _ = env.step(int(action))
            rewards.append(float(np.sign(reward)))
            log_probs.append(log_p.gather(1, action)[:, 0])
            values.append(value)
            entropies.append(-(log_p * log_p.exp()).sum(1))
            steps += 1
            done = terminated or truncated
            if done:
                obs, _ = env.reset()
                break
        last = torch.zeros(1) if done else model(torch.from_numpy(np.asarray(obs, np.float32) / 255)[None])[1]
        model.zero_grad()
        loss_of(rewards, log_probs, [*values, last], entropies).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 40)
        for ours, theirs in zip(model.parameters(), shared.parameters(), strict=True):
            theirs.grad = ours.grad
        optimizer.step()


def shared_adam(model: Network) -> torch.optim.Adam:
    """Return PyTorch's Adam with its state already made and in shared memory."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    for p in model.parameters():
        state = {"step": torch.zeros(()), "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        optimizer.state[p] = {name: tensor.share_memory_() for name, tensor in state.items()}
    return optimizer


class ClassicScript:
    """The processes of the classic script; they pause during the turns of other contenders."""

    name = "the classic script"

    def __init__(self, env_id: str, num_workers: int, seed: int) -> None:
        spawn = multiprocessing.get_context("spawn")
        env = make_env(env_id)
        model = Network(int(env.action_space.n)).share_memory()
        env.close()
        self.go, self.steps = spawn.Event(), [torch.zeros(1).share_memory_() for _ in range(num_workers)]
        optimizer = shared_adam(model)
        self.processes = [
            spawn.Process(target=work, args=(model, optimizer, env_id, seed + i, self.go, steps), daemon=True)
            for i, steps in enumerate(self.steps)
        ]
        for process in self.processes:
            process.start()

    def turn(self, seconds: float) -> Sample:
        """See :class:`throughput.Contender`."""
        self.go.set()
        # Wait for all workers: starting takes seconds, which are not part of the turn.
        while any(float(steps) == 0.0 for steps in self.steps):
            if not all(process.is_alive() for process in self.processes):
                raise RuntimeError("a process of the classic script has ended")
            time.sleep(0.05)
        start, before = time.perf_counter(), self._count()
        time.sleep(seconds)
        elapsed, steps = time.perf_counter() - start, self._count() - before
        self.go.clear()
        return Sample(steps, steps // NUM_STEPS, elapsed)

    def _count(self) -> int:
        return int(sum(float(steps) for steps in self.steps))

    def close(self) -> None:
        """See :class:`throughput.Contender`."""
        for process in self.processes:
            process.terminate()
            process.join()
