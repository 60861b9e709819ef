"""An agent as others get it: its files, a video and a curve, and a model card with command, seed and scores."""

from __future__ import annotations

import dataclasses
import json
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from limelight.errors import LimelightError
from limelight.files import is_regular_within, write_text
from limelight.runs.agent import Agent, load
from limelight.runs.evaluation import Evaluation, evaluate
from limelight.runs.folder import COMMAND, CONFIG, write_json
from limelight.runs.reader import RunData, read_run
from limelight.settings.io import save_yaml
from limelight.viewing.frames import ffmpeg
from limelight.viewing.numbers import compact, with_spread
from limelight.viewing.record import record

VIDEO, CURVE, CARD, SETTINGS, SCORES = "replay.mp4", "learning_curve.png", "README.md", "train.yaml", "scores.json"
_MOST_FRAMES = 1_500
"""Of the video."""


@dataclass(frozen=True)
class Pack:
    """What is known of an agent."""

    repo: str
    agent: Agent
    run: RunData | None
    """The run that trained it; None for a saved agent alone."""
    scores: Evaluation
    """Greedy episodes."""
    seed: int
    """Of the evaluation."""


def pack(source: Path, folder: Path, repo: str, episodes: int, seed: int) -> Pack:
    """Write everything that is uploaded into the empty ``folder``; return what is known of the agent.

    Args:
        source: folder of a run (its best agent is taken), or of a saved agent.
        folder: where the files are written.
        repo: ``user/name``.
        episodes: of the evaluation, whose scores are on the card.
        seed: of the evaluation.
    Raises: LimelightError if there is no agent, or its environment cannot be made.
    """
    agent = load(source)
    agent.config = dataclasses.replace(agent.config, run_dir=None)  # a path of this machine
    run = read_run(source) if (source / CONFIG).is_file() else None
    packed = Pack(repo, agent, run, evaluate(agent, episodes=episodes, seed=seed), seed)
    agent.save(folder / "best")
    save_yaml(agent.config, folder / SETTINGS)
    write_json(folder / SCORES, {**packed.scores.to_json(), "seed": seed})
    curve = source / "plots" / CURVE
    if is_regular_within(curve, source):  # a link could have any file uploaded
        shutil.copy(curve, folder / CURVE)
    _record_episode(agent, folder / VIDEO, seed)
    write_text(folder / CARD, card(packed, folder))
    return packed


def _record_episode(agent: Agent, path: Path, seed: int) -> None:
    """Record an episode, where the environment renders images and ffmpeg is installed."""
    try:
        ffmpeg()
        record(agent, path, seed=seed, max_frames=_MOST_FRAMES)
    except LimelightError:
        path.unlink(missing_ok=True)


def card(packed: Pack, folder: Path) -> str:
    """Return the model card: a header for the hub, then the text."""
    agent, scores = packed.agent, packed.scores
    env_id, algo, seed = agent.config.env.env_id, agent.config.algorithm.algo, agent.config.seed
    score = with_spread(scores.mean_return, scores.std_return)
    rows = [("environment", f"`{env_id}`"), ("algorithm", algo), ("seed of training", str(seed))]
    if packed.run is not None and packed.run.summary:
        summary = packed.run.summary
        rows.append(("environment steps", f"{summary['total_timesteps']:,}"))
        rows.append(("seconds of training", compact(summary["wall_seconds"])))
        rows.append(("machine", str(packed.run.system.get("processor") or "unknown")))
    rows.append((f"return, {scores.episodes} greedy episodes, seed {packed.seed}", f"**{score}**"))
    rows.append(("lowest and highest", f"{compact(min(scores.returns))}, {compact(max(scores.returns))}"))
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    command = _command(packed.run)
    trained = [f"It was trained by\n\n```sh\n{command}\n```\n\nand " if command else "It "]
    trained.append(f"is trained again by `limelight train --config {SETTINGS}`, which has every setting.")
    usage = f'agent = limelight.load("hf:{packed.repo}")\naction, _ = agent.predict(obs)'
    parts = [
        _header(packed), f"# {algo} on {env_id}", f"| | |\n|---|---|\n{table}",
        f"```sh\npip install 'limelight-rl[hub]'\nlimelight evaluate hf:{packed.repo}\n```",
        f"```python\nimport limelight\n\n{usage}\n```",
        "Nothing in it is unpickled: the parameters are safetensors, all else is JSON.", "".join(trained),
    ]  # fmt: skip
    if (folder / CURVE).is_file():
        parts.append(f"![Return over environment steps]({CURVE})")
    if (folder / VIDEO).is_file():
        parts.append(f'<video controls autoplay loop src="{VIDEO}"></video>')
    return "\n\n".join(parts) + "\n"


def _command(run: RunData | None) -> str:
    """Return the command that trained the run, without the names of folders of this machine."""
    words = shlex.split(run.command) if run is not None and (run.folder / COMMAND).is_file() else []
    kept: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        if before not in ("--run-dir", "--resume") and not word.startswith(("--run-dir", "--resume")):
            kept.append(word)
    return shlex.join(kept)


def _header(packed: Pack) -> str:
    """Return the metadata that the hub reads, as YAML between lines of dashes; JSON is YAML."""
    env_id, scores = packed.agent.config.env.env_id, packed.scores
    metric = {"type": "mean_reward", "value": with_spread(scores.mean_return, scores.std_return), "verified": False}
    result = {
        "task": {"type": "reinforcement-learning", "name": "reinforcement-learning"},
        "dataset": {"type": env_id, "name": env_id},
        "metrics": [{**metric, "name": "mean_reward"}],
    }
    fields: dict[str, Any] = {
        "library_name": "limelight",
        "tags": ["reinforcement-learning", "deep-reinforcement-learning", "limelight", env_id],
        "model-index": [{"name": packed.agent.config.algorithm.algo, "results": [result]}],
    }
    return (
        "---\n"
        + "\n".join(f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in fields.items())
        + "\n---"
    )
