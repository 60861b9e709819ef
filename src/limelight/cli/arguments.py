"""What each subcommand of the command line can be told; cli.py acts on it, flags.py fills it in."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

import tyro

from limelight.cli.flags import Notice, Parsed, parse
from limelight.errors import ConfigError
from limelight.settings.io import field_sections, for_resume, get_setting, load_yaml, with_settings
from limelight.settings.rules import validate
from limelight.settings.schema import EnvConfig, EnvKwargs, TrainConfig

Switch = tyro.conf.FlagCreatePairsOff[bool]


@dataclass(frozen=True)
class TrainArguments:
    """Train an agent, judge it, and write a report.

    Every setting has its plain name (--gamma 0.9) and the name with its section (--algorithm.gamma 0.9). The
    defaults shown are those of this environment, algorithm and preset: limelight train Acrobot-v1 --help
    """

    env_id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[ENV_ID]")] = EnvConfig.env_id
    """A Gymnasium id, or package.module:callable that returns an environment (`limelight list envs`)."""
    config: Annotated[TrainConfig, tyro.conf.arg(name="")] = field(default_factory=TrainConfig)
    resume: str | None = None
    """Continue the run in this folder; only budget, evaluation, checkpoint and log settings can change."""
    quiet: Switch = False
    """Print nothing but the last line."""


@dataclass(frozen=True)
class EvaluateArguments:
    """Evaluator a trained agent over fresh episodes."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Folder of a run."""
    episodes: int | None = None
    """How many episodes to judge by: 100; with --video or --render none but those that are shown, if not given."""
    seed: int = 0
    """Seed of the environments, and of the actions where they are sampled."""
    stochastic: Switch = False
    """Sample actions instead of taking the most probable one."""
    env_id: str | None = None
    """Another environment than the one it was trained in."""
    which: Literal["best", "last"] = "best"
    """The best agent, or the newest checkpoint (which best is too, where nothing was evaluated)."""
    json: Switch = False
    """Print one JSON object and nothing else."""
    video: Switch = False
    """Write an MP4 file of the agent's game into RUN_DIR/videos, with the score above the picture."""
    render: Switch = False
    """Show the agent's game in a window, in real time."""
    video_episodes: int = 1
    """How many episodes --video and --render show."""


@dataclass(frozen=True)
class ReportArguments:
    """Draw learning curves and write report.html for runs."""

    run_dirs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR...")]
    """Folders of runs."""


@dataclass(frozen=True)
class ListArguments:
    """List what there is to choose from."""

    what: Annotated[
        Literal["envs", "algos", "presets"], tyro.conf.Positional, tyro.conf.arg(metavar="envs|algos|presets")
    ]
    """Environments, algorithms or presets."""
    text: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[TEXT]")] = ""
    """Only those whose name contains this."""


@dataclass(frozen=True)
class CheckArguments:
    """Check that an environment keeps Gymnasium's contract and can be trained on."""

    env_id: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="ENV_ID")]
    """A Gymnasium id, or package.module:callable that returns an environment."""
    env_module: str | None = None
    """A module to import first because it registers the environment id."""
    env_kwargs: EnvKwargs = field(default_factory=dict)
    """Keyword arguments for the environment's constructor, as KEY VALUE ..."""
    max_episode_steps: int | None = None
    """Override the environment's own time limit (in environment steps)."""


@dataclass(frozen=True)
class TrainRequest:
    """What ``limelight train`` is to do."""

    config: TrainConfig
    resume: Path | None
    quiet: bool


def train_request(argv: list[str], notice: Notice) -> TrainRequest:
    """The run that ``limelight train ARGV`` asks for.

    Raises: ConfigError about anything that cannot be.
    """
    from limelight.training.presets import resolve_config

    parsed = parse(TrainArguments, argv, prog="limelight train", notice=notice)
    arguments, settings = parsed.arguments, _given_settings(parsed)
    if arguments.resume is not None:
        folder = Path(arguments.resume)
        config = for_resume(load_yaml(folder / "config.yaml"), settings)
        return TrainRequest(validate(config), folder, arguments.quiet)
    start = arguments.config
    config = resolve_config(arguments.env_id, start.algorithm.algo, start.preset, settings)
    return TrainRequest(validate(config), None, arguments.quiet)


def checked(arguments: EvaluateArguments) -> EvaluateArguments:
    """``arguments`` themselves if they can work.

    Raises: ConfigError for a number out of its range, or one that nothing uses.
    """
    for name, least in (("episodes", 1), ("seed", 0), ("video_episodes", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ConfigError(f"{name} = {value}: must be ≥ {least}")
    if arguments.video_episodes > 1 and not (arguments.video or arguments.render):
        raise ConfigError(
            f"video_episodes = {arguments.video_episodes}: shows nothing by itself; add --video or --render"
        )
    return arguments


def check_config(arguments: CheckArguments) -> EnvConfig:
    """The environment that ``limelight check`` is to look at.

    Raises: ConfigError for a setting out of its range.
    """
    settings = {f.name: getattr(arguments, f.name) for f in fields(CheckArguments)}
    return validate(with_settings(TrainConfig(), settings)).env


def _given_settings(parsed: Parsed[TrainArguments]) -> dict[str, object]:
    """The settings of the command line by plain name; the defaults stay open for the preset."""
    config = parsed.arguments.config
    values = {name: get_setting(config, name) for name in field_sections() if name in parsed.given}
    return values | ({"env_id": parsed.arguments.env_id} if "env_id" in values else {})
