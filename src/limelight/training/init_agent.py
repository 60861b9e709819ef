"""A new run that begins with the weights and the normalisation of an agent, where they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from limelight.errors import ConfigError
from limelight.runs.agent import Agent, load
from limelight.seeds import Stream, derive_seed
from limelight.settings.io import all_settings, get_setting
from limelight.settings.values import to_text
from limelight.training.branch import shapes_of
from limelight.training.loop import TrainingLoop
from limelight.typing import State

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Donor:
    """An agent to begin with."""

    name: str
    """Its folder."""
    agent: Agent


def read_donor(folder: Path) -> Donor:
    """Load the best agent of a run, or the agent of a folder.

    Raises: CheckpointError where there is none.
    """
    return Donor(str(folder), load(folder))


def names_that_fit(here: Mapping[str, Shape], there: Mapping[str, Shape]) -> list[str]:
    """Return the names of parameters to take over; those of a layer are taken together or not at all."""
    odd = {_layer(name) for name in here if here[name] != there.get(name)}
    return [name for name in here if _layer(name) not in odd]


def _layer(name: str) -> str:
    return name.rpartition(".")[0]


def require_some(donor: Donor, agent: Agent) -> None:
    """Refuse an agent of which no layer fits.

    Raises: ConfigError that names the settings of the network that differ.
    """
    here, there = shapes_of(agent), shapes_of(donor.agent)
    if any(len(here[name]) > 1 for name in names_that_fit(here, there)):
        return
    names = [name for name, setting in all_settings().items() if setting.section == "model"]
    differing = [
        f"{name} {to_text(its)}"
        for name in names
        if (its := get_setting(donor.agent.config, name)) != get_setting(agent.config, name) and to_text(its)
    ]
    its_own = f"its network has {', '.join(differing)}" if differing else "its observations and actions differ"
    raise ConfigError(
        f"init_agent = {donor.name}: no layer of it fits this run: {its_own}; set the same, or leave it out"
    )


def begin_with(loop: TrainingLoop, donor: Donor) -> None:
    """Take over what fits of an agent, before the first step, with a table of it as a message."""
    here, there = loop.agent.model, dict(donor.agent.model.named_parameters())
    taken = names_that_fit(shapes_of(loop.agent), shapes_of(donor.agent))
    with torch.no_grad():
        for name, parameter in here.named_parameters():
            if name in taken:
                parameter.copy_(there[name])
    has_statistics = _take_over(loop, donor.agent)
    lines = table(donor, shapes_of(loop.agent), shapes_of(donor.agent), taken)
    loop.logger.message("\n".join([*lines, _statistics(loop.agent, donor.agent, has_statistics)]))


def _take_over(loop: TrainingLoop, donor: Agent) -> bool:
    """Give the runner the parameters of the agent that shares its network; return whether statistics came along."""
    state = loop.runner.get_state()
    params = torch.cat([p.detach().reshape(-1) for p in loop.agent.model.parameters()]).cpu()
    for saved in state.get("train_states") or [state["train_state"]]:
        saved["params"] = params
        if saved["target_params"] is not None:  # a copy of the critic, the last part of the vector
            saved["target_params"] = params[-len(saved["target_params"]) :]
    statistics = None
    if loop.agent.normalizer is not None and donor.normalizer is not None:
        statistics = _fitting_statistics(donor.normalizer.get_state(), loop.agent.normalizer.get_state())
    if "actor" in state:
        state["actor"]["envs"] = None  # new observations, by the statistics that were taken over
    if statistics is not None:
        if "actor" in state:
            state["actor"]["normalizer"] = statistics
        else:
            state["moments"]["observations"] = statistics
    loop.runner.set_state(state, derive_seed(loop.config.seed, Stream.ENV))
    return statistics is not None


def _fitting_statistics(there: State, here: State) -> State | None:
    return there if there["mean"].shape == here["mean"].shape else None


def table(donor: Donor, here: Mapping[str, Shape], there: Mapping[str, Shape], taken: Sequence[str]) -> list[str]:
    """Return a line per parameter: its name, its shape here and in the agent, and whether it is taken over."""
    env = donor.agent.config.env.env_id
    width = max(map(len, here))
    rows = [
        f"  {name:{width}}  {_text(shape):>9}  {_text(there.get(name)):>9}  {'taken over' if name in taken else 'new'}"
        for name, shape in here.items()
    ]
    head = f"{len(taken)} of {len(here)} parameters are those of the agent {donor.name} ({env})"
    return [head, f"  {'parameter':{width}}  {'here':>9}  {'agent':>9}", *rows]


def _text(shape: Shape | None) -> str:
    return "–" if shape is None else "×".join(map(str, shape)) or "1"


def _statistics(here: Agent, there: Agent, is_taken: bool) -> str:
    """Return the line on the normalisation of observations."""
    if is_taken:
        return "  statistics of observations: taken over"
    if there.normalizer is None:
        return "  statistics of observations: the agent has none" + ("; new" if here.normalizer is not None else "")
    if here.normalizer is None:
        return "  statistics of observations: the agent has them, this run does not normalise; set normalize_obs true"
    return "  statistics of observations: new (of another shape)"
