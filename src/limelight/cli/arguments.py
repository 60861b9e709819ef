"""The arguments of each subcommand, and the run, agent or environment that they describe."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from limelight.cli.flags import Notice, Syntax, parse
from limelight.errors import ConfigError
from limelight.settings.io import all_settings, for_resume, with_settings
from limelight.settings.rules import load_valid, validate
from limelight.settings.schema import EnvConfig, EnvKwargs, TrainConfig
from limelight.settings.values import Range, shown, to_text

if TYPE_CHECKING:
    from limelight.envs.source import EnvSource
    from limelight.runs.agent import Agent
    from limelight.runs.origin import Origin


@dataclass(frozen=True)
class TrainArguments:
    """Train an agent, evaluate it, and write a report.

    A setting is written --gamma 0.9 or, with its section, --algorithm.gamma 0.9. The defaults shown are those of this
    environment, algorithm and preset: try limelight train Acrobot-v1 --help. To repeat a run, see its command.txt.
    """

    resume: Path | None = None
    """Continue the run in this folder; only budget, evaluation, checkpoint and log settings can change."""
    fallback: bool = False
    """With --resume: pass over damaged checkpoints."""
    seeds: Annotated[int | None, Range(ge=1, le=10_000)] = None
    """Train so many seeds, from --seed on: a run each in one folder, with one report (docs/seeds.md)."""
    parallel: Annotated[int | None, Range(ge=1, le=1024)] = None
    """Runs of --seeds at the same time; default: one per core, or one in all if each takes all cores."""
    config: Path | None = None
    """Take all settings from this file, such as the config.yaml of a run; flags win."""
    from_: str | None = None
    """Begin a new run from a checkpoint, RUN[:best|:last|:STEP], with any setting changed (docs/branches.md)."""
    init_agent: Path | None = None
    """Begin with the weights and the normalisation of the agent in this folder, where they fit."""
    init_from_dataset: str | None = None
    """Begin with a policy that imitates this Minari dataset (docs/datasets.md)."""
    quiet: bool = False
    """Print only the last line."""


@dataclass(frozen=True)
class EvaluateArguments:
    """Evaluate a trained agent over fresh episodes."""

    run_dir: Path
    """Folder of a run or of a saved agent, or hf:user/name of the Hugging Face Hub."""
    episodes: Annotated[int | None, Range(ge=1)] = None
    """Episodes to evaluate: default 100; with --video or --render, only those that are shown."""
    seed: Annotated[int, Range(ge=0)] = 0
    """Seed of the environments, and of the actions if they are sampled."""
    stochastic: bool = False
    """Sample actions instead of taking the most probable one."""
    env_id: str | None = None
    """Another environment than the one of the run."""
    env_kwargs: EnvKwargs = dataclasses.field(default_factory=dict)
    """Keyword arguments for the environment's constructor, added to those of the run or instead of them."""
    env_module: str | None = None
    """Module to import first because it registers the environment id."""
    max_episode_steps: Annotated[int | None, Range(ge=1)] = None
    """Time limit of an episode in environment steps, instead of the one of the run."""
    info_keys: tuple[str, ...] = ()
    """Numbers in info at the end of an episode to report beside those of the run: KEY, or sum:KEY over the episode."""
    which: Literal["best", "last"] = "best"
    """The best agent, or the newest checkpoint (which is also the best one if nothing was evaluated)."""
    full: bool = False
    """Greedy and sampled side by side, with intervals, also in the rewards that were learnt from."""
    inspect: Literal["table", "video"] | None = None
    """Show the worst and the median episode: a table of their steps, or a video of each."""
    episode_lines: bool = False
    """Print a line per episode as well: its return and its length."""
    json: bool = False
    """Print one JSON object and nothing else, with all episodes; output of the environment goes to stderr."""
    record_dataset: str | None = None
    """Write the episodes as a Minari dataset of this name, such as cartpole/expert-v0."""
    video: bool = False
    """Write an MP4 file of the agent's episodes into RUN_DIR/videos; of a saved agent: runs/evaluations."""
    render: bool = False
    """Show the agent's episodes in a window, in real time."""
    video_episodes: Annotated[int, Range(ge=1)] = 1
    """Number of episodes that --video and --render show."""


