"""Findings about an environment: the judgement of its spaces and of random play in one line each."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import IO, Any, Literal

import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Space

from limelight.envs.atari import AtariGame
from limelight.envs.make import explain_backend
from limelight.envs.masks import choices
from limelight.envs.source import EnvSource
from limelight.errors import EnvError, LimelightError
from limelight.nn.bounds import choose_bounds
from limelight.nn.images import ImageEncoder
from limelight.nn.model import make_model
from limelight.settings.schema import AlgorithmConfig, EnvConfig, TrainConfig
from limelight.spaces.describe import check_spaces, describe_space
from limelight.spaces.images import explain_flat_image, is_flat_image, is_image
from limelight.spaces.packed import MASK_KEY, MaskSource, Path, path_name, walk
from limelight.training.presets import explain_preset
from limelight.typing import AnyEnv

# Beyond this, rewards and observations make the first updates of a tanh network too large.
LARGE = 10.0
# Beyond this, values hide the differences between actions (docs/algorithms/a2c.md).
HIGH_VALUES = 50.0
# Wider bounds stand for "any number"; actions should not be rescaled to them.
WIDE = 1e4


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    level: Literal["ok", "warn", "fail"]
    subject: str
    message: str
    """One line, with a hint unless the level is ok."""


class BrokenError(Exception):
    """A fault after which the environment cannot be played; it carries the finding."""

    def __init__(self, subject: str, message: str) -> None:
        super().__init__(message)
        self.finding = Finding("fail", subject, " ".join(message.split()))


@dataclass
class RandomPlay:
    """Record of random play."""

    steps: int = 0
    rewards: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    """Lengths of finished episodes."""
    terminated: int = 0
    truncated: int = 0
    largest: dict[Path, float] = field(default_factory=dict)
    """The largest absolute value in each Box of observations."""
    obs_problem: str = ""
    """The first difference between an observation and its space with which training still works."""
    legal_counts: list[int] = field(default_factory=list)
    """Number of actions that each mask allowed."""
    odd_form: str = ""
    """The first reward or end of an episode that training takes, though it has not Gymnasium's form."""
    info_keys: set[str] = field(default_factory=set)
    seconds: float = 0.0


def warn_or_ok(subject: str, problems: list[str], fine: str) -> Finding:
    """Return a warning of all problems, or a finding that says what is fine."""
    return Finding("warn", subject, "; ".join(problems)) if problems else Finding("ok", subject, fine)


# --------------------------------------------------------------------------- the spaces


def spaces(env: AnyEnv, env_id: str) -> list[Finding]:
    """Check that the spaces are supported; each that is not is a fault."""
    faults = []
    for observations, actions in ((env.observation_space, Discrete(2)), (Discrete(2), env.action_space)):
        try:
            check_spaces(observations, actions, env_id)
        except EnvError as error:
            faults.append(Finding("fail", "spaces", str(error)))
    if faults:
        return faults
    seen = f"{describe_space(env.observation_space)} → {describe_space(env.action_space)}"
    flat = _flat_images(env.observation_space)
    return [warn_or_ok("spaces", [seen, *flat] if flat else [], seen)]


def _flat_images(space: Space[Any]) -> list[str]:
    """Return warnings about parts of observations that may be images but are flattened."""
    return [
        f"{path_name(path)} {describe_space(part)} {explain_flat_image(part)}".strip()
        for path, part in walk(space)
        if isinstance(part, Box) and is_flat_image(part)
    ]


def game(env: AnyEnv, config: EnvConfig) -> list[Finding]:
    """Report the pre-processing of an Atari game; return nothing for other environments."""
    if not isinstance(env.unwrapped, AtariGame):
        return []
    atari = config.atari
    repeats = f"an action is held for {atari.frame_skip} frames and sticks with probability {atari.sticky_actions:g}"
    noops = f"up to {atari.noop_max} frames without action come first"
    return [Finding("ok", "game", f"{env.unwrapped.game}: {repeats}; {noops}")]


def actions(space: Space[Any], config: TrainConfig) -> list[Finding]:
    """Report how samples of continuous actions are brought into their bounds; return nothing without them."""
    boxes = [(path_name(path), part) for path, part in walk(space) if isinstance(part, Box) and part.dtype.kind == "f"]
    if not boxes:
        return []
    mappings, problems = [], []
    for name, box in boxes:
        of = f"{name} " if name else ""
        bounds = choose_bounds(box, config.model.action_bounds)
        done = {"clip": "clipped", "rescale": "[-1, 1] rescaled", "squash": "squashed"}[bounds]
        mappings.append(f"{of}{done} to [{box.low.min():g}, {box.high.max():g}]")
        problems += [f"{of}{problem}" for problem in _odd_bounds(box)]
    return [warn_or_ok("actions", [*mappings, *problems] if problems else [], "; ".join(mappings))]


