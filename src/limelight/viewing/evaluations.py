"""An evaluation in full as text: returns side by side, and the steps of the worst and the median episode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limelight.files import write_text
from limelight.runs import env_numbers
from limelight.runs.evaluation import EnvLike, Evaluation
from limelight.runs.full_evaluation import FullEvaluation, TracedEvaluation, as_trained, describe_rewards, statistics
from limelight.runs.traces import EpisodeTrace
from limelight.viewing import numbers
from limelight.viewing.tables import csv_table

if TYPE_CHECKING:
    from limelight.runs.agent import Agent

WIDTH = 80
FIRST, LAST = 6, 12
"""Steps of an episode that are printed at its start and at its end; the file has all."""
_NOTHING = 1e-12
"""Below it a return is the rounding error of a sum."""
EPISODES = "episodes"
"""The folder of the steps of episodes, in that of a run."""


def comparison(full: FullEvaluation) -> list[str]:
    """Return the lines of greedy and sampled returns side by side, raw and as trained, within 80 columns."""
    greedy, sampled = full.greedy, full.sampled
    lines = _block("in the rewards of the environment", greedy.evaluation.returns, sampled.evaluation.returns)
    lengths = [_short(each.evaluation.mean_length) for each in (greedy, sampled)]
    lines.append(_row("mean length", *lengths))
    lines.append(_row("episodes", *(str(each.evaluation.episodes) for each in (greedy, sampled))))
    if greedy.evaluation.cut or sampled.evaluation.cut:
        lines.append(_row("of them cut", *(str(each.evaluation.cut) for each in (greedy, sampled))))
    lines += _numbers(greedy.evaluation, sampled.evaluation)
    gap, low, high = full.difference
    says = "no difference is shown" if low <= 0.0 <= high else "they differ"
    lines += ["", f"greedy minus sampled: {_short(gap)}, {says}", f"  95 % interval {_short(low)} to {_short(high)}"]
    if greedy.trained_returns is not None and sampled.trained_returns is not None:
        title = f"as trained: {full.rewards}"
        lines += ["", *_block(title, greedy.trained_returns, sampled.trained_returns)]
    elif full.rewards:
        lines += ["", f"as trained: {full.rewards}"]
    return lines


def _block(title: str, greedy: Sequence[float], sampled: Sequence[float]) -> list[str]:
    columns = [statistics(greedy), statistics(sampled)]
    interval = [f"{_short(c['interval'][0])} to {_short(c['interval'][1])}" for c in columns]
    return [
        title,
        _row("return", "greedy", "sampled"),
        _row("mean", *(_short(c["mean_return"]) for c in columns)),
        _row("95 % interval", *interval),
        _row("median", *(_short(c["median_return"]) for c in columns)),
        _row("IQM", *(_short(c["iqm_return"]) for c in columns)),
        _row("lowest", _short(min(greedy)), _short(min(sampled))),
        _row("highest", _short(max(greedy)), _short(max(sampled))),
    ]


def _numbers(greedy: Evaluation, sampled: Evaluation) -> list[str]:
    """Return the lines of the environment's own numbers side by side; none where there are none."""
    both = (greedy, sampled)
    keys = dict.fromkeys(key for each in both for key in each.env)
    if not keys:
        return []
    told = [env_numbers.success_of(each.env) for each in both]
    rows: list[tuple[str, list[str]]] = []
    if any(told):
        rows.append(("success rate", [f"{100 * s.rate:.1f} %" if s else "–" for s in told]))
        rows.append(("  95 % interval", [f"{100 * s.low:.1f} to {100 * s.high:.1f} %" if s else "–" for s in told]))
    shown = {s.key for s in told if s}
    rows += [(key, [_mean(each.env.get(key, ()), each.episodes) for each in both]) for key in keys if key not in shown]
    head = f"  {'mean over episodes':32}" + "".join(f" {name:>21}" for name in ("greedy", "sampled"))
    return [
        "",
        "numbers of the environment",
        head,
        *(f"  {_cut(name, 32):32}" + "".join(f" {cell:>21}" for cell in cells) for name, cells in rows),
    ]


