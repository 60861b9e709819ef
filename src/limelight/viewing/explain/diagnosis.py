"""The diagnosis of a run: all rules in the order of what they tell, as findings, lines of text and HTML."""

from __future__ import annotations

from html import escape

import numpy as np

from limelight.runs.checkpoint import NUMBERS, fitting
from limelight.runs.listing import status_in_words
from limelight.runs.reader import RunData
from limelight.viewing.explain import episodes, learning, machine
from limelight.viewing.explain.evidence import Evidence, Finding, Rule, short

RULES: tuple[Rule, ...] = (
    machine.run_failed,
    # The environment pays nothing to learn from
    episodes.no_episode_ended,
    episodes.returns_equal,
    episodes.reward_rare,
    # Numbers are broken, or what was learnt was lost
    machine.not_finite,
    learning.values_diverge,
    learning.values_above_returns,
    episodes.best_lost,
    episodes.greedy_far,
    # It does not learn
    learning.gradients_clipped,
    learning.entropy_gone,
    learning.entropy_high,
    learning.dead_filters,
    learning.actions_clipped,
    learning.critic_useless,
    learning.critic_right_and_flat,
    episodes.all_truncated,
    # It learns, and could do better
    machine.workers_restarted,
    machine.policy_lag,
    machine.evaluation_slow,
    machine.environment_slow,
    episodes.still_rising,
)
"""In the order of findings: the cause before its effects."""


def diagnose(run: RunData) -> list[Finding]:
    """Return what is wrong with a run, the most likely cause first; empty for a healthy one."""
    evidence = Evidence(run)
    found = [finding for finding in (rule(evidence) for rule in RULES) if finding is not None]
    if not found:
        flat = episodes.return_flat(evidence)
        return [flat] if flat is not None else []
    return found


def explain(run: RunData) -> list[str]:
    """Return the diagnosis as lines; one line for a healthy run.

    Raises: CheckpointError where the files of the run do not fit each other.
    """
    with fitting(run.folder, NUMBERS), np.errstate(all="ignore"):
        return _explain(run)


def _explain(run: RunData) -> list[str]:
    findings = diagnose(run)
    if not findings:
        return [f"{headline(run)}; nothing found"]
    lines = [f"{headline(run)}"]
    for number, finding in enumerate(findings, 1):
        lines += [
            "",
            f"{number}. {finding.rule}: {finding.evidence}",
            f"   likely: {finding.cause}",
            f"   try: {finding.try_text()}",
        ]
    return lines


def headline(run: RunData) -> str:
    """Return what a run is, how far it is, and its returns, in one line."""
    evidence, config = Evidence(run), run.config
    status = status_in_words(run.folder, run.summary)
    text = f"{config.env.env_id} · {config.algorithm.algo}: {status} at step {evidence.last_step:,} of "
    text += f"{config.total_timesteps:,}"
    if len(run.episodes.values) > 20:
        text += f"; mean return {short(evidence.last_mean)}, at first {short(evidence.first_mean)}"
    return text


def as_html(run: RunData) -> str:
    """Return the diagnosis for the report."""
    findings = diagnose(run)
    if not findings:
        return f"<p>{escape(headline(run))}; nothing found.</p>"
    items = "".join(
        f"<li><b>{escape(f.rule.replace('_', ' '))}</b>: {escape(f.evidence)}.<br>Likely: {escape(f.cause)}.<br>"
        f"Try <code>{escape(f.try_text())}</code></li>"
        for f in findings
    )
    return f"<p>{escape(headline(run))}</p><ol>{items}</ol>"
