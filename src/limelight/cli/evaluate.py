"""``limelight evaluate`` with ``--full`` or ``--inspect``: greedy and sampled side by side, and single episodes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from limelight.cli.arguments import EvaluateArguments
    from limelight.runs.agent import Agent
    from limelight.runs.full_evaluation import TracedEvaluation

DEFAULT_EPISODES = 100


def evaluate_in_full(arguments: EvaluateArguments, agent: Agent, which: str) -> list[str]:
    """Evaluate as asked for; return the lines to print, one of JSON with ``--json``.

    Args:
        arguments: of the command line.
        agent: to evaluate.
        which: it is, in words.
    """
    from limelight.cli.arguments import evaluation_env
    from limelight.runs import env_numbers
    from limelight.runs.agent import folder_of_files
    from limelight.runs.folder import as_json
    from limelight.runs.full_evaluation import evaluate_in_full as evaluate_both
    from limelight.runs.full_evaluation import trace
    from limelight.viewing import evaluations as view

    env = evaluation_env(arguments, agent)
    options: dict[str, Any] = {"episodes": arguments.episodes or DEFAULT_EPISODES, "seed": arguments.seed}
    options["with_values"] = arguments.inspect is not None
    title = f"{arguments.env_id or agent.config.env.env_id} · {which} agent of {arguments.run_dir}"
    if arguments.full:
        full = evaluate_both(agent, env, **options)
        traced = full.sampled if arguments.stochastic else full.greedy
        found, lines = full.to_json(), [title, *view.comparison(full)]
    else:
        traced = trace(agent, env, deterministic=not arguments.stochastic, **options)
        found, lines = traced.to_json(), [f"{title}: {_in_short(traced)}"]
        numbers = env_numbers.describe(traced.evaluation.env, traced.evaluation.episodes)
        lines += [numbers] if numbers else []
    if arguments.inspect is not None:
        stem = f"{arguments.which}-{'sampled' if arguments.stochastic else 'greedy'}-seed{arguments.seed}"
        folder = folder_of_files(arguments.run_dir)
        if arguments.inspect == "table":
            paths, more = view.write_tables(traced, agent, folder, stem)
        else:
            paths, more = view.write_videos(traced, agent, folder, stem, env)
        lines += more
        found = {**found, "inspected": view.rows_as_json(traced, agent), "files": [str(path) for path in paths]}
    return [json.dumps(as_json(found), allow_nan=False)] if arguments.json else lines


def _in_short(traced: TracedEvaluation) -> str:
    from limelight.runs.statistics import mean_interval
    from limelight.viewing.numbers import compact

    played = traced.evaluation
    low, high = (compact(end) for end in mean_interval(played.returns))
    return f"mean {compact(played.mean_return)} over {played.episodes} episodes, 95 % interval {low} to {high}"