def _mean(values: Sequence[float | None], episodes: int) -> str:
    """Return the mean of the episodes that have a number, and how many they are if not all."""
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    return _short(math.fsum(known) / len(known)) + ("" if len(known) == episodes else f" ({len(known)} of {episodes})")


def _short(value: float) -> str:
    """Return a short number; the rest of a sum that should be 0 is 0."""
    return numbers.compact(value if abs(value) >= _NOTHING else 0.0)


def _row(name: str, *cells: str) -> str:
    return f"  {name:14}" + "".join(f" {cell:>30}" for cell in cells)


# --------------------------------------------------------------------------- the worst and the median episode


def inspected(traced: TracedEvaluation) -> dict[str, EpisodeTrace]:
    """Return the episodes to look at, by name."""
    return {"worst": traced.worst, "median": traced.median}


def write_tables(traced: TracedEvaluation, agent: Agent, run_dir: Path, stem: str) -> tuple[list[Path], list[str]]:
    """Write the steps of the worst and the median episode as CSV; return the files, and the lines of both."""
    paths, lines = [], []
    folder = Path(run_dir) / EPISODES
    folder.mkdir(parents=True, exist_ok=True)
    for name, episode in inspected(traced).items():
        header, rows = _table_of(agent, episode)
        path = folder / f"{stem}-{name}.csv"
        write_text(path, csv_table(header, rows))
        paths.append(path)
        lines += ["", _headline(name, episode), *episode_lines(header, rows), f"all steps: {path}"]
    return paths, lines


def write_videos(
    traced: TracedEvaluation, agent: Agent, run_dir: Path, stem: str, env: EnvLike
) -> tuple[list[Path], list[str]]:
    """Record the worst and the median episode again; return the files, and a line for each."""
    from limelight.runs.folder import VIDEOS
    from limelight.viewing.record import record_trace

    paths, lines = [], []
    for name, episode in inspected(traced).items():
        path = Path(run_dir) / VIDEOS / f"{stem}-{name}.mp4"
        record_trace(agent, path, episode, env)
        paths.append(path)
        lines.append(f"{_headline(name, episode)}\nvideo: {path}")
    return paths, lines


def rows_as_json(traced: TracedEvaluation, agent: Agent) -> dict[str, Any]:
    """Return the steps of the worst and the median episode as JSON."""
    found = {}
    for name, episode in inspected(traced).items():
        header, rows = _table_of(agent, episode)
        head = {"return": episode.total, "seed": episode.seed, "number": episode.number}
        found[name] = {**head, "steps": [dict(zip(header, row, strict=True)) for row in rows]}
    return found


def _table_of(agent: Agent, episode: EpisodeTrace) -> tuple[list[str], list[list[Any]]]:
    is_known = describe_rewards(agent) and "lacks" not in describe_rewards(agent)
    return episode.rows(as_trained(agent, episode.rewards).tolist() if is_known else None)


def _headline(name: str, episode: EpisodeTrace) -> str:
    which = f", episode {episode.number + 1} of its environment" if episode.number else ""
    return (
        f"{name} episode: return {_short(episode.total)}, {len(episode.rewards):,} steps, {episode.end} "
        f"(seed {episode.seed}{which})"
    )


def episode_lines(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Return a table of the first and the last steps, at most 80 columns wide."""
    names = {"reward_as_trained": "as trained"}
    shown = [*rows[:FIRST], *rows[FIRST:][-LAST:]]
    numeric = [[_cell(value) for value in row[:-1]] for row in shown]
    width = (WIDTH - 8) // (len(header) - 2)
    head = f"{'step':>7} " + "".join(f"{names.get(name, name):>{width}}" for name in header[1:-1])
    lines = [
        head,
        *(f"{row[0]:>7} " + "".join(f"{_cut(cell, width - 1):>{width}}" for cell in row[1:]) for row in numeric),
    ]
    left_out = len(rows) - len(shown)
    if left_out > 0:
        lines.insert(1 + FIRST, f"{'…':>7} {left_out:,} steps are left out")
    return lines


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(f"{v:.2f}" if isinstance(v, float) else str(v) for v in value) + "]"
    return _short(value) if isinstance(value, float) else str(value)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