def _odd_bounds(box: Box) -> list[str]:
    problems = []
    below, above = np.isfinite(box.low), np.isfinite(box.high)
    if (below != above).any():
        problems.append("has a bound on only one side, at which samples are clipped; bound it on both")
    finite = below & above
    width = np.where(finite, box.high.astype(np.float64) - np.where(finite, box.low, 0.0), 0.0)
    if width.max() > WIDE:
        hint = "narrow the bounds, or set action_bounds to clip"
        problems.append(f"is so wide that an action near 0 is hardly ever sampled; {hint}")
    if (finite & (width == 0)).any():
        problems.append("has a dimension with a single value; remove it")
    return problems


# --------------------------------------------------------------------------- random play


def masks(env: AnyEnv, source: MaskSource | None, play: RandomPlay) -> list[Finding]:
    """Report where action masks are found and how many actions they allow; return nothing without them."""
    total = sum(choices(env.action_space))
    if source is None:
        space = env.observation_space
        given = MASK_KEY in play.info_keys or (isinstance(space, Dict) and MASK_KEY in space.spaces)
        cannot = f"{MASK_KEY} found, but {describe_space(env.action_space)} actions cannot be masked; it is ignored"
        return [Finding("warn", "action mask", cannot)] if given and not total else []
    where = f"in {'info' if source == 'info' else 'the observation'}"
    fewest, most = min(play.legal_counts), max(play.legal_counts)
    if fewest == total:
        return [Finding("ok", "action mask", f"{where}; all {total} actions were legal at all times")]
    return [Finding("ok", "action mask", f"{where}; {fewest} to {most} of {total} actions were legal")]


def time_limit(env: AnyEnv, config: EnvConfig, play: RandomPlay) -> Finding:
    """Check for a time limit that truncates episodes."""
    subject, hint = "time limit", "set max_episode_steps"
    limit = config.max_episode_steps or (env.spec.max_episode_steps if env.spec else None)
    longest = max(play.lengths, default=0)
    if limit and longest > limit:
        return Finding("warn", subject, f"{limit} steps are declared, but an episode took {longest}; {hint}")
    if limit and not play.truncated:
        seen = f"the longest of {len(play.lengths)} episodes took {longest}" if play.lengths else "no episode ended"
        return Finding("ok", subject, f"{limit} steps are declared; {seen} in {len(play.rewards)} random steps")
    if play.truncated:
        declared = f"; {limit} steps are declared" if limit else ""
        seen = f"{play.truncated} of {len(play.lengths)} episodes were truncated, the longest after {longest} steps"
        return Finding("ok", subject, seen + declared)
    if "TimeLimit.truncated" in play.info_keys:
        return Finding("warn", subject, "TimeLimit.truncated in info is deprecated; return truncated instead")
    if not play.lengths:
        steps = len(play.rewards)
        return Finding("warn", subject, f"there is none, and no episode ended in {steps} random steps; {hint}")
    if len(play.lengths) > 1 and len(set(play.lengths)) == 1 and play.lengths[0] > 1:
        same = f"all {len(play.lengths)} episodes terminated after exactly {play.lengths[0]} steps"
        return Finding("warn", subject, f"{same}; if that is a time limit, return truncated, not terminated")
    return Finding("warn", subject, f"there is none, and the episodes of a good agent may never end; {hint}")


def rewards(play: RandomPlay, algorithm: AlgorithmConfig) -> Finding:
    """Check the scale of the rewards, unless ``algorithm`` rescales them."""
    low, high, mean = min(play.rewards), max(play.rewards), float(np.mean(play.rewards))
    seen = f"from {low:.4g} to {high:.4g}, mean {mean:.4g} in {len(play.rewards)} random steps"
    largest = max(abs(low), abs(high))
    if largest == 0:
        zeros = f"all 0 in {len(play.rewards)} random steps: hard to find; a higher ent_coef helps"
        return Finding("warn", "rewards", zeros)
    rescaled = [
        name
        for name in ("reward_clip", "normalize_rewards", "reward_scale")
        if getattr(algorithm, name) != getattr(AlgorithmConfig, name)
    ]
    if rescaled:
        return Finding("ok", "rewards", f"{seen}; training sets {' and '.join(rescaled)}")
    longest = max(play.lengths, default=len(play.rewards))
    horizon = min(1 / (1 - algorithm.gamma), longest) if algorithm.gamma < 1 else longest
    values = abs(mean) * horizon if low * high >= 0 else 0.0
    if largest > LARGE or values > HIGH_VALUES:
        one_sign = f"always of one sign, so values grow to about {values:,.0f}" if values > LARGE else "large"
        scale = f"reward_scale to about {_power_of_ten(max(largest, values)):g}"
        return Finding("warn", "rewards", f"{seen}: {one_sign}; set normalize_rewards, or {scale}")
    return Finding("ok", "rewards", seen)


