"""Rules about episodes: whether they end, how, and what they pay."""

from __future__ import annotations

import numpy as np

from limelight.viewing.collapse import FIRST_EPISODES
from limelight.viewing.explain.evidence import Evidence, Finding, larger_steps, more_entropy, short, span, times
from limelight.viewing.smoothing import WINDOW

MOST_STEPS = 5_000
"""Steps of an environment after which an episode should have ended."""
LEAST_EPISODES = 50
"""Episodes from which their returns say something together."""
RARE = 0.01
"""Share of episodes with a reward below which it is rare."""
NEVER_TERMINATE = frozenset({"Pendulum", "HalfCheetah", "Swimmer", "Reacher", "Pusher", "HumanoidStandup"})
"""Gymnasium's environments, without their version, whose episodes have no end but the time limit."""
RISING = 0.2
"""Share of the whole rise that the last fifth of a run must add to be called rising."""


def no_episode_ended(run: Evidence) -> Finding | None:
    """No episode has ended in a fifth of the budget, or in many steps of each environment."""
    steps = run.last_step // run.num_envs
    if len(run.returns) or (steps < MOST_STEPS and run.progress < 0.2) or not run.last_step:
        return None
    limit = max(10, int(times(steps, 0.1)))
    return Finding(
        "no_episode_ended",
        f"0 episodes in {run.last_step:,} steps, {steps:,} in each of {run.num_envs} environments",
        "the environment neither terminates nor has a time limit, or its limit is longer than the run so far",
        "max_episode_steps",
        limit,
    )


def returns_equal(run: Evidence) -> Finding | None:
    """All episodes have the same return."""
    returns = run.returns
    if len(returns) < LEAST_EPISODES or np.ptp(returns) > 1e-9 * max(1.0, float(np.abs(returns).max())):
        return None
    return Finding(
        "returns_equal",
        f"all {len(returns):,} returns are {short(float(returns[0]))} {span(run.run.episodes.steps)}",
        "exploration never finds anything that pays differently, or the reward does not depend on the actions",
        *more_entropy(run),
    )


def reward_rare(run: Evidence) -> Finding | None:
    """Fewer than one episode in a hundred has another return than the least."""
    returns = run.returns
    if len(returns) < LEAST_EPISODES:
        return None
    worst = float(returns.min())
    share = float(np.mean(returns > worst + 1e-9 * max(1.0, abs(worst))))
    if not 0.0 < share < RARE:
        return None
    return Finding(
        "reward_rare",
        f"{share:.2%} of {len(returns):,} episodes returned more than {short(worst)}",
        "the reward is too rare to learn from: chance alone finds it",
        *more_entropy(run),
    )


def all_truncated(run: Evidence) -> Finding | None:
    """Every episode ends at the time limit, where it may end otherwise, and the return has not risen."""
    steps, shares = run.values("rollout/truncated_share")
    if not len(shares) or shares.min() < 1.0 or not run.has_not_risen:
        return None
    if run.config.env.env_id.rpartition("-")[0] in NEVER_TERMINATE:
        return None
    lengths, values = run.values("rollout/ep_len_mean")[1], run.values("train/value_mean")[1]
    length = int(lengths[-1]) if len(lengths) else 1
    value = f", V {short(float(values[-1]))} where the next step is bootstrapped" if len(values) else ""
    return Finding(
        "all_truncated",
        f"100% of the episodes {span(steps)} were cut after {length:,} steps{value}; {run.flat_text()}",
        "the goal is not reached within the time limit, so no episode shows how it ends; "
        "where the task has no goal, this is as it should be",
        "max_episode_steps",
        2 * max(1, length),
    )