@dataclass(frozen=True)
class ExportArguments:
    """Write a trained agent as one file that needs no Limelight, and compare it with the agent (docs/export.md)."""

    run_dir: Path
    """Folder of a run, or of a saved agent."""
    format: Literal["onnx", "torch"] | None = None
    """ONNX, or the archive of torch.export; default: by the ending of --output, or else ONNX."""
    output: Path | None = None
    """The file, .onnx or .pt2; default: agent.onnx or agent.pt2 in RUN_DIR."""
    stochastic: bool = False
    """Sample actions, from noise that is an input, instead of taking the most probable one."""
    which: Literal["best", "last"] = "best"
    """The best agent, or the newest checkpoint."""
    json: bool = False
    """Print one JSON object and nothing else: the file, its inputs, outputs and metadata, and the difference."""


@dataclass(frozen=True)
class ReportArguments:
    """Draw learning curves and write report.html for runs."""

    run_dirs: tuple[Path, ...]
    """Folders of runs, or of several runs each."""
    output: Path | None = None
    """Folder of report.html and plots; default: that of the run, or for several runs a new one beside the first."""
    smoothing: Annotated[float | None, Range(ge=0, lt=1)] = None
    """Weight of the previous value in the exponential smoothing; default: the setting of the first run."""


@dataclass(frozen=True)
class CompareArguments:
    """Compare groups of runs over seeds: curves, scores, probability of improvement, seeds needed, settings."""

    run_dirs: tuple[Path, ...]
    """Folders of runs, a group each; single runs with equal settings, apart from the seed, form one group."""
    difference: Annotated[float | None, Range()] = None
    """Difference of scores for which the number of seeds is given; default: the one between the groups."""
    score: Annotated[float | None, Range()] = None
    """Return to which the steps are given; default: the target of the runs."""
    output: Path | None = None
    """Folder of the tables and figures; default: a new one beside the first."""


@dataclass(frozen=True)
class ExplainArguments:
    """Say what is wrong with a run, finished or not, and one setting to try for each finding."""

    run_dir: Path
    """Folder of a run, or of several runs."""


@dataclass(frozen=True)
class ReplayArguments:
    """Replay a run to the first number that is not finite: its layer, environment, step, and the actions before it."""

    run_dir: Path
    """Folder of a run."""
    at: Annotated[int | None, Range(ge=0)] = None
    """Step of the checkpoint to begin at; 0: the beginning of the run; default: the last one before the error."""


@dataclass(frozen=True)
class ListArguments:
    """List environments, algorithms, presets or runs."""

    what: Literal["envs", "algos", "presets", "runs"]
    """Environments, algorithms, presets, or the runs in a folder."""
    text: str = ""
    """Only names that contain this; of runs, the folder (default: runs)."""
    json: bool = False
    """Print runs as a JSON list."""


@dataclass(frozen=True)
class DoctorArguments:
    """Show versions, cores, arithmetic, shared memory, GPU and missing extras, and test training and resuming."""

    json: bool = False
    """Print everything as JSON."""


@dataclass(frozen=True)
class CheckArguments:
    """Check that an environment keeps Gymnasium's contract and can be trained on."""

    env_id: str
    """A Gymnasium id, or package.module:callable that returns an environment."""
    throughput: bool = False
    """Train for 20 s with several num_envs, backends and workers, and print the fastest flags; no checks without
    --probe."""
    probe: bool = False
    """Train as well, a minute at most, on tasks with known values in its spaces: are the settings at fault?"""


@dataclass(frozen=True)
class PushArguments:
    """Evaluate an agent and upload it to the Hugging Face Hub, with a model card, its curve and a video."""

    run_dir: Path
    """Folder of a run or of a saved agent."""
    repo: str
    """Name on the hub, user/name; it is made if it does not exist."""
    episodes: Annotated[int, Range(ge=1)] = 100
    """Greedy episodes of the evaluation whose scores are on the card."""
    seed: Annotated[int, Range(ge=0)] = 0
    """Seed of that evaluation."""
    private: bool = False
    """Make the repository private, if it is new."""
    dry_run: Path | None = None
    """Write the files into this folder and upload nothing."""