def _power_of_ten(largest: float) -> float:
    return float(10.0 ** -np.floor(np.log10(largest)))


def observations(space: Space[Any], play: RandomPlay, config: EnvConfig) -> Finding:
    """Check that observations are in their space and of a scale that suits networks."""
    problems = [play.obs_problem] if play.obs_problem else []
    for path, part in walk(space):
        if play.largest.get(path, 0.0) <= LARGE or not isinstance(part, Box) or is_image(part):
            continue
        if part.dtype == np.uint8 and is_flat_image(part):  # the finding about spaces has the better advice
            continue
        reach = f"{path_name(path)} reach ±{play.largest[path]:.4g}".strip()
        if part.dtype.kind != "f":
            problems.append(f"{reach}: large for integers, which normalize_obs leaves alone; return them as float32")
        elif not config.normalize_obs:
            problems.append(f"{reach}: large; set normalize_obs")
    scale = "standardised in training" if config.normalize_obs else "of a suitable scale"
    return warn_or_ok("observations", problems, f"in their space, finite, {scale}")


def wrappers(source: EnvSource) -> list[Finding]:
    """Warn about wrappers that normalise with statistics of their own; return nothing without them."""
    note = source.explain_normalizers()
    return [] if note is None else [Finding("warn", "wrappers", note)]


def speed(play: RandomPlay) -> Finding:
    """Report the speed of one environment."""
    per_step = play.seconds / len(play.rewards)
    return Finding("ok", "speed", f"{per_step * 1e6:,.0f} µs a step, {1 / per_step:,.0f} steps/s in one environment")


def printed(output: IO[bytes]) -> list[Finding]:
    """Report what the environment wrote to stdout, by its first line; return nothing without such."""
    output.seek(0)
    lines = sum(1 for line in output if line.strip())
    if not lines:
        return []
    output.seek(0)
    first = next(line for line in output if line.strip())[:200].decode("utf-8", "replace")
    text = " ".join(first.split())[:60]
    return [Finding("warn", "output", f"it printed {lines:,} lines, the first {text!r}; training shows them on stderr")]


# --------------------------------------------------------------------------- training


def plan(source: EnvSource, config: TrainConfig) -> list[Finding]:
    """Report the network, backend and preset of ``limelight train``."""
    preset, *rules = explain_preset(config, source)
    return [
        *wrappers(source),
        network(source, config),
        _backend(source),
        Finding("ok", "preset", preset.removeprefix("preset ")),
        *(Finding("ok", "rule", rule) for rule in rules),
    ]


def _backend(source: EnvSource) -> Finding:
    """Report the backend that would step the environments; settings that neither would use are refused."""
    try:
        choice = explain_backend(source)
    except LimelightError as error:
        return Finding("fail", "backend", str(error))
    number = f"for {source.config.num_envs} environments side by side"
    return Finding("ok", "backend", f"{choice.backend}, {number}: {choice.reason}")


def network(source: EnvSource, config: TrainConfig) -> Finding:
    """Report the network that would learn; spaces that no network or distribution supports are refused."""
    try:
        model = make_model(*source.spaces(), config.model, config.seed)
    except LimelightError as error:
        return Finding("fail", "network", str(error))
    hidden = f"hidden layers of {', '.join(map(str, config.model.hidden_sizes))}"
    parts = [] if isinstance(model.encoder, ImageEncoder) else [hidden]  # an image alone goes to the heads
    for module in model.encoder.modules():
        if isinstance(module, ImageEncoder):
            kind = f"the CNN {module.network}" if module.network else "a small CNN"
            codes = " (a plane for each code)" if module.planes.is_categorical_image else ""
            parts.append(f"{describe_space(module.space)} through {kind}{codes}")
    number = sum(p.numel() for p in model.parameters())
    return Finding("ok", "network", f"{'; '.join(parts)}; {number:,} parameters")
