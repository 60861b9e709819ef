"""Rules about updates: exploration, the critic, gradients, actions and filters."""

from __future__ import annotations

import numpy as np

from limelight.viewing.collapse import ENTROPY, LEAST_VALUE, remedies
from limelight.viewing.explain.evidence import Evidence, Finding, larger_steps, more_entropy, short, span, times

LEAST_ROWS = 5
"""Rows of metrics from which their median says something."""
NEAR_MAXIMUM = 0.98
GRADS_CLIPPED, ACTIONS_CLIPPED, DEAD_FILTERS = 0.9, 0.3, 0.5
BEYOND_BOUND = 100.0
"""Multiple of ``max_grad_norm`` from which clipped gradients say something: many healthy runs clip most of them."""
USELESS = 0.6
"""Share of rows with an explained variance of at most 0 from which the critic is called useless."""


def entropy_high(run: Evidence) -> Finding | None:
    """After a fifth of the budget the entropy of discrete actions is near its maximum, and the return is flat."""
    series = run.run.series(ENTROPY)
    late = np.isfinite(series.values) & (series.steps * run.progress >= 0.2 * run.last_step)
    steps, shares = series.steps[late], series.values[late]
    if len(shares) < LEAST_ROWS or np.median(shares) < NEAR_MAXIMUM or not run.has_not_risen:
        return None
    bonus = run.setting("ent_coef")
    text = f"entropy {np.median(shares):.1%} of the greatest {span(steps)}; {run.flat_text()}"
    if bonus >= 0.02:
        return Finding("entropy_high", text, "the entropy bonus outweighs the return", "ent_coef", times(bonus, 0.1))
    cause = "the policy hardly moves: steps or advantages are small"
    return Finding("entropy_high", text, cause, *larger_steps(run))


def entropy_gone(run: Evidence) -> Finding | None:
    """Exploration was gone before the return rose."""
    found = run.collapses.get("entropy")
    if found is None or not (found.lasts or run.has_not_risen):
        return None
    return Finding(
        "entropy_gone",
        f"{found.notice.evidence} at step {found.step:,}",
        "the policy committed itself before it had seen anything better: steps too large, or too little exploration",
        *found.notice.remedies[0],
    )


def critic_useless(run: Evidence) -> Finding | None:
    """The explained variance is at or below 0 for most of the run, and the return is flat."""
    steps, values = run.values("train/explained_variance", after=0.1)
    if len(values) < 2 * LEAST_ROWS or np.mean(values <= 0.0) <= USELESS or not run.has_not_risen:
        return None
    setting, value = ("critic", "separate") if run.setting("critic") == "shared" else ("vf_coef", 1.0)
    return Finding(
        "critic_useless",
        f"explained variance ≤ 0 in {np.mean(values <= 0.0):.0%} of the rows {span(steps)}; {run.flat_text()}",
        "the critic predicts no better than a constant, so advantages are noise",
        setting,
        value,
    )


def critic_right_and_flat(run: Evidence) -> Finding | None:
    """The explained variance is near 1 while the return is flat."""
    steps, values = run.values("train/explained_variance", after=0.5)
    if len(values) < LEAST_ROWS or np.median(values) < 0.95 or not run.has_not_risen:
        return None
    spread = run.values("train/advantage_std", after=0.5)[1]
    text = f", advantages of deviation {short(float(np.median(spread)))}" if len(spread) else ""
    batch = run.setting("normalize_advantages") == "batch"
    setting, value = more_entropy(run) if batch else ("normalize_advantages", "batch")
    return Finding(
        "critic_right_and_flat",
        f"explained variance {np.median(values):.2f}{text} {span(steps)}; {run.flat_text()}",
        "the critic knows what the policy will get, and little is left to learn from: the policy explores too little",
        setting,
        value,
    )


def gradients_clipped(run: Evidence) -> Finding | None:
    """Nearly every gradient is clipped, and by much, and the return is flat."""
    steps, shares = run.values("train/grads_clipped")
    if len(shares) < LEAST_ROWS or np.median(shares) <= GRADS_CLIPPED or not run.has_not_risen:
        return None
    norm = float(np.median(run.values("train/grad_norm")[1]))
    if norm <= BEYOND_BOUND * run.setting("max_grad_norm"):
        return None
    scaled = run.setting("normalize_rewards")
    setting, value = ("max_grad_norm", times(norm, 1.0)) if scaled else ("normalize_rewards", True)
    return Finding(
        "gradients_clipped",
        f"{np.median(shares):.0%} of the gradients were clipped {span(steps)}: median norm {short(norm)}, "
        f"max_grad_norm {run.setting('max_grad_norm'):g}; {run.flat_text()}",
        "rewards are so large that the error of the values drowns the policy's gradient",
        setting,
        value,
    )


def values_diverge(run: Evidence) -> Finding | None:
    """The mean value is beyond any discounted return that the rewards allow."""
    found = run.collapses.get("values")
    if found is None or not (found.lasts or run.has_not_risen):
        return None
    return Finding(
        "values_diverge",
        f"{found.notice.evidence} at step {found.step:,}",
        "the critic runs away from its targets: its steps are too large",
        *found.notice.remedies[0],
    )


def values_above_returns(run: Evidence) -> Finding | None:
    """The mean value is far above any return that was seen, though episodes end by termination."""
    in_units = not run.setting("normalize_rewards") and run.setting("reward_clip") is None
    truncated = run.values("rollout/truncated_share", after=0.5)[1]
    steps, values = run.values("train/value_mean", after=0.5)
    if not in_units or len(values) < 3 or not len(truncated) or np.median(truncated) > 0.1 or not len(run.returns):
        return None
    most = float(run.returns.max()) * run.setting("reward_scale")
    value = float(np.median(values))
    if value <= max(LEAST_VALUE, 3.0 * abs(most)):
        return None
    return Finding(
        "values_above_returns",
        f"mean V {short(value)} {span(steps)}, the largest return is {short(most)} in the learner's units",
        "the critic overestimates: it bootstraps from its own errors",
        *remedies("values", run.config)[0],
    )


def actions_clipped(run: Evidence) -> Finding | None:
    """Many sampled actions lie beyond the bounds, and the return is flat."""
    steps, shares = run.values("train/actions_clipped", after=0.5)
    if len(shares) < LEAST_ROWS or np.median(shares) <= ACTIONS_CLIPPED or not run.has_not_risen:
        return None
    smaller = max(-5.0, run.setting("log_std_init") - 1.0)
    return Finding(
        "actions_clipped",
        f"{np.median(shares):.0%} of the actions were clipped {span(steps)}; {run.flat_text()}",
        "sampled actions beyond the bounds all act alike, so the policy does not feel a change of its mean",
        "log_std_init",
        smaller,
    )


def dead_filters(run: Evidence) -> Finding | None:
    """Most filters of the convolutions give 0 everywhere."""
    steps, shares = run.values("train/dead_filters", after=0.5)
    if len(shares) < 3 or np.median(shares) <= DEAD_FILTERS:
        return None
    text = f"{np.median(shares):.0%} of the filters gave 0 everywhere {span(steps)}"
    if not run.setting("normalize_obs"):
        return Finding("dead_filters", text, "images far from mean 0 push filters below 0", "normalize_obs", True)
    slower = times(run.setting("learning_rate"), 0.5)
    return Finding("dead_filters", text, "too large steps pushed filters below 0 for good", "learning_rate", slower)