def greedy_far(run: Evidence) -> Finding | None:
    """Greedy evaluations are far from the sampled returns of training, to the end."""
    steps, greedy = run.values("eval/mean_reward", after=0.6)
    if run.setting("eval_stochastic") or len(greedy) < 3 or len(run.returns) < LEAST_EPISODES:
        return None
    ends = np.searchsorted(run.run.episodes.steps, steps, side="right")
    sampled = np.array([run.returns[max(0, end - WINDOW // 4) : max(1, end)].mean() for end in ends])
    first, gap = run.returns[:FIRST_EPISODES], float(np.median(greedy - sampled))
    scale = max(abs(float(np.median(each)) - first.mean()) for each in (greedy, sampled))
    is_steady = bool((np.sign(greedy - sampled) == np.sign(gap)).all())
    if scale <= 2.0 * float(first.std()) or abs(gap) < 0.5 * scale or not is_steady:
        return None
    text = f"greedy {short(float(np.median(greedy)))}, sampled {short(float(np.median(sampled)))} {span(steps)}"
    if gap < 0.0:
        cause = "the policy relies on chance: its most probable action alone gets stuck"
        return Finding("greedy_far", text, cause, "eval_stochastic", True)
    bonus = run.setting("ent_coef")
    if run.progress < 1.0 or not bonus or sampled[-1] - sampled[0] > 0.1 * scale:  # exploration still pays
        return None
    cause = "exploration costs much of the return to the end"
    return Finding("greedy_far", text, cause, "ent_coef", times(bonus, 0.1))


def best_lost(run: Evidence) -> Finding | None:
    """The return fell far below its best and did not come back."""
    found = run.collapses.get("best")
    if found is None or not found.lasts:
        return None
    _, means = run.values("rollout/ep_rew_mean")
    steps = run.values("rollout/ep_rew_mean")[0]
    best = f"; the best mean of {WINDOW} episodes was at step {steps[np.argmax(means)]:,.0f}" if len(means) else ""
    return Finding(
        "best_lost",
        f"{found.notice.evidence} at step {found.step:,}{best}",
        "steps are too large for the policy that was found",
        *found.notice.remedies[0],
    )


def still_rising(run: Evidence) -> Finding | None:
    """The last fifth of a finished run adds much to its rise, and its evaluations have not reached their target."""
    episodes, summary = run.run.episodes, run.run.summary
    if summary.get("status") != "completed" or len(run.returns) < 2 * LEAST_EPISODES:
        return None
    if summary.get("solved_at_step") is not None:  # sampled returns rise for longer than those that are evaluated
        return None
    fifths = [run.returns[(episodes.steps > i * run.last_step / 5) & (episodes.steps <= (i + 1) * run.last_step / 5)]
              for i in range(5)]  # fmt: skip
    if min(map(len, fifths)) < 5:
        return None
    means = [float(fifth.mean()) for fifth in fifths]
    rise, error = means[4] - means[0], 2.0 * sum(float(f.std()) / len(f) ** 0.5 for f in fifths[3:])
    # Judged by the second half of the last fifth: an average of a curve that has just levelled off still rises
    half = len(fifths[4]) // 2
    late = float(fifths[4][half:].mean() - fifths[4][:half].mean())
    if rise <= 0.0 or means[4] - means[3] < max(RISING * rise, error) or late < 0.25 * RISING * rise:
        return None
    by_episodes = run.setting("total_episodes") is not None
    budget = "total_episodes" if by_episodes else "total_timesteps"
    return Finding(
        "still_rising",
        f"mean return {short(means[3])} in the fourth fifth of the run, {short(means[4])} in the last",
        "the run ended before the curve levelled off",
        budget,
        2 * run.setting(budget),
    )


def return_flat(run: Evidence) -> Finding | None:
    """Half of the budget is used and the return has not risen."""
    if run.progress < 0.5 or not run.has_not_risen:
        return None
    return Finding(
        "return_flat",
        f"{run.flat_text()}; {len(run.returns):,} episodes, {run.last_step:,} steps",
        "no other rule applies: steps may be too small, the run too short, or the observation may lack what it takes",
        *larger_steps(run),
    )
