"""The live progress display: a bar on a terminal, now and then a line elsewhere. Made by train.py.

It draws only from within :class:`ConsoleLogger`'s own calls: no thread of its own disturbs the training.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from limelight.algo.episodes import Episode

REDRAW_SECONDS = 0.2
LINE_SECONDS = 10.0
EPISODES_WINDOW = 100


class ConsoleLogger:
    """Shows steps, steps/s, mean return of the last 100 episodes, latest evaluation, elapsed and remaining.

    Args:
        total_timesteps: environment steps of the whole run.
        initial_step: environment steps already taken, for a resumed run.
        quiet: only messages, no progress.
        console: where to; standard error by default, so that a command's output stays clean.
    """

    def __init__(
        self,
        total_timesteps: int,
        initial_step: int = 0,
        *,
        quiet: bool = False,
        console: Console | None = None,
    ) -> None:
        self._console = console or Console(stderr=True)
        self._total, self._initial, self._step = total_timesteps, initial_step, initial_step
        self._started = time.monotonic()
        self._returns: deque[float] = deque(maxlen=EPISODES_WINDOW)
        self._evaluation = "–"
        self._workers = ""
        self._samples: deque[tuple[float, int]] = deque(maxlen=16)  # (seconds, step) of the latest drawings
        if initial_step == 0:
            self._samples.append((0.0, 0))
        self._active = not quiet
        self._next_drawing = self._started + REDRAW_SECONDS
        self._live = self._start_live() if self._active and self._console.is_interactive else None
        if self._active and not self._live:
            self._print_line()

    def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Take in a row; an evaluation is shown at once."""
        if "async/policy_lag" in metrics:
            self._workers = _workers(metrics)
        if "eval/mean_reward" in metrics:
            self._evaluation = f"{metrics['eval/mean_reward']:,.1f} ± {metrics.get('eval/std_reward', 0.0):,.1f}"
            self._next_drawing = 0.0 if self._live else self._next_drawing
        self.tick(step, seconds)

    def episodes(self, step: int, seconds: float, episodes: Sequence[Episode]) -> None:
        """Take in finished episodes."""
        self._returns.extend(episode.episode_return for episode in episodes)
        self.tick(step, seconds)

    def tick(self, step: int, seconds: float) -> None:
        """Take in how far the training is; cheap, so the more often the livelier."""
        self._step = step
        now = time.monotonic()
        if now < self._next_drawing or not self._active:
            return
        self._samples.append((seconds, step))
        if self._live:
            self._live.refresh()
        else:
            self._print_line()
        self._next_drawing = now + (REDRAW_SECONDS if self._live else LINE_SECONDS)

    def message(self, text: str) -> None:
        """Print a line, above the bar."""
        self._console.print(Text(text), soft_wrap=True)

    def close(self) -> None:
        """Draw the final state and give the terminal back."""
        if self._active:
            self._active = False
            if self._live:
                self._live.stop()
            else:
                self._print_line()

    def _start_live(self) -> Live:
        live = Live(
            console=self._console,
            get_renderable=self._picture,
            auto_refresh=False,
            redirect_stdout=sys.stdout.isatty(),
        )
        live.start(refresh=True)
        return live

    def _numbers(self) -> dict[str, str]:
        """Every number as text, by what it is called on the screen."""
        elapsed, done = time.monotonic() - self._started, self._step - self._initial
        left = elapsed * max(0, self._total - self._step) / done if done else None
        speed = None
        if len(self._samples) > 1:
            (first_seconds, first_step), (seconds, step) = self._samples[0], self._samples[-1]
            speed = (step - first_step) / max(1e-9, seconds - first_seconds)
        return {
            "percent": f"{min(1.0, self._step / self._total):4.0%}",
            "steps": f"{self._step:,}/{self._total:,}",
            "speed": f"{speed:,.0f}" if speed is not None else "–",
            "return": f"{sum(self._returns) / len(self._returns):,.1f}" if self._returns else "–",
            "eval": self._evaluation,
            "elapsed": _clock(elapsed),
            "left": "–" if left is None else _clock(left),
        }

    def _picture(self) -> Group:
        """The bar, and the numbers under it, workers on a line of their own: 80 columns are enough."""
        n = self._numbers()
        bar = Table.grid(expand=True, padding=(0, 1))
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        times = Text.assemble((n["percent"], "bold"), f"  {n['elapsed']} elapsed  {n['left']} left")
        bar.add_row(ProgressBar(total=self._total, completed=self._step), times)
        numbers = Text.assemble(
            (n["steps"], "cyan"), " steps  ", (n["speed"], "cyan"), " steps/s  return ",
            (n["return"], "bold green"), "  eval ", (n["eval"], "bold magenta"),
            no_wrap=True, overflow="ellipsis",
        )  # fmt: skip
        return Group(bar, numbers, *([Text(self._workers, no_wrap=True, overflow="ellipsis")] if self._workers else []))

    def _print_line(self) -> None:
        n = self._numbers()
        text = (
            f"{n['percent']}  {n['steps']} steps  {n['speed']} steps/s  return {n['return']}"
            f"  eval {n['eval']}  {n['elapsed']} elapsed  {n['left']} left"
        )
        text += f"  {self._workers}" if self._workers else ""
        self._console.print(Text(text), soft_wrap=True)


def _workers(metrics: Mapping[str, float]) -> str:
    """How an asynchronous run fares: ``policy lag 1.8 (max 7)``, and what went wrong if anything did."""
    text = f"policy lag {metrics['async/policy_lag']:.1f} (max {metrics['async/policy_lag_max']:.0f})"
    for name, what in (("async/worker_restarts", "worker restarts"), ("async/skipped_updates", "skipped updates")):
        if metrics[name] > 0:
            text += f"  {what} {metrics[name]:,.0f}"
    return text


def _clock(seconds: float) -> str:
    """``0:07``, ``12:30``, ``3:02:10``."""
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{secs:02}" if hours else f"{minutes}:{secs:02}"