@dataclass(frozen=True)
class TuneArguments:
    """Search for settings, train the best again on fresh seeds, and write what is first as a preset (docs/tune.md).

    Any setting of limelight train may be given; it then holds for every trial and is not searched. --total-timesteps is
    the budget of a trial.
    """

    env_id: str | None = None
    """A Gymnasium id, an Atari game, or a callable as package.module:callable."""
    resume: Path | None = None
    """Continue the search in this folder; only the options below can change."""
    trials: Annotated[int, Range(ge=1, le=50_000)] = 30
    """Trials in all, the defaults first."""
    seconds: Annotated[float | None, Range(gt=0, le=1e6)] = None
    """Budget of a trial in seconds of training, instead of total_timesteps."""
    parallel: Annotated[int | None, Range(ge=1, le=1024)] = None
    """Runs at the same time, each a process; default: one per core, or one in all if each takes all cores."""
    best: Annotated[int, Range(ge=1, le=100)] = 3
    """Best trials that are trained again, beside the defaults."""
    fresh_seeds: Annotated[int, Range(ge=1, le=1000)] = 5
    """Seeds, which no trial had, that these are trained on and ranked by."""
    pruner: Literal["median", "halving", "none"] = "median"
    """End a trial early that is below the median of the others at the same share of the budget, or by halving."""
    quiet: bool = False
    """Print only the last line."""


@dataclass(frozen=True)
class CleanArguments:
    """Drop the checkpoints of runs that have ended; results, videos and the best agent stay."""

    run_dirs: tuple[Path, ...]
    """Folders of runs, or of several runs each."""
    unfinished: bool = False
    """Clean runs that were interrupted, failed, crashed or broken off too; these cannot be resumed afterwards."""


@dataclass(frozen=True)
class CompletionArguments:
    """Print the script that completes commands, flags, values and environments in a shell."""

    shell: Literal["bash", "zsh", "fish"]
    """For which shell."""


OF_TRAINING = (
    "algo", "preset", "num_envs", "num_steps", "hidden_sizes", "core", "encoder", "device", "gamma", "learning_rate",
    "ent_coef", "normalize_obs", "normalize_rewards",
)  # fmt: skip
"""Settings of ``limelight check`` that only ``--throughput`` and ``--probe`` use, as they train."""

TRAIN = Syntax("limelight train", TrainArguments, ("env_id",), settings=tuple(all_settings()))
EVALUATE = Syntax("limelight evaluate", EvaluateArguments, ("run_dir",))
EXPORT = Syntax("limelight export", ExportArguments, ("run_dir",))
REPORT = Syntax("limelight report", ReportArguments, ("run_dirs",))
COMPARE = Syntax("limelight compare", CompareArguments, ("run_dirs",))
EXPLAIN = Syntax("limelight explain", ExplainArguments, ("run_dir",))
REPLAY = Syntax("limelight replay", ReplayArguments, ("run_dir",))
DOCTOR = Syntax("limelight doctor", DoctorArguments, ())
LIST = Syntax("limelight list", ListArguments, ("what", "text"))
CHECK = Syntax(
    "limelight check",
    CheckArguments,
    ("env_id",),
    settings=("env_kwargs", "env_module", "max_episode_steps", *OF_TRAINING),
)
CLEAN = Syntax("limelight clean", CleanArguments, ("run_dirs",))
TUNE = Syntax("limelight tune", TuneArguments, ("env_id",), settings=tuple(all_settings()))
PUSH = Syntax("limelight push", PushArguments, ("run_dir", "repo"))
COMPLETION = Syntax("limelight completion", CompletionArguments, ("shell",))
_ALL = (TRAIN, TUNE, EVALUATE, EXPORT, PUSH, REPORT, COMPARE, EXPLAIN, REPLAY, LIST, CLEAN, CHECK, DOCTOR, COMPLETION)
SYNTAXES: dict[str, Syntax[Any]] = {syntax.prog.split()[1]: syntax for syntax in _ALL}


