"""Every setting of a run, as frozen dataclasses with one docstring per field.

The command line, the saved ``config.yaml`` and docs/settings.md are all generated from this file.
Field names are unique across sections, so every setting has one plain name (``--gamma``).
Imports nothing heavy: ``limelight --help`` must not load torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

EnvKwargs = dict[str, int | float | bool | str]


@dataclass(frozen=True)
class EnvConfig:
    """Which environment, how many copies, and how they are stepped."""

    env_id: str = "CartPole-v1"
    """A Gymnasium id (``CartPole-v1``), a game of Atari's (``pong``), or ``package.module:callable`` that makes one."""
    env_kwargs: EnvKwargs = field(default_factory=dict)
    """Keyword arguments for the environment's constructor, as ``--env-kwargs KEY VALUE ...``."""
    env_module: str | None = None
    """A module to import first because it registers the environment id."""
    max_episode_steps: int | None = None
    """Override the environment's own time limit (in environment steps)."""
    num_envs: int = 8
    """Environments stepped side by side, B."""
    backend: Literal["auto", "vector", "sync", "async", "envpool", "ale"] = "auto"
    """Who steps them: the env's own vectorised class, Gymnasium's sync or async one, EnvPool, ALE, or the fastest."""
    env_threads: int | None = None
    """Threads that ALE steps the games of a process with; None is one per core, shared among workers."""
    autoreset_mode: Literal["next_step", "same_step", "disabled"] = "next_step"
    """When a finished episode restarts. Learning is right in all three; ``next_step`` is the cheapest."""
    normalize_obs: bool = False
    """Standardise Box observations of floats, or the pixels of an image, by running moments (frozen in evaluation)."""
    action_masks: Literal["auto", "off"] = "auto"
    """Take no action that ``action_mask`` (in a Dict observation, or in info) calls illegal; off: do not look at it."""
    frame_size: int = 84
    """Atari: sides of the grey picture that is seen, in pixels."""
    frame_stack: int = 4
    """Atari: how many pictures are seen together, the newest last."""
    frame_skip: int = 4
    """Atari: frames that an action is held for; of the last two the brighter pixels are seen."""
    sticky_actions: float = 0.0
    """Atari: probability that a frame takes the last action once more (Gymnasium's ALE ids say 0.25)."""
    noop_max: int = 30
    """Atari: a game begins with fewer frames than this without action, at random."""
    fire_reset: bool = True
    """Atari: press FIRE at the beginning, in games that wait for it."""
    full_action_set: bool = False
    """Atari: all 18 actions of the joystick, not those alone that the game uses."""
    terminal_on_life_loss: bool = False
    """Atari: learn from a lost life as from an end. The game goes on, and its score is that of all lives."""


