"""``limelight.export``: an agent as one file, compared with ``predict`` before it is kept."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from limelight import __version__
from limelight.errors import ConfigError, did_you_mean
from limelight.runs.export.formats import FORMATS, require, trace
from limelight.runs.export.module import PolicyModule
from limelight.runs.export.parity import LARGEST_DIFFERENCE, Parity, compare
from limelight.runs.export.ports import Ports, ports_of
from limelight.runs.export.recording import record
from limelight.runs.folder import SUMMARY, read_json
from limelight.settings.values import Range, coerce
from limelight.spaces.describe import space_to_json

if TYPE_CHECKING:
    from limelight.runs.agent import Agent

_SEED = 0
_SCORES = (
    "best_eval_return", "final_eval_return", "final_eval_std", "final_eval_episodes", "total_timesteps",
    "solved_at_step",
)  # fmt: skip


class Exported(NamedTuple):
    """A file that was written, and how far it is from the agent."""

    path: Path
    parity: Parity
    origin: str
    """Of the observations that it was compared on."""
    ports: Ports
    metadata: dict[str, Any]

    def describe(self) -> str:
        """Return the result in one line."""
        ties = f", {self.parity.ties} ties among discrete actions" if self.parity.ties else ""
        return (
            f"{self.path}: largest difference {self.parity.difference:.0e} over {self.parity.observations:,} "
            f"observations of {self.origin}{ties}"
        )


def export(
    agent: Agent | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    deterministic: bool = True,
    which: str = "best",
    observations: int = 1_000,
) -> Exported:
    """Write the policy of ``agent`` as one file that needs no Limelight: raw observations in, actions out.

    The file is compared with ``agent.predict`` on observations of the agent's own episodes and is not kept if they
    differ by more than 1e-5. ``docs/export.md`` has its inputs and outputs.

    Args:
        agent: the agent, or the folder of a run or of a saved agent.
        path: of the file; one that is there is replaced.
        format: ``onnx`` or ``torch`` (the archive of torch.export); None: by the suffix of ``path``, .onnx or .pt2.
        deterministic: the most probable actions; False: samples, whose noise is an input.
        which: of a run's agents: ``best`` or ``last``.
        observations: how many to compare on.
    Raises: ConfigError for an argument that cannot work, or a file that differs from the agent; CheckpointError where
        there is no agent.
    """
    target = _checked_path(path)
    name = _format_of(target, format)
    observations = coerce("observations", observations, int)
    Range(ge=1).check("observations", observations)
    deterministic = coerce("deterministic", deterministic, bool)
    require(name)
    loaded, scores = _load(agent, which)
    metadata = _metadata(loaded, deterministic, scores)
    ports = ports_of(loaded, deterministic)
    metadata.update(ports.describe())
    program = trace(PolicyModule(copy.deepcopy(loaded), deterministic), ports)
    recording = record(loaded, observations, _SEED)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        FORMATS[name].write(program, ports, temporary, metadata)
        parity = compare(loaded, FORMATS[name].open(temporary, ports), ports, recording, _SEED)
        _require_equal(target, parity)
        os.replace(temporary, target)
    except OSError as error:
        raise ConfigError(f"path = {target}: cannot be written ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)
    return Exported(target, parity, recording.origin, ports, metadata)


def _checked_path(path: Any) -> Path:
    """Return the path of the file, in a folder that is there now.

    Raises: ConfigError.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise ConfigError(f"path = {path!r}: must be the name of a file, such as agent.onnx")
    target = Path(path)
    if target.is_dir():
        raise ConfigError(f"path = {target}: is a folder; name a file in it, such as {target / 'agent.onnx'}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"path = {target}: its folder cannot be made ({error.strerror})") from None
    return target


def _format_of(path: Path, format: Any) -> str:
    """Return the name of the format.

    Raises: ConfigError where the suffix tells none, or the name is another.
    """
    by_suffix = {form.suffix: name for name, form in FORMATS.items()}
    if format is None:
        if path.suffix not in by_suffix:
            raise ConfigError(f"path = {path}: must end in {' or '.join(by_suffix)}; or give format, onnx or torch")
        return by_suffix[path.suffix]
    if format not in FORMATS:
        raise ConfigError(f"format = {format!r}: must be {' | '.join(FORMATS)}{did_you_mean(str(format), FORMATS)}")
    if by_suffix.get(path.suffix, format) != format:
        raise ConfigError(
            f"path = {path}: is the name of a file of format {by_suffix[path.suffix]}, not {format}; "
            f"end it in {FORMATS[format].suffix}"
        )
    return str(format)


def _load(agent: Any, which: str) -> tuple[Agent, dict[str, Any]]:
    """Return the agent, and the scores of its run if that is known."""
    from limelight.runs.agent import Agent, load

    if isinstance(agent, Agent):
        return agent, {}
    if not isinstance(agent, str | os.PathLike):
        instead = "its agent, result.agent" if hasattr(agent, "agent") else "an agent or the folder of one"
        raise ConfigError(f"agent: is a {type(agent).__name__}; pass {instead}")
    folder = Path(agent)
    loaded = load(folder, which)
    summary = read_json(folder / SUMMARY)
    return loaded, {key: summary[key] for key in _SCORES if summary.get(key) is not None}


def _metadata(agent: Agent, deterministic: bool, scores: dict[str, Any]) -> dict[str, Any]:
    """Return what a file says about the agent."""
    return {
        "limelight": __version__,
        "torch": str(torch.__version__),
        "env_id": agent.config.env.env_id,
        "algo": agent.config.algorithm.algo,
        "seed": agent.config.seed,
        "actions": "greedy" if deterministic else "sampled",
        "observation_space": space_to_json(agent.observation_space),
        "action_space": space_to_json(agent.action_space),
        **({"scores": scores} if scores else {}),
    }


def _require_equal(path: Path, parity: Parity) -> None:
    """Refuse a file that differs from its agent.

    Raises: ConfigError.
    """
    if not parity.difference <= LARGEST_DIFFERENCE:
        raise ConfigError(
            f"{path}: is not written, as its {parity.output} differs from predict by up to {parity.difference:.0e} "
            f"over {parity.observations:,} observations, more than {LARGEST_DIFFERENCE:.0e}; does an encoder of your "
            "own compute by chance, or by the values of its inputs?"
        )