@dataclass(frozen=True)
class TrainRequest:
    """The run that a command line asks for."""

    config: TrainConfig
    source: EnvSource | None
    """The environment, with what a copy has shown; None for a run that is resumed."""
    resume: Path | None
    quiet: bool
    given: dict[str, Any]
    """The settings on the command line, by their plain names."""
    seeds: SeedsRequest | None = None
    """None for a single run."""
    origin: Origin | None = None
    """The checkpoint of another run to begin from."""
    init_agent: Path | None = None
    """The folder of the agent to begin with."""
    init_from_dataset: str | None = None
    """The dataset to imitate before the first step."""
    fallback: bool = False
    """A damaged checkpoint is passed over."""


@dataclass(frozen=True)
class SeedsRequest:
    """The runs of several seeds that a command line asks for."""

    num_seeds: int | None
    """None: as many as the folder that is resumed has."""
    parallel: int | None


def train_request(argv: list[str], notice: Notice) -> TrainRequest:
    """Return the run that ``limelight train ARGV`` asks for.

    Raises: ConfigError about anything that cannot work.
    """
    from limelight.training.algorithms import AUTO
    from limelight.training.presets import resolve_config

    parsed = parse(TRAIN, argv, notice)
    arguments, settings = parsed.arguments, parsed.settings
    folder, quiet = arguments.resume, arguments.quiet
    has_seeds = arguments.seeds is not None or (folder is not None and (folder / "seeds.json").exists())
    _require_fitting(arguments, has_seeds)
    seeds = SeedsRequest(arguments.seeds, arguments.parallel) if has_seeds else None
    if folder is not None:
        saved = load_valid(folder / ("settings.yaml" if seeds else "config.yaml"))
        config = validate(for_resume(saved, settings, folder))
        return TrainRequest(config, None, folder, quiet, settings, seeds, fallback=arguments.fallback)
    if arguments.from_ is not None:
        from limelight.runs.origin import read_origin
        from limelight.training.branch import branched

        origin = read_origin(arguments.from_)
        return TrainRequest(validate(branched(origin, settings)), None, None, quiet, settings, None, origin)
    donor = arguments.init_agent
    if arguments.config is not None:
        start = dataclasses.replace(load_valid(arguments.config), run_dir=None)
        config = validate(with_settings(start, settings))
        return TrainRequest(config, None, None, quiet, settings, seeds, None, donor, arguments.init_from_dataset)
    from limelight.envs.source import resolve_env

    start = with_settings(TrainConfig(), settings)
    source = resolve_env(start.env)
    config = resolve_config(start.env.env_id, settings.get("algo", AUTO), start.preset, settings, source)
    return TrainRequest(
        validate(config), source, None, quiet, settings, seeds, None, donor, arguments.init_from_dataset
    )


def _require_fitting(arguments: TrainArguments, has_seeds: bool) -> None:
    """Refuse arguments that say nothing together.

    Raises: ConfigError.
    """
    folder = arguments.resume
    begins = {
        "from": arguments.from_, "init_agent": arguments.init_agent, "init_from_dataset": arguments.init_from_dataset,
    }  # fmt: skip
    for name, value in begins.items():
        if value is None:
            continue
        if folder is not None:
            raise ConfigError(f"{name} = {value}: begins a new run, --resume continues one; leave one of the two out")
        if has_seeds:
            raise ConfigError(f"{name} = {value}: begins one run; leave --seeds out, and start one for each --seed")
    others = {"config": arguments.config, **{name: value for name, value in begins.items() if name != "from"}}
    for name, value in others.items():
        if arguments.from_ is not None and value is not None:
            flag = name.replace("_", "-")
            raise ConfigError(f"from = {arguments.from_}: has all settings and weights of its run; leave --{flag} out")
    if arguments.init_agent is not None and arguments.init_from_dataset is not None:
        raise ConfigError(
            f"init_from_dataset = {arguments.init_from_dataset}: a run begins with one policy; leave --init-agent out"
        )
    if arguments.config is not None and folder is not None:
        raise ConfigError(f"config = {arguments.config}: a run that is resumed has its settings; leave --config out")
    if arguments.config is not None and not arguments.config.exists():
        raise ConfigError(f"config = {arguments.config}: no such file; give a config.yaml or settings.yaml")
    if arguments.fallback and (folder is None or has_seeds):
        raise ConfigError("fallback: is for one run that is resumed; add --resume RUN, or leave --fallback out")
    if arguments.parallel is not None and not has_seeds:
        raise ConfigError(f"parallel = {arguments.parallel}: runs of several seeds go in parallel; add --seeds")
    if arguments.seeds is not None and folder is not None and not (folder / "seeds.json").exists():
        raise ConfigError(
            f"seeds = {arguments.seeds}: {folder} is not a folder of --seeds; leave --seeds or --resume out"
        )


