"""Callbacks for tests, by name and by object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Recorder:
    """Writes down the events of a run; ends it at the ``stop``-th event of the name ``at``."""

    def __init__(self, at: str = "", stop: int = 1) -> None:
        self.at = at
        self.stop = stop
        self.events: list[str] = []
        self.steps: list[int] = []

    def _note(self, event: str, run: Any) -> bool:
        self.events.append(event)
        self.steps.append(run.step)
        return self.events.count(self.at) < self.stop

    def on_start(self, run: Any) -> bool:
        return self._note("start", run)

    def on_rollout(self, run: Any) -> bool:
        return self._note("rollout", run)

    def on_episodes(self, run: Any, episodes: Sequence[Any]) -> bool:
        assert episodes
        return self._note("episodes", run)

    def on_evaluation(self, run: Any, evaluation: Any) -> bool:
        assert evaluation.episodes
        return self._note("evaluation", run)

    def on_best(self, run: Any, evaluation: Any) -> bool:
        return self._note("best", run)

    def on_checkpoint(self, run: Any, folder: Path) -> bool:
        assert folder.is_dir()
        return self._note("checkpoint", run)

    def on_end(self, run: Any, status: str) -> None:
        self._note(f"end {status}", run)

    def get_state(self) -> dict[str, Any]:
        return {"events": self.events, "steps": self.steps}

    def set_state(self, state: dict[str, Any]) -> None:
        self.events, self.steps = list(state["events"]), list(state["steps"])


class Levels:
    """Changes and calls the environments, and keeps the results."""

    def __init__(self, level: float = 2.0) -> None:
        self.level = level
        self.results: list[Any] = []

    def on_start(self, run: Any) -> None:
        run.set_env_attr("level", self.level)
        self.results = run.call_env("raise_level", by=1.0)


class Misspelt:
    def on_rollouts(self, run: Any) -> None:
        """Is never called."""


class Fails:
    def __init__(self, at: int = 2) -> None:
        self.left = at

    def on_rollout(self, run: Any) -> None:
        self.left -= 1
        if self.left == 0:
            raise ZeroDivisionError("by zero")


class Once:
    """Sets the level of the environments and the step size at the first rollout from a step on, once over resumes."""

    def __init__(self, level: float = 2.0, at: int = 0, learning_rate: float = 1e-4) -> None:
        self.level = level
        self.at = at
        self.learning_rate = learning_rate
        self.done = False

    def on_rollout(self, run: Any) -> None:
        if run.step >= self.at and not self.done:
            self.done = True
            run.set_env_attr("level", self.level)
            run.change_setting("learning_rate", self.learning_rate)

    def get_state(self) -> dict[str, Any]:
        return {"done": self.done}

    def set_state(self, state: dict[str, Any]) -> None:
        self.done = state["done"]