@dataclass(frozen=True)
class AlgorithmConfig:
    """What is learnt from a rollout."""

    algo: str = "a2c"
    """The row of algorithms.py these settings started from (``limelight list algos``)."""
    num_steps: int = 8
    """Environment steps per environment and update, T."""
    gamma: float = 0.99
    """Discount factor γ."""
    gae_lambda: float = 0.95
    """λ of the return estimator: 0 is TD(0), 1 is the n-step return up to the end of the rollout."""
    noise_correlation: float = 0.0
    """Correlation of the noise of continuous actions from one step to the next: 0 is white, near 1 a slow drift."""
    policy_weight: Literal["advantage", "q"] = "advantage"
    """What weighs ∇log π: the advantage, or the return estimate itself (``q``, plain actor-critic)."""
    normalize_advantages: Literal["none", "batch", "running"] = "none"
    """Standardise the policy weight: over each rollout, by running mean and variance, or not at all."""
    running_decay: float = 0.99
    """Decay per update of the mean that ``normalize_advantages = running`` subtracts."""
    ent_coef: float = 0.01
    """Weight of the entropy bonus."""
    ent_schedule: Literal["constant", "linear"] = "constant"
    """That weight stays, or falls linearly to zero over ``total_timesteps``: explore early, play well in the end."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    value_loss: Literal["mse", "huber"] = "mse"
    """Loss between values and return targets."""
    huber_delta: float = 1.0
    """Where the Huber loss turns from square to linear."""
    reward_scale: float = 1.0
    """Factor on the rewards the learner sees. Reported returns stay raw."""
    normalize_rewards: bool = False
    """Divide the rewards the learner sees by the running deviation of discounted returns. Reported returns stay raw."""
    reward_clip: float | None = None
    """Clip the rewards the learner sees to [-c, c], before scaling. Reported returns stay raw."""


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    critic: Literal["shared", "separate", "target"] = "shared"
    """One trunk with two heads; two networks; or two networks and a slow copy of the critic for targets."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Widths of the hidden layers."""
    activation: Literal["tanh", "relu", "elu", "silu"] = "tanh"
    """Nonlinearity between layers."""
    orthogonal_init: bool = True
    """Orthogonal weights with gain √2 (1 for the value head) and zero biases; otherwise PyTorch's default."""
    policy_init_gain: float = 0.01
    """Gain of the last policy layer: small, so that the first policy is close to uniform."""
    action_std: Literal["parameter", "exp", "softplus", "gsde"] = "parameter"
    """σ of continuous actions: a parameter per dimension; or of the state: e^output, a variance softplus(output), or
    gsde, where features of the state are weighed by noise (docs/spaces.md)."""
    log_std_init: float = 0.0
    """Initial log σ of continuous actions."""
    action_bounds: Literal["auto", "clip", "rescale", "squash"] = "auto"
    """Continuous actions: clipped to the bounds; −1 … 1 is their range; tanh of them is; auto: the second if finite."""
    encoder: str | None = None
    """Of pictures: a3c, a3c-half, nature, universe, impala; ``package.module:Class`` is your own (docs/extending.md);
    None: ours by the space, an MLP of ``hidden_sizes`` or a CNN."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of convolutional layers; auto: bfloat16 for pictures where the processor can do that by itself."""
    core: Literal["feedforward", "lstm", "gru"] = "feedforward"
    """What remembers between encoder and heads, for observations that do not tell all: nothing, an LSTM or a GRU."""
    core_size: int = 64
    """Hidden units of a recurrent core."""
    tau: float = 0.05
    """Polyak factor of the target critic: target ← (1 − tau) target + tau critic."""
    target_update_every: int = 1
    """Updates (or episodes) between two moves of the target critic."""
    target_update_at: Literal["updates", "episode_end"] = "updates"
    """Whether ``target_update_every`` counts updates or finished episodes."""


@dataclass(frozen=True)
class OptimConfig:
    """How gradients become parameters."""

    optimizer: Literal["rmsprop", "rmsprop_tf", "adam"] = "rmsprop"
    """Optimizer of all parameters; ``rmsprop_tf`` has ε inside the root and its moment starts at 1."""
    learning_rate: float = 7e-4
    """Step size (of the actor, where ``critic_learning_rate`` is given)."""
    critic_learning_rate: float | None = None
    """Step size of the critic's own parameters; None is the same as ``learning_rate``."""
    lr_schedule: Literal["constant", "linear"] = "linear"
    """Constant, or linearly to zero over ``total_timesteps``."""
    rms_alpha: float = 0.99
    """Decay of RMSprop's second moment."""
    adam_beta1: float = 0.9
    """Decay of Adam's first moment."""
    adam_beta2: float = 0.999
    """Decay of Adam's second moment."""
    optim_eps: float = 1e-5
    """ε of the optimizer."""
    max_grad_norm: float | None = 0.5
    """Clip the gradient to this L2 norm; None leaves it."""


