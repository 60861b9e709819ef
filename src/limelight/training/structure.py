"""Default settings of an environment that no preset was tuned on: rules over what it declares and random play shows.

Each rule is a function from the facts to settings with their reason, or to None where it does not apply. The rules
were found by a study over many kinds of environments (benchmarks/defaults.py; docs/defaults.md has the table).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from limelight.settings.io import get_setting
from limelight.settings.schema import NO_STEP_BUDGET, TrainConfig
from limelight.settings.values import to_text

if TYPE_CHECKING:
    from gymnasium.spaces import Box, Space

    from limelight.envs.probe import Probe

# Gymnasium and everything that imports it is imported within functions: `limelight --help` loads this module.

EVALUATION_SHARE = 0.25
"""Steps of evaluations per step of training, at most."""
FEW_ROLLOUTS = 20
"""Rollouts that a budget should have at least."""
LONGEST_LATE = 64
"""Steps of a rollout, at most, where rewards come at the ends of episodes."""
MANY_STEPS = 500
"""Length from which an episode is long."""


@dataclass(frozen=True)
class Facts:
    """What the rules know."""

    observations: Space[Any]
    actions: Space[Any]
    play: Probe | None
    """Random play; None if the environment could not be played (training reports why)."""
    rollout: dict[str, Any]
    """Settings of rollouts and updates of the algorithm where nothing is tuned (training/algorithms.py)."""
    recurrent: bool
    total_timesteps: int
    time_limit: int | None = None
    """Steps after which the environment declares that it truncates episodes."""
    given: Mapping[str, Any] = field(default_factory=dict)
    """Settings that the user has given, by their plain names."""

    @property
    def rewards_are_late(self) -> bool:
        """Return whether the episodes of random play were paid by their last steps alone, and most of them were."""
        return self.play is not None and self.play.end_share > 0.95 and self.play.rewarded_ends > 0.5

    @property
    def episode_length(self) -> float | None:
        """Return the median length of a random episode; the declared limit if none ended; None if nothing is known."""
        if self.play is not None and self.play.episode_lengths:
            return statistics.median(self.play.episode_lengths)
        return self.time_limit


@dataclass(frozen=True)
class Choice:
    """Settings by their plain names, and the reason for them."""

    settings: dict[str, Any]
    reason: str


def choose_settings(facts: Facts) -> list[Choice]:
    """Return what the rules choose, in their order."""
    choices = (rule(facts) for rule in _RULES)
    return [choice for choice in choices if choice is not None]


def explain(config: TrainConfig, choices: list[Choice]) -> list[str]:
    """Return a line for each rule that the run follows: its settings and the reason, without what the user changed."""
    lines = []
    for choice in choices:
        kept = {name: value for name, value in choice.settings.items() if get_setting(config, name) == value}
        if kept:
            lines.append(f"{', '.join(f'{name} {to_text(value)}' for name, value in kept.items())}: {choice.reason}")
    return lines


# --------------------------------------------------------------------------- the rules


def _observations(facts: Facts) -> Choice | None:
    """Standardise real numbers and pixels; codes need no scale."""
    from limelight.envs.probe import real_parts

    if _has_pixels(facts.observations):
        return Choice({"normalize_obs": True}, "pixels are standardised, as a network learns sooner from them")
    if not any(real_parts(facts.observations)):
        return None
    largest = facts.play.largest_observation if facts.play else 0.0
    seen = f"observations reach ±{largest:.3g}" if largest else "observations are numbers"
    return Choice({"normalize_obs": True}, f"{seen}, and a network learns soonest from numbers of unit size")


def _encoder(facts: Facts) -> Choice | None:
    """Look at images with the cheapest network that learns from them."""
    pictures = _pictures(facts.observations)
    if not pictures:
        return None
    if _are_small(pictures):
        return Choice({"encoder": "universe"}, "small images of brightness, from which it learns soonest")
    return Choice({"encoder": "a3c"}, "two to three times as fast on large images as the network nature")


def _rewards(facts: Facts) -> Choice | None:
    """Scale rewards, unless the user does: step sizes and bonus are for returns of unit size."""
    if facts.given.keys() & {"reward_scale", "reward_clip"}:
        return None
    if facts.play is None:
        seen = "rewards may be of any size"
    elif facts.play.lowest_reward == facts.play.highest_reward:
        seen = f"the reward was {facts.play.lowest_reward:.3g} at every random step"
    else:
        seen = f"rewards from {facts.play.lowest_reward:.3g} to {facts.play.highest_reward:.3g}"
    return Choice({"normalize_rewards": True}, f"{seen}; step sizes are for returns of unit size")


def _critic(facts: Facts) -> Choice | None:
    """Give the critic its own network, unless it is expensive."""
    from limelight.spaces.images import MIN_CNN_SIZE, image_size

    if facts.recurrent or any(min(image_size(image)[1:]) >= MIN_CNN_SIZE for image in _images(facts.observations)):
        return Choice({"critic": "shared"}, "large images and memories are expensive, so one network serves both heads")
    return Choice({"critic": "separate"}, "a value loss that is larger than the policy's would drown it in one network")


def _updates(facts: Facts) -> Choice | None:
    """Choose the rollout, and with it the number of updates in the budget, and the step size that suits it."""
    settings = dict(facts.rollout)
    images, pictures = _images(facts.observations), _pictures(facts.observations)
    is_small = bool(pictures) and len(pictures) == len(images) and _are_small(pictures)
    if settings["num_steps"] > 1 and images:
        settings["num_envs"] = 8
        if "num_epochs" in settings:
            settings |= {"num_steps": 32, "num_epochs": 4, "learning_rate": 1e-3 if is_small else 5e-4}
        else:
            settings["num_steps"] = max(settings["num_steps"], 8)
            settings |= {} if is_small else {"optimizer": "adam", "learning_rate": 7e-4}
    elif settings["num_steps"] > 1 and facts.recurrent:
        settings |= {"num_envs": 16, "num_steps": max(settings["num_steps"], 16), "learning_rate": 1.5e-3}
    reason = ""
    if facts.rewards_are_late and "num_epochs" not in settings and (facts.episode_length or 0) > settings["num_steps"]:
        settings |= {"num_steps": min(LONGEST_LATE, math.ceil(facts.episode_length or 0)), "gae_lambda": 1.0}
        reason = "rewards come with the last step of an episode, so a rollout spans one; "
    # At least a few rollouts in a small budget, and no more minibatches than there are rows or environments
    num_envs = facts.given.get("num_envs", settings["num_envs"])
    while settings["num_steps"] > 16 and facts.total_timesteps < FEW_ROLLOUTS * num_envs * settings["num_steps"]:
        settings["num_steps"] //= 2
    batch = num_envs * facts.given.get("num_steps", settings["num_steps"])
    if "num_minibatches" in settings:
        most = num_envs if facts.recurrent else batch // 2
        settings["num_minibatches"] = max(1, min(settings["num_minibatches"], most))
    if facts.total_timesteps >= NO_STEP_BUDGET:
        return Choice(settings, f"{reason}as for a budget of many rollouts, where only episodes end the run")
    updates = max(1, facts.total_timesteps // batch)
    return Choice(settings, f"{reason}about {updates:,} rollouts in the budget of {facts.total_timesteps:,} steps")


def _horizon(facts: Facts) -> Choice | None:
    """Look farther ahead where episodes are long."""
    length = facts.episode_length
    if length is None or length < MANY_STEPS:
        return None
    return Choice({"gamma": 0.995}, f"episodes of {length:,.0f} steps")


def _exploration(facts: Facts) -> Choice | None:
    """Choose the entropy bonus and the first σ by the kind of action."""
    from limelight.envs.probe import real_parts

    if any(real_parts(facts.actions)):
        return Choice(
            {"ent_coef": 0.0, "log_std_init": -0.5}, "continuous actions: σ is learnt, and a bonus would only widen it"
        )
    return Choice({"ent_coef": 0.01}, "a choice of actions stays open until returns differ")


def _evaluations(facts: Facts) -> Choice | None:
    """Bound the share of evaluations in the work where episodes are long."""
    length = facts.episode_length
    if length is None or length * 20 <= EVALUATION_SHARE * 10_000:
        return None
    episodes = 10 if length * 10 <= EVALUATION_SHARE * facts.total_timesteps / 4 else 5
    every = max(10_000, round(length * episodes / EVALUATION_SHARE, -4))
    return Choice(
        {"eval_every": int(every), "eval_episodes": episodes},
        f"episodes of {length:,.0f} steps, and evaluations take at most a quarter of the steps",
    )


_RULES = (_observations, _encoder, _rewards, _critic, _updates, _horizon, _exploration, _evaluations)


def _images(space: Space[Any]) -> list[Box]:
    """Return the images among observations."""
    from limelight.spaces.images import is_image
    from limelight.spaces.reading import leaves_of

    return [cast("Box", leaf.space) for leaf in leaves_of(space) if is_image(leaf.space)]


def _pictures(space: Space[Any]) -> list[Box]:
    """Return the images of brightness, not of categories, among observations."""
    from limelight.spaces.images import is_categorical_image

    return [image for image in _images(space) if not is_categorical_image(image)]


def _are_small(pictures: list[Box]) -> bool:
    """Return whether the smallest of the images is too small for the networks for large ones."""
    from limelight.spaces.images import MIN_CNN_SIZE, image_size

    return min(min(image_size(picture)[1:]) for picture in pictures) < MIN_CNN_SIZE


def has_images(space: Space[Any]) -> bool:
    """Return whether observations hold an image, or a grid of numbers that will be flattened."""
    from gymnasium.spaces import Box

    from limelight.spaces.reading import leaves_of

    return any(isinstance(leaf.space, Box) and len(leaf.space.shape) > 1 for leaf in leaves_of(space))


def _has_pixels(space: Space[Any]) -> bool:
    """Return whether observations are one image of brightness, whose pixels can be standardised."""
    from limelight.spaces.images import is_categorical_image, is_image

    return is_image(space) and not is_categorical_image(space)  # type: ignore[arg-type]
