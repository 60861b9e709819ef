"""What is searched and how: the request of ``limelight tune``, saved as ``tune.json`` so that it can be resumed."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limelight.errors import CheckpointError, ConfigError
from limelight.files import write_text
from limelight.runs.folder import COMMAND, new_folder, read_json, write_json
from limelight.settings.io import all_settings, get_setting, with_settings
from limelight.settings.rules import validate
from limelight.settings.schema import NO_STEP_BUDGET, TrainConfig
from limelight.settings.values import coerce, shown, to_text
from limelight.training.preset_file import NOT_OF_PRESETS, is_preset_file
from limelight.training.presets import resolve_config
from limelight.training.seed_runs import most_parallel, require_named, shared_out
from limelight.training.tuning.space import Marks, from_json, search_space, to_json
from limelight.training.tuning.trials import Limit

if TYPE_CHECKING:
    from limelight.envs.source import EnvSource

PLAN = "tune.json"
EVALUATIONS = 12
"""Evaluations of a trial, unless ``eval_every`` is given."""
EVERY_STEPS = 2_000
"""Steps between two evaluations of a trial whose budget is seconds, unless ``eval_every`` is given."""
FIRST_FRESH_SEED = 100_000
"""Distance from the seed of the first trial to the seeds of the ranking: more than there may be trials."""
_REFUSED = {
    "total_episodes": "trials are compared at equal steps or seconds; give total_timesteps or --seconds",
    "stop_at_return": "trials are compared at equal steps or seconds; leave it out",
}


@dataclass(frozen=True)
class Options:
    """The options of ``limelight tune`` beside the settings of a run."""

    trials: int = 30
    seconds: float | None = None
    parallel: int | None = None
    best: int = 3
    fresh_seeds: int = 5
    pruner: str = "median"


@dataclass(frozen=True)
class Plan:
    """A search, to be started or continued."""

    folder: Path
    env_id: str
    preset: str
    """The preset or the rules that the search begins from, and that its settings go over."""
    given: dict[str, Any]
    """Settings that were given, which are not searched."""
    space: Marks
    defaults: dict[str, Any]
    """The settings of the first trial."""
    config: TrainConfig
    """The settings of the run that the search begins with."""
    options: Options
    source: EnvSource

    @property
    def parallel(self) -> int:
        """Return how many trials run at the same time."""
        return self.options.parallel or most_parallel(self.config)

    @property
    def budget_in_words(self) -> str:
        """Return ``30,000 steps`` or ``20 seconds of training``."""
        if self.options.seconds is not None:
            return f"{self.options.seconds:g} seconds of training"
        return f"{self.config.total_timesteps:,} steps"

    def trial_config(self, settings: Mapping[str, Any], seed: int) -> TrainConfig:
        """Return the settings of a trial.

        Raises: ConfigError where they cannot work together.
        """
        algo = self.config.algorithm.algo
        config = resolve_config(self.env_id, algo, self.preset, {**self.given, **settings}, self.source)
        config = with_settings(config, {"seed": seed, "run_dir": None})
        return shared_out(validate(config), self.parallel)

    def trial_dir(self, number: int) -> Path:
        """Return the folder of a trial's run."""
        return self.folder / "trials" / f"trial-{number}"

    @property
    def limit(self) -> Limit:
        """Return the budget of a trial, as its metrics count it."""
        return (
            Limit(self.config.total_timesteps, "step")
            if self.options.seconds is None
            else Limit(self.options.seconds, "seconds")
        )

    def fresh_seed(self) -> int:
        """Return the first seed of the ranking."""
        return self.config.seed + FIRST_FRESH_SEED

    def of_preset(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a preset with the settings of a trial has: these, and those given that are about learning."""
        of_learning = {
            name: value
            for name, value in self.given.items()
            if name not in NOT_OF_PRESETS and all_settings()[name].section.split(".")[0] in _OF_LEARNING
        }
        steps = {"total_timesteps": self.config.total_timesteps} if self.options.seconds is None else {}
        return {**of_learning, **settings, **steps}


_OF_LEARNING = ("algorithm", "model", "optim", "env")


def new_plan(env_id: str, given: dict[str, Any], options: Options, source: EnvSource, command: str) -> Plan:
    """Make the folder of a new search.

    Args:
        env_id: the environment.
        given: the settings on the command line, by their plain names.
        options: the other options.
        source: the environment.
        command: the command line, for ``command.txt``.
    Raises: ConfigError for anything that cannot work, before there is a folder.
    """
    settings = _fixed(given, options)
    config = _resolve(env_id, settings, source)
    if "eval_every" not in given and options.seconds is None:
        settings["eval_every"] = max(1, config.total_timesteps // EVALUATIONS)
        config = _resolve(env_id, settings, source)
    _require_evaluations(config, options)
    require_named(config)
    if config.seed + FIRST_FRESH_SEED + options.fresh_seeds > 2**31:
        raise ConfigError(f"seed = {config.seed}: leaves no room for fresh seeds; give one below 2,000,000,000")
    space = search_space(config, *source.spaces(), settings)
    if not space:
        raise ConfigError("tune: every setting that is searched is given; leave some out")
    folder = new_folder(_with_folder(config, env_id), "")
    defaults = {name: get_setting(config, name) for name in space}
    settings.pop("run_dir", None)
    config = dataclasses.replace(config, run_dir=None)
    plan = Plan(folder, env_id, config.preset, settings, space, defaults, config, options, source)
    write_text(folder / COMMAND, command + "\n", errors="surrogateescape")
    save_plan(plan)
    return plan


def _fixed(given: dict[str, Any], options: Options) -> dict[str, Any]:
    """Return the given settings with those that every trial has."""
    for name, reason in _REFUSED.items():
        if given.get(name) is not None:
            raise ConfigError(f"{name} = {to_text(given[name])}: {reason}")
    if is_preset_file(str(given.get("preset", ""))):
        raise ConfigError(f"preset = {given['preset']}: a search begins from a preset by name, none or plain")
    settings = {
        "eval_episodes": 10, "final_episodes": 0, "checkpoint_every": 0, "tensorboard": False, "report_every": 0.0,
        **given,
    }  # fmt: skip
    if options.seconds is not None:
        if "total_timesteps" in given:
            steps = given["total_timesteps"]
            raise ConfigError(f"total_timesteps = {steps}: the budget is --seconds; leave one of the two out")
        settings["callback"] = (*given.get("callback", ()), f"StopAfter({options.seconds:g})")
        settings["total_timesteps"] = NO_STEP_BUDGET
        settings = {"lr_schedule": "constant", "eval_every": EVERY_STEPS, **settings}  # no end of steps to fall to
    return settings


def _resolve(env_id: str, settings: dict[str, Any], source: EnvSource) -> TrainConfig:
    from limelight.training.algorithms import AUTO

    preset = settings.get("preset", "auto")
    return validate(resolve_config(env_id, settings.get("algo", AUTO), preset, settings, source))


def _require_evaluations(config: TrainConfig, options: Options) -> None:
    """Refuse a budget of which the last third may have no evaluation."""
    every, steps = config.eval.eval_every, config.total_timesteps
    if every == 0:
        raise ConfigError("eval_every = 0: trials are ranked by their evaluations; leave it out")
    if options.seconds is None and every > steps / 3:
        raise ConfigError(f"eval_every = {every}: must be at most a third of the {steps} steps of a trial")


def _with_folder(config: TrainConfig, env_id: str) -> TrainConfig:
    """Return the settings with the folder of the search, ``runs/tune/<env>/<time>`` unless one is given."""
    if config.run_dir is not None:
        return config
    parent = Path("runs") / "tune" / re.sub(r"[^\w.-]+", "_", env_id)
    name = stem = time.strftime("%Y%m%d-%H%M%S")
    n = 2
    while (parent / name).exists():
        name, n = f"{stem}-{n}", n + 1
    return dataclasses.replace(config, run_dir=str(parent / name))


# --------------------------------------------------------------------------- tune.json


def save_plan(plan: Plan) -> None:
    """Write ``tune.json``."""
    data = {
        "env_id": plan.env_id,
        "algo": plan.config.algorithm.algo,
        "preset": plan.preset,
        "given": plan.given,
        "defaults": plan.defaults,
        "space": to_json(plan.space),
        "options": dataclasses.asdict(plan.options),
    }
    write_json(plan.folder / PLAN, data)


def resumed_plan(folder: Path, changes: Mapping[str, Any]) -> Plan:
    """Return the plan of a folder, to be continued with other options.

    Raises: ConfigError if it is no folder of a search; CheckpointError if its plan is damaged.
    """
    from limelight.envs.source import resolve_env

    if not (folder / PLAN).is_file():
        raise ConfigError(f"resume = {folder}: no {PLAN} there, so it is no folder of limelight tune")
    data = read_json(folder / PLAN)
    try:
        space = from_json(data["space"])
        given = {n: coerce(n, v, all_settings()[n].annotation) for n, v in data["given"].items()}
        defaults = {n: coerce(n, v, all_settings()[n].annotation) for n, v in data["defaults"].items()}
        options = Options(**{**data["options"], **changes})
        env_id, settings = str(data["env_id"]), {**given, "algo": str(data["algo"]), "preset": str(data["preset"])}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{folder / PLAN}: damaged ({shown(error)})") from None
    source = resolve_env(with_settings(TrainConfig(), {**given, "env_id": env_id}).env)
    config = _resolve(env_id, settings, source)
    return Plan(folder, env_id, settings["preset"], given, space, defaults, config, options, source)