@dataclass(frozen=True)
class WorkersConfig:
    """Processes that collect and learn side by side (docs/asynchrony.md; on a Ray cluster: docs/scaling.md)."""

    runner: Literal["local", "ray"] = "local"
    """Where workers are: processes of this machine, or actors on a Ray cluster."""
    asynchronous: bool = False
    """Every worker's rollout counts as it arrives; otherwise all rollouts are of the same parameters, and averaged."""
    num_workers: int | None = None
    """Worker processes, each with ``num_envs`` environments; None is one per core of this machine."""
    update_order: Literal["lock_free", "locked"] = "lock_free"
    """Whether workers write the shared parameters whenever they are ready, or one after the other."""
    optimizer_statistics: Literal["shared", "per_worker"] = "shared"
    """Whether the optimizer's moments are one for all workers, or each worker's own."""
    on_worker_error: Literal["restart", "raise"] = "restart"
    """What follows when a worker dies: a new one with fresh seeds, or the end of the run."""
    max_worker_restarts: int = 10
    """RestartPolicy in a run, over all workers, after which the next death ends it."""
    ray_address: str | None = None
    """The Ray cluster to join, ``auto`` or HOST:PORT; None starts one on this machine for the run."""
    worker_output: Literal["gradients", "rollouts"] = "gradients"
    """What Ray workers send: gradients, or rollouts that one process learns from (asynchronous: with V-trace)."""
    max_policy_lag: int = 0
    """Updates that an asynchronous Ray worker's parameters may be behind before it is sent the newest."""
    prefetch: int = 0
    """Rollouts that an asynchronous Ray worker is asked for before it has answered: hides the way there and back."""
    worker_cpus: float = 1.0
    """CPUs that Ray reserves for each worker."""
    worker_gpus: float = 0.0
    """GPUs that Ray reserves for each worker; above 0 it also computes there."""
    worker_placement: Literal["pack", "spread"] = "spread"
    """Workers go where Ray puts them, which is to nodes in use first, or are spread over all nodes."""


@dataclass(frozen=True)
class EvalConfig:
    """How the agent is judged while it trains."""

    eval_every: int = 10_000
    """Environment steps between two evaluations; 0 is never."""
    eval_episodes: int = 20
    """Episodes per evaluation."""
    eval_stochastic: bool = False
    """Sample actions in evaluations instead of taking the most probable one."""
    stop_at_return: float | None = None
    """Stop once the mean evaluation return has reached this and fresh greedy episodes have confirmed it."""
    stop_patience: int = 1
    """Evaluations in a row that must reach ``stop_at_return``."""
    confirm_episodes: int = 100
    """Fresh greedy episodes that confirm ``stop_at_return``."""
    final_episodes: int = 100
    """Episodes that judge the best agent at the end; 0 is none."""


@dataclass(frozen=True)
class CheckpointConfig:
    """What is kept on disk."""

    checkpoint_every: int = 50_000
    """Environment steps between two checkpoints; 0 keeps the last one only."""
    keep_last: int = 3
    """How many checkpoints to keep."""


@dataclass(frozen=True)
class LogConfig:
    """What is written while training."""

    log_every: int = 2_000
    """Environment steps between two rows of metrics."""
    tensorboard: bool = True
    """Also write TensorBoard events."""
    video_every: int = 0
    """Environment steps between two videos of the best agent so far (docs/watching.md); 0 is never."""
    verbose: bool = False
    """Also show what Ray and its workers print."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything a run depends on; saved as ``config.yaml`` and enough to run it again."""

    env: EnvConfig = field(default_factory=EnvConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    total_timesteps: int = 200_000
    """Environment steps to train for, over all environments."""
    seed: int = 0
    """Seed of everything random in the run."""
    preset: str = "auto"
    """The row of presets.py these settings started from: auto (by environment), none, or a name."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the network lives; auto takes a GPU, if there is one, for pictures that one process learns from."""
    run_dir: str | None = None
    """Folder of the run; None is ``runs/<env>/<algo>-<seed>-<time>``."""