def evaluate_arguments(argv: list[str], notice: Notice) -> EvaluateArguments:
    """Return the evaluation that ``limelight evaluate ARGV`` asks for.

    Raises: ConfigError about anything that cannot work.
    """
    arguments = parse(EVALUATE, argv, notice).arguments
    if arguments.video_episodes > 1 and not (arguments.video or arguments.render):
        raise ConfigError(
            f"video_episodes = {arguments.video_episodes}: shows nothing by itself; add --video or --render"
        )
    if arguments.full or arguments.inspect is not None:
        _require_nothing_else(arguments)
    return arguments


def _require_nothing_else(arguments: EvaluateArguments) -> None:
    """Refuse arguments that ``--full`` and ``--inspect`` leave no place for.

    Raises: ConfigError.
    """
    asked = "--full" if arguments.full else "--inspect"
    for name in ("video", "render", "episode_lines", "record_dataset"):
        if value := getattr(arguments, name):
            raise ConfigError(
                f"{name} = {to_text(value)}: does not go with {asked}; --inspect video shows episodes, --json has all"
            )
    if arguments.full and arguments.stochastic and arguments.inspect is None:
        raise ConfigError("stochastic = true: --full has both already; leave one out, or add --inspect")


def evaluation_env(arguments: EvaluateArguments, agent: Agent) -> EnvConfig | str | None:
    """Return the environment of an evaluation: None for that of the run, another id, or changed settings."""
    changes: dict[str, Any] = {}
    if arguments.env_kwargs:
        changes["env_kwargs"] = {**agent.config.env.env_kwargs, **arguments.env_kwargs}
    if arguments.env_module is not None:
        changes["env_module"] = arguments.env_module
    if arguments.max_episode_steps is not None:
        changes["max_episode_steps"] = arguments.max_episode_steps
    if arguments.info_keys:
        before = agent.config.env.info_keys
        changes["info_keys"] = (*before, *(key for key in arguments.info_keys if key not in before))
    if not changes:
        return arguments.env_id
    from limelight.runs.evaluation import env_of

    config, _ = env_of(agent, arguments.env_id)
    return validate(TrainConfig(env=dataclasses.replace(config, **changes))).env


def check_config(argv: list[str], notice: Notice) -> tuple[EnvConfig, dict[str, Any] | None]:
    """Return the environment that ``limelight check ARGV`` asks about, and the settings to probe; None: no probe.

    Raises: ConfigError for a setting out of its range, or one that only a probe would use.
    """
    parsed = parse(CHECK, argv, notice)
    of_training = {name: value for name, value in parsed.settings.items() if name in OF_TRAINING}
    if of_training and not parsed.arguments.probe:
        name, value = next(iter(of_training.items()))
        raise ConfigError(f"{name} = {shown(value)}: only --probe and --throughput train; add one of them")
    settings = {name: value for name, value in parsed.settings.items() if name not in of_training}
    config = validate(with_settings(TrainConfig(), {"env_id": parsed.arguments.env_id, **settings})).env
    return config, (dict(parsed.settings) if parsed.arguments.probe else None)


def throughput_request(argv: list[str], notice: Notice) -> TrainRequest | None:
    """Return the run whose speed ``limelight check ARGV`` asks about; None without ``--throughput``.

    Raises: ConfigError or EnvError about anything that cannot work.
    """
    from limelight.envs.source import resolve_env
    from limelight.training.algorithms import AUTO
    from limelight.training.presets import resolve_config

    parsed = parse(CHECK, argv, notice)
    if not parsed.arguments.throughput:
        return None
    settings = {"env_id": parsed.arguments.env_id, **parsed.settings}
    start = with_settings(TrainConfig(), settings)
    source = resolve_env(start.env)
    given = {name: value for name, value in settings.items() if name != "env_id"}
    config = resolve_config(start.env.env_id, given.get("algo", AUTO), start.preset, given, source)
    return TrainRequest(validate(config), source, None, True, given)
