"""``limelight.export``: an agent as one file, compared with ``predict`` before it is kept."""

from __future__ import annotations

import contextlib
import copy
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from limelight import __version__
from limelight.errors import ConfigError, did_you_mean
from limelight.files import temporary_of
from limelight.runs.evaluation import require_agent
from limelight.runs.export.formats import FORMATS, first_line, require, trace
from limelight.runs.export.module import PolicyModule
from limelight.runs.export.parity import LARGEST_DIFFERENCE, Parity, Run, compare
from limelight.runs.export.ports import Arrays, Ports, ports_of
from limelight.runs.export.recording import record
from limelight.runs.folder import SUMMARY, as_json, read_json
from limelight.settings.values import Range, coerce, require_short, shown
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

    def lines(self) -> list[str]:
        """Return the result, and a line for each input and output."""
        ports = [("input", port) for port in self.ports.inputs] + [("output", port) for port in self.ports.outputs]
        rows = [(kind, port.name, str(port.dtype), f"[{', '.join(map(str, (*port.axes, *port.shape)))}]")
                for kind, port in ports]  # fmt: skip
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        return [self.describe(), *("  ".join([*(map(str.ljust, row, widths)), row[3]]) for row in rows)]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain data."""
        return {
            "path": str(self.path),
            "difference": self.parity.difference,
            "observations": self.parity.observations,
            "ties": self.parity.ties,
            "origin": self.origin,
            "metadata": self.metadata,
        }


def export(
    agent: Agent,
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    deterministic: bool = True,
    observations: int = 1_000,
    metadata: Mapping[str, Any] | None = None,
) -> Exported:
    """Write the policy of ``agent`` as one file that needs no Limelight: raw observations in, actions out.

    The file is compared with ``agent.predict`` on observations of the agent's own episodes, and is not kept if they
    differ by more than 1e-5. ``docs/export.md`` has its inputs and outputs.

    Args:
        agent: from :func:`limelight.load`, or a :class:`limelight.Agent`.
        path: of the file; one that is there is replaced.
        format: ``onnx`` or ``torch`` (the archive of torch.export); None: by the suffix of ``path``, .onnx or .pt2.
        deterministic: the most probable actions; False: samples, whose noise is an input.
        observations: how many to compare on.
        metadata: further entries of the file's metadata, such as scores; plain data.
    Raises: ConfigError for an argument that cannot work, or a file that differs from the agent.
    """
    require_agent(agent)
    target = _checked_path(path)
    name = _format_of(target, format)
    observations = coerce("observations", observations, int)
    Range(ge=1).check("observations", observations)
    deterministic = coerce("deterministic", deterministic, bool)
    _require_json(metadata)
    require(name)
    ports = ports_of(agent, deterministic)
    described = {**_metadata(agent, deterministic), **ports.describe(), **(metadata or {})}
    program = trace(PolicyModule(copy.deepcopy(agent), deterministic), ports)
    recording = record(agent, observations, _SEED)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_of(target)
        FORMATS[name].write(program, ports, temporary, described)
        parity = compare(agent, _runnable(name, temporary, ports), ports, recording, _SEED)
        _require_equal(target, parity)
        os.replace(temporary, target)
    except OSError as error:
        raise ConfigError(f"path = {target}: cannot be written ({error.strerror or error})") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
    return Exported(target, parity, recording.origin, ports, described)


def scores_of(run_dir: Path) -> dict[str, Any]:
    """Return the results of a run as entries of a file's metadata; none for the folder of a saved agent.

    Raises: CheckpointError if its summary is damaged.
    """
    summary = read_json(run_dir / SUMMARY)
    scores = {key: summary[key] for key in _SCORES if summary.get(key) is not None}
    return {"scores": scores} if scores else {}


def default_path(run_dir: Path, format: str | None) -> Path:
    """Return the name of the file in a run's folder: agent.onnx, or agent.pt2."""
    return run_dir / f"agent{FORMATS[format or 'onnx'].suffix}"


def _checked_path(path: Any) -> Path:
    """Return the path of the file.

    Raises: ConfigError.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise ConfigError(f"path = {path!r}: must be the name of a file, such as agent.onnx")
    require_short("path", os.fspath(path))
    target = Path(path)
    if target.is_dir():
        raise ConfigError(f"path = {target}: is a folder; name a file in it, such as {target / 'agent.onnx'}")
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


def _require_json(metadata: Any) -> None:
    """Refuse further metadata that JSON does not hold.

    Raises: ConfigError.
    """
    if not isinstance(metadata, Mapping | None):
        raise ConfigError(f"metadata = {shown(metadata)}: must be a dict of names and plain data")
    try:
        json.dumps(as_json(metadata))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"metadata: must hold texts, numbers, lists and dicts alone ({error})") from None


def _metadata(agent: Agent, deterministic: bool) -> dict[str, Any]:
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
    }


def _runnable(name: str, path: Path, ports: Ports) -> Run:
    """Return the function that a file computes.

    Raises: ConfigError, also later, where the program that loads it cannot run it.
    """
    try:
        run = FORMATS[name].open(path, ports)
    except Exception as error:  # runtimes have errors of their own
        raise ConfigError(f"format = {name}: the file cannot be loaded ({first_line(error)})") from error

    def guarded(inputs: Arrays) -> Arrays:
        try:
            return run(inputs)
        except Exception as error:
            raise ConfigError(f"format = {name}: the file cannot be run ({first_line(error)})") from error

    return guarded


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
