"""Every setting of a run: frozen dataclasses, with range and search space beside each field and a docstring below.

The command line, the saved ``config.yaml`` and docs/settings.md are all made from this file. A section owns the
settings of one part of a run, and sections may lie in sections. Field names are unique across sections, so every
setting has one plain name (``--gamma``). Nothing heavy is imported: ``limelight --help`` must not load torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from limelight.settings.values import Choices, Range, Search

NO_STEP_BUDGET = 10**15
"""The ``total_timesteps`` of a run that only a number of episodes ends."""

EnvKwargs = dict[str, int | float | bool | str | list[Any] | dict[str, Any] | None]


@dataclass(frozen=True)
class AtariConfig:
    """Pre-processing and play of Atari games (docs/environments.md)."""

    frame_size: Annotated[int, Range(ge=36, le=256)] = 84
    """Height and width of the grey frames of an observation, in pixels."""
    frame_stack: Annotated[int, Range(ge=1, le=64)] = 4
    """Number of frames in an observation, the newest last."""
    frame_skip: Annotated[int, Range(ge=1, le=64)] = 4
    """Frames for which an action is repeated; an observation is the pixel-wise maximum of the last two."""
    sticky_actions: Annotated[float, Range(ge=0, le=1)] = 0.0
    """Probability that a frame repeats the previous action instead (0.25 in Gymnasium's ALE ids)."""
    noop_max: Annotated[int, Range(ge=0, le=10_000)] = 30
    """Upper bound of the random number of frames without action at the start of a game."""
    fire_reset: bool = True
    """Press FIRE at the start of games that wait for it."""
    full_action_set: bool = False
    """Offer all 18 actions of the joystick instead of only those that the game uses."""
    terminal_on_life_loss: bool = False
    """Treat a lost life as a termination when learning. The game goes on, and its return counts all lives."""
    env_threads: Annotated[int | None, Range(ge=1, le=1024)] = None
    """Threads with which ALE steps the games of one process; none: one per core, shared among the workers."""


@dataclass(frozen=True)
class EnvConfig:
    """Environment, number of copies, and how the copies are stepped."""

    env_id: str = "CartPole-v1"
    """A Gymnasium id (``CartPole-v1``), an Atari game (``pong``), or a callable as ``package.module:callable``."""
    env_kwargs: EnvKwargs = field(default_factory=dict)
    """Keyword arguments for the environment's constructor; on the command line KEY VALUE pairs."""
    env_module: str | None = None
    """Module to import first because it registers the environment id."""
    max_episode_steps: Annotated[int | None, Range(ge=1)] = None
    """Time limit of an episode in environment steps, instead of the environment's own."""
    num_envs: Annotated[int, Range(ge=1, le=65_536), Choices((4, 8, 16, 32), only="rollouts")] = 8
    """Environments stepped together, B."""
    backend: Literal["auto", "vector", "sync", "async", "envpool", "ale"] = "auto"
    """Stepping: the environment's own vectorised class, Gymnasium's sync or async, EnvPool, ALE; auto: the fastest."""
    autoreset_mode: Literal["next_step", "same_step", "disabled"] = "next_step"
    """When a finished episode restarts. Learning is correct in all three; ``next_step`` is the cheapest."""
    normalize_obs: Annotated[bool, Choices((True, False), only="reals gradients")] = False
    """Standardise float observations, or the pixels of an image, by running statistics (frozen in evaluation)."""
    image_statistics: Literal["pixel", "frame"] = "pixel"
    """Mean by which images are standardised: of each pixel, or one of the whole frame, as classic A3C scripts have."""
    action_masks: Literal["auto", "off"] = "auto"
    """Never take an action that ``action_mask`` (in a Dict observation or in info) marks illegal; off: ignore masks."""
    on_env_error: Literal["raise", "restart"] = "raise"
    """Reaction to an exception in an environment's code: end the run (a worker: ``on_worker_error``), or truncate the
    episode and go on with a new copy (docs/reliability.md)."""
    step_timeout: Annotated[float | None, Range(gt=0)] = None
    """Seconds that a step or reset of an environment may take; then it fails. none: a note after 30 s."""
    info_keys: tuple[str, ...] = ()
    """Numbers in ``info`` at the end of an episode to log as ``env/KEY``, or ``sum:KEY`` over it; ``is_success`` and
    ``success`` are always logged (docs/watching.md)."""
    atari: AtariConfig = field(default_factory=AtariConfig)


@dataclass(frozen=True)
class AlgorithmConfig:
    """Rollouts, targets and losses."""

    algo: str = "a2c"
    """Name of the algorithm (``limelight list algos``); auto: a2c or ppo (docs/defaults.md)."""
    num_steps: Annotated[
        int,
        Range(ge=1, le=65_536),
        Choices((4, 8, 16, 32, 64), only="rollouts one_update"),
        Choices((32, 64, 128, 256), only="rollouts epochs"),
    ] = 8
    """Environment steps per environment and update, T."""
    gamma: Annotated[float, Range(ge=0, le=1), Choices((0.9, 0.95, 0.98, 0.99, 0.995, 0.999))] = 0.99
    """Discount factor γ."""
    gae_lambda: Annotated[
        float,
        Range(ge=0, le=1),
        Choices((0.8, 0.9, 0.95, 0.98, 1.0), only="rollouts"),
        Choices((0.5, 0.8, 0.9, 0.95), only="traces"),
    ] = 0.95
    """λ of ``returns = gae``: 0 is TD(0), 1 is the n-step return up to the end of the rollout."""
    returns: Literal["gae", "n_step", "mc", "td0"] = "gae"
    """Return estimator: GAE(λ); n-step; Monte Carlo up to the end of episode or rollout; TD(0) (docs/returns.md)."""
    return_steps: Annotated[int | None, Range(ge=1, le=65_536)] = None
    """n of ``returns = n_step``, the rewards summed before bootstrapping; none: up to the end of the rollout."""
    normalize_returns: bool = False
    """Standardise the returns over each rollout, as targets of the values and in the policy weights."""
    noise_correlation: Annotated[float, Range(ge=0, lt=1), Choices((0.0, 0.3, 0.6, 0.9), only="continuous")] = 0.0
    """Correlation of the noise of continuous actions between consecutive steps: 0 is white noise."""
    policy_weight: Literal["advantage", "q", "td_error"] = "advantage"
    """Weight of ∇log π: the advantage, or the return estimate (``q``, plain actor-critic). With ``critic_output = q``
    q(s, a) − Σπq, q(s, a), or the return estimate − q(s, a) (``td_error``)."""
    q_bootstrap: Literal["expected_sarsa", "sarsa"] = "expected_sarsa"
    """Bootstrap of ``critic_output = q``: Σ π(a|s') q(s', a), or q(s', a) of one action that is drawn, not executed."""
    normalize_advantages: Annotated[
        Literal["none", "batch", "running"], Choices(("none", "batch", "running"), only="rollouts one_update gradients")
    ] = "none"
    """Standardisation of the policy weights: over each rollout (minibatch), by running mean and variance, or none."""
    running_decay: Annotated[float, Range(ge=0, lt=1)] = 0.99
    """Decay per update of the running mean that ``normalize_advantages = running`` subtracts."""
    num_epochs: Annotated[int, Range(ge=1, le=1000), Choices((4, 8, 12, 20), only="epochs")] = 1
    """Passes over each rollout."""
    num_minibatches: Annotated[
        int,
        Range(ge=1, le=65_536),
        Choices((1, 2, 4), only="epochs recurrent"),
        Choices((2, 4, 8, 16), only="epochs"),
    ] = 1
    """Updates per pass, each from its own share of the rows; of the environments, with a recurrent core."""
    clip_ratio: Annotated[float | None, Range(gt=0, le=1e30), Choices((0.1, 0.2, 0.3), only="epochs")] = None
    """ε: no gain from moving π(a|s)/π_old(a|s) out of [1 − ε, 1 + ε]; none: the plain policy gradient."""
    value_clip: Annotated[float | None, Range(gt=0, le=1e30)] = None
    """c: no gain from moving V(s) by more than c from its value before the rollout's first update; none: no bound."""
    target_kl: Annotated[float | None, Range(gt=0, le=1e30)] = None
    """Leave out the rollout's further updates once the estimate of KL(π_old ‖ π) is above 1.5 × this; none: never."""
    ent_coef: Annotated[float, Range(ge=0, le=1e9), Choices((0.0, 1e-4, 1e-3, 3e-3, 0.01, 0.03))] = 0.01
    """Weight of the entropy bonus."""
    ent_schedule: Literal["constant", "linear"] = "constant"
    """Schedule of ``ent_coef``: constant, or linear to zero over the budget of steps or episodes."""
    vf_coef: Annotated[float, Range(ge=0, le=1e9), Search(0.1, 1.0, log=True, only="gradients")] = 0.5
    """Weight of the value loss."""
    value_loss: Literal["mse", "huber"] = "mse"
    """Loss between values and return targets."""
    huber_delta: Annotated[float, Range(gt=0, le=1e30)] = 1.0
    """Error at which the Huber loss turns from quadratic to linear."""
    reward_scale: Annotated[float, Range(gt=0, le=1e9)] = 1.0
    """Factor on the rewards of the learner. Reported returns stay raw."""
    normalize_rewards: Annotated[bool, Choices((True, False), only="gradients")] = False
    """Divide the rewards of the learner by the running deviation of discounted returns. Reported returns stay raw."""
    reward_clip: Annotated[float | None, Range(gt=0, le=1e30)] = None
    """Bound c: the rewards of the learner are clipped to [-c, c], before scaling. Reported returns stay raw."""


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    critic: Annotated[
        Literal["shared", "separate", "target"],
        Choices(("shared", "separate"), only="rollouts gradients vectors feedforward"),
    ] = "shared"
    """One network with two heads; two networks; or two networks and a slow copy of the critic for the targets."""
    critic_output: Literal["v", "q"] = "v"
    """Values of the critic: V(s), or q(s, a), one for each of Discrete actions (docs/algorithms/qac.md)."""
    hidden_sizes: Annotated[tuple[int, ...], Choices(((32, 32), (64, 64), (128, 128)), only="vectors")] = (64, 64)
    """Widths of the hidden layers."""
    activation: Annotated[
        Literal["tanh", "relu", "elu", "silu", "leaky_relu"],
        Choices(("tanh", "relu", "silu"), only="vectors gradients"),
    ] = "tanh"
    """Nonlinearity between layers."""
    layer_norm: bool = False
    """Normalise the outputs of each hidden layer to mean 0 and variance 1, before the nonlinearity; no parameters."""
    orthogonal_init: bool = True
    """Orthogonal initial weights with gain √2 (1 for the value head) and zero biases; otherwise PyTorch's default."""
    sparse_init: Annotated[float, Range(ge=0, lt=1)] = 0.0
    """Share of the initial weights of each unit that are 0; the others are uniform in ±1/√fan_in, biases 0. 0: off."""
    policy_init_gain: Annotated[float, Range(gt=0, le=1e9)] = 0.01
    """Gain of the last policy layer; a small one makes the initial policy nearly uniform."""
    action_std: Literal["parameter", "exp", "softplus", "softplus_std", "gsde"] = "parameter"
    """σ of continuous actions: one parameter per dimension; or a function of the state: e^output, variance
    softplus(output), σ softplus(output), or gsde, noise weights on features of the state (docs/spaces.md)."""
    log_std_init: Annotated[float, Range(ge=-5, le=2), Search(-2.0, 0.5, only="continuous gradients")] = 0.0
    """Initial log σ of continuous actions."""
    action_bounds: Literal["auto", "clip", "rescale", "squash"] = "auto"
    """Bounds of continuous actions: clip; rescale [−1, 1] to the bounds; squash by tanh; auto: rescale finite ones."""
    encoder: str | None = None
    """CNN for images: a3c, a3c-half, nature, universe, impala; or a class of your own, ``package.module:Class``
    (docs/extending.md); none: chosen by the space, an MLP of ``hidden_sizes`` or a CNN."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of convolutional layers; auto: bfloat16 for images where the processor computes in it."""
    core: Literal["feedforward", "lstm", "gru"] = "feedforward"
    """Memory between encoder and heads, for partial observations: none, an LSTM or a GRU."""
    core_size: Annotated[int, Range(ge=1, le=65_536), Choices((32, 64, 128, 256), only="recurrent")] = 64
    """Hidden units of a recurrent core."""
    tau: Annotated[float, Range(gt=0, le=1), Search(0.005, 0.5, log=True)] = 0.05
    """Polyak factor of the target critic: target ← (1 − tau) target + tau critic."""
    target_update_every: Annotated[int, Range(ge=1)] = 1
    """Updates (or episodes) between two updates of the target critic."""
    target_update_at: Literal["updates", "episode_end"] = "updates"
    """Unit of ``target_update_every``: updates or finished episodes."""


@dataclass(frozen=True)
class OptimConfig:
    """The optimizer."""

    optimizer: Literal["rmsprop", "rmsprop_tf", "adam", "obgd"] = "rmsprop"
    """Optimizer of all parameters; ``rmsprop_tf`` has ε inside the root and a second moment that starts at 1; ``obgd``
    learns from single steps with eligibility traces and bounded steps (docs/algorithms/stream-ac.md)."""
    learning_rate: Annotated[
        float,
        Range(gt=0, le=10),
        Search(1e-4, 3e-3, log=True, only="epochs gradients"),
        Search(2e-4, 1e-2, log=True, only="gradients"),
    ] = 7e-4
    """Step size (of the actor alone if ``critic_learning_rate`` is set)."""
    critic_learning_rate: Annotated[float | None, Range(gt=0, le=10)] = None
    """Step size of the critic's own parameters; none: ``learning_rate``."""
    lr_schedule: Annotated[Literal["constant", "linear"], Choices(("constant", "linear"), only="gradients")] = "linear"
    """Schedule of the step sizes: constant, or linear to zero over the budget of steps or episodes."""
    rms_alpha: Annotated[float, Range(ge=0, lt=1)] = 0.99
    """Decay of RMSprop's second moment."""
    adam_beta1: Annotated[float, Range(ge=0, lt=1)] = 0.9
    """Decay of Adam's first moment."""
    adam_beta2: Annotated[float, Range(ge=0, lt=1)] = 0.999
    """Decay of Adam's second moment."""
    optim_eps: Annotated[float, Range(ge=1e-30, le=1)] = 1e-5
    """ε of the optimizer."""
    max_grad_norm: Annotated[float | None, Range(gt=0, le=1e30), Choices((0.3, 0.5, 1.0, 3.0), only="gradients")] = 0.5
    """L2 norm to which gradients are clipped; none: no clipping."""
    on_nonfinite: Literal["auto", "raise", "skip", "rollback"] = "auto"
    """Reaction to NaN or an infinity: end the run, skip the update, or take the newest checkpoint's parameters; auto:
    end it, but asynchronous workers skip (docs/reliability.md)."""
    actor_kappa: Annotated[float, Range(gt=0, le=1e6), Search(1.0, 10.0, log=True)] = 3.0
    """κ of ``obgd`` for the actor: a larger one makes smaller steps."""
    critic_kappa: Annotated[float, Range(gt=0, le=1e6), Search(1.0, 10.0, log=True)] = 2.0
    """κ of ``obgd`` for the critic."""


@dataclass(frozen=True)
class SharedMemoryConfig:
    """Worker processes that share the parameters on this machine: ``asynchronous`` with ``runner = local``."""

    update_order: Literal["lock_free", "locked"] = "lock_free"
    """Writing to the shared parameters: without a lock, or one worker at a time."""
    optimizer_statistics: Literal["shared", "per_worker"] = "shared"
    """Moments of the optimizer: shared by all workers, or each worker's own."""


@dataclass(frozen=True)
class RayConfig:
    """Workers on a Ray cluster: ``runner = ray`` (docs/scaling.md)."""

    ray_address: str | None = None
    """Address of the Ray cluster to join, ``auto`` or HOST:PORT; none: start one on this machine for the run."""
    worker_output: Literal["gradients", "rollouts"] = "gradients"
    """Data that workers send: gradients, or rollouts that one process learns from (asynchronous: with V-trace)."""
    max_policy_lag: Annotated[int, Range(ge=0)] = 0
    """Updates by which an asynchronous worker's parameters may be behind before the newest are sent to it."""
    prefetch: Annotated[int, Range(ge=0, le=16)] = 0
    """Rollouts requested from an asynchronous worker in advance, which hides the network's latency."""
    worker_cpus: Annotated[float, Range(gt=0)] = 1.0
    """CPUs that Ray reserves for each worker."""
    worker_gpus: Annotated[float, Range(ge=0)] = 0.0
    """GPUs that Ray reserves for each worker; above 0 the worker computes on it."""
    worker_placement: Literal["pack", "spread"] = "spread"
    """Placement of workers: Ray's default, which fills nodes already in use first, or spread over all nodes."""


@dataclass(frozen=True)
class WorkersConfig:
    """Workers that collect and learn in parallel (docs/asynchrony.md)."""

    runner: Literal["local", "ray"] = "local"
    """Place of the workers: processes of this machine, or actors on a Ray cluster."""
    asynchronous: bool = False
    """Apply each worker's update when it arrives; otherwise average over rollouts of the same parameters."""
    num_workers: Annotated[int | None, Range(ge=1, le=1024)] = None
    """Number of workers, each with ``num_envs`` environments; none: one per core of this machine."""
    on_worker_error: Literal["restart", "raise"] = "restart"
    """Reaction to a failed worker: restart it with fresh seeds, or end the run."""
    max_worker_restarts: Annotated[int, Range(ge=0)] = 10
    """Restarts in a run, over all workers, after which the next failure ends the run."""
    shared_memory: SharedMemoryConfig = field(default_factory=SharedMemoryConfig)
    ray: RayConfig = field(default_factory=RayConfig)


@dataclass(frozen=True)
class EvalConfig:
    """Evaluation during training and at its end."""

    eval_every: Annotated[int, Range(ge=0)] = 10_000
    """Environment steps between two evaluations; 0: never."""
    eval_episodes: Annotated[int, Range(ge=1, le=100_000)] = 20
    """Episodes per evaluation."""
    eval_envs: Annotated[int | None, Range(ge=1, le=1024)] = None
    """Copies of the environment in an evaluation; none: up to 10, and up to 100 where it has a vectorised class."""
    eval_backend: Literal["auto", "fastest", "sync", "async"] = "auto"
    """Stepping of these copies; auto: the ``backend`` that was set, if sync or async, otherwise the fastest."""
    eval_stochastic: bool = False
    """Sample actions in evaluations instead of taking the most probable one."""
    stop_at_return: Annotated[float | None, Range()] = None
    """Mean evaluation return at which training stops, once fresh greedy episodes have confirmed it."""
    stop_patience: Annotated[int, Range(ge=1, le=10_000)] = 1
    """Consecutive evaluations that must reach ``stop_at_return``."""
    confirm_episodes: Annotated[int, Range(ge=1, le=100_000)] = 100
    """Fresh greedy episodes that confirm ``stop_at_return``."""
    final_episodes: Annotated[int, Range(ge=0, le=100_000)] = 100
    """Episodes of the final evaluation of the best agent; 0: none."""


@dataclass(frozen=True)
class CheckpointConfig:
    """Checkpoints."""

    checkpoint_every: Annotated[int, Range(ge=0)] = 50_000
    """Environment steps between two checkpoints; 0: only one at the end."""
    keep_last: Annotated[int, Range(ge=1)] = 3
    """Number of checkpoints to keep."""
    checkpoint_envs: bool = True
    """Save the state of the environments too, so that a run resumes exactly; otherwise its episodes restart."""


@dataclass(frozen=True)
class LogConfig:
    """Metrics, videos and messages."""

    log_every: Annotated[int, Range(ge=1)] = 2_000
    """Environment steps between two rows of metrics."""
    tensorboard: bool = True
    """Write TensorBoard events as well, where the package tensorboard is installed (extra ``tensorboard``)."""
    logger: tuple[str, ...] = ()
    """Further loggers: wandb, swanlab, mlflow, trackio, tensorboard, or ``package.module:Class`` (docs/loggers.md)."""
    callback: tuple[str, ...] = ()
    """Objects that are told of the run's progress and may end it: ``package.module:Class(key=value)``, or one of
    StopWithoutImprovement, StopAfter, ScheduleEnvAttr, ChangeSetting (docs/callbacks.md)."""
    video_every: Annotated[int, Range(ge=0)] = 0
    """Environment steps between two videos of the best agent so far (docs/watching.md); 0: never."""
    episode_lines: bool = False
    """Print a line per finished training episode: worker, environment, return, length, mean return of the last 100."""
    report_every: Annotated[float, Range(ge=0, le=86_400)] = 10.0
    """Seconds between two updates of report.html while the run goes on (docs/watching.md); 0: only at its end."""
    smoothing: Annotated[float, Range(ge=0, lt=1)] = 0.95
    """Weight of the previous value in the report's exponential smoothing of returns."""
    verbose: bool = False
    """Show the output of Ray and its workers as well."""


@dataclass(frozen=True)
class TrainConfig:
    """Everything that a run depends on; saved as ``config.yaml``, which is enough to repeat the run."""

    env: EnvConfig = field(default_factory=EnvConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    workers: WorkersConfig = field(default_factory=WorkersConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)
    total_timesteps: Annotated[int, Range(ge=1)] = 200_000
    """Environment steps to train for, over all environments; no limit where only ``total_episodes`` is given."""
    total_episodes: Annotated[int | None, Range(ge=1)] = None
    """Finished episodes to train for, over all environments; training ends at this or at ``total_timesteps``."""
    seed: Annotated[int, Range(ge=0, le=2**31 - 1)] = 0
    """Seed of all random numbers of the run."""
    preset: str = "auto"
    """Preset: a name (``limelight list presets``); none: rules over the environment's structure; plain: the
    algorithm's own settings; auto: by environment, else none; or a file that ``limelight tune`` wrote, ``x.yaml``."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the network; auto: a GPU, if there is one, for images that one process learns from."""
    run_dir: str | None = None
    """Folder of the run; none: ``runs/<env>/<algo>-<seed>-<time>``."""
