"""The live progress display: a bar on a terminal, a line now and then elsewhere.

It draws only within the calls of :class:`ConsoleLogger`: no thread of its own disturbs the training.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from limelight.printable import printable
from limelight.runners.base import Budget
from limelight.viewing.history import History
from limelight.viewing.numbers import clock, decimal, with_spread

if TYPE_CHECKING:
    from limelight.algo.episodes import Episode

REDRAW_SECONDS = 0.2
LINE_SECONDS = 10.0
EPISODES_WINDOW = 100
ADVICE_SECONDS = 60.0
"""Seconds that a run takes at least before its last line is advice on where they went."""


class ConsoleLogger:
    """Shows steps, steps/s, mean return of the last 100 episodes, latest evaluation, elapsed and remaining time.

    On a terminal there are further lines once there is something to show: the return over the run and the best
    evaluation, where the time goes, the workers.
    While the run goes on, steps/s are of the last few drawings; at its end they are the mean of the whole run.

    Args:
        budget: of the whole run; or its environment steps.
        initial_step: environment steps already taken, for a resumed run.
        initial_episodes: episodes already finished, for a resumed run.
        quiet: show only messages, no progress.
        has_workers: the first steps wait for worker processes, and the display says so.
        episode_lines: print a line per finished episode, unless ``quiet``.
        advise: returns a line of advice for the shares of the time, if there is any to give.
        console: where to draw; standard error by default, so that a command's output stays clean.
    """

    def __init__(
        self,
        budget: Budget | int,
        initial_step: int = 0,
        initial_episodes: int = 0,
        *,
        quiet: bool = False,
        has_workers: bool = False,
        episode_lines: bool = False,
        advise: Callable[[Mapping[str, float]], str | None] = lambda shares: None,
        console: Console | None = None,
    ) -> None:
        self._console = console or Console(stderr=True)
        self._budget = Budget(budget) if isinstance(budget, int) else budget
        self._initial = initial_step
        self._step = initial_step
        self._episodes = initial_episodes
        self._initial_progress = self._budget.progress(initial_step, initial_episodes)
        self._episode_lines = episode_lines and not quiet
        self._seconds = 0.0
        self._start: tuple[float, int] | None = (0.0, 0) if initial_step == 0 else None
        self._has_workers = has_workers
        self._started = time.monotonic()
        self._returns: deque[float] = deque(maxlen=EPISODES_WINDOW)
        self._evaluation = "–"
        self._history = History()
        self._advise = advise
        self._worker_status = ""
        self._samples: deque[tuple[float, int]] = deque(maxlen=16)  # (seconds, step) of the latest drawings
        self._active = not quiet
        self._ended = False
        self._live = self._start_live() if self._active and self._console.is_interactive else None
        self._next_drawing = self._started + REDRAW_SECONDS if self._live else self._started

    def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Receive a row of metrics; an evaluation is shown at once."""
        if "async/policy_lag" in metrics:
            self._worker_status = _worker_status(metrics)
        self._history.add(metrics)
        if "eval/mean_reward" in metrics:
            self._evaluation = with_spread(metrics["eval/mean_reward"], metrics.get("eval/std_reward", 0.0))
            self._next_drawing = 0.0 if self._live else self._next_drawing
        self.tick(step, seconds)

    def episodes(self, step: int, seconds: float, episodes: Sequence[Episode]) -> None:
        """Receive finished episodes; each becomes a line, if the run asks for it."""
        if self._episode_lines:
            for episode in episodes:
                self._print_episode(episode)
        else:
            self._returns.extend(episode.episode_return for episode in episodes)
            self._episodes += len(episodes)
        self.tick(step, seconds)

    def _print_episode(self, episode: Episode) -> None:
        self._returns.append(episode.episode_return)
        self._episodes += 1
        self.message(
            f"episode {self._episodes}  worker {episode.worker}  environment {episode.env}  "
            f"return {decimal(episode.episode_return)}  length {episode.length}  "
            f"mean of {len(self._returns)} {self._mean_return()}"
        )

    def _mean_return(self) -> str:
        return decimal(sum(self._returns) / len(self._returns)) if self._returns else "–"

    def _progress(self) -> float:
        """Return the share of the budget that is used."""
        return self._budget.progress(self._step, self._episodes)

    def tick(self, step: int, seconds: float) -> None:
        """Receive the progress of the training; a call is cheap, and draws only when the next drawing is due."""
        self._step = step
        self._seconds = seconds
        self._start = self._start or (seconds, step)  # a resumed run begins with the seconds that it took before
        now = time.monotonic()
        is_idle = not self._live and self._progress() >= 1.0  # the last line comes with close()
        if now < self._next_drawing or not self._active or is_idle:
            return
        if step > self._start[1]:
            self._samples.append((seconds, step))
        if self._live:
            self._live.refresh()
        else:
            self._print_line()
        self._next_drawing = now + (REDRAW_SECONDS if self._live else LINE_SECONDS)

    def status(self, text: str) -> None:
        """Receive the line below the numbers."""
        self._worker_status = text

    def message(self, text: str) -> None:
        """Print a line, above the bar."""
        self._console.print(Text(printable(text)), soft_wrap=True)

    def close(self) -> None:
        """Draw the final state and give the terminal back."""
        if self._active:
            self._active = False
            self._ended = True
            if self._live:
                self._live.stop()
            else:
                self._print_line()
            is_long = self._history.seconds() >= ADVICE_SECONDS
            if is_long and (line := self._advise(self._history.time_shares())):
                self.message(line)

    def _start_live(self) -> Live:
        live = Live(
            console=self._console,
            get_renderable=self._render,
            auto_refresh=False,
            redirect_stdout=sys.stdout.isatty(),
        )
        live.start(refresh=True)
        return live

    def _speed(self) -> float | None:
        """Return steps per second of training: of the last drawings, or of the whole run once it has ended."""
        if self._start is None or self._step <= self._start[1]:
            return None
        is_recent = len(self._samples) == self._samples.maxlen and not self._ended
        first_seconds, first_step = self._samples[0] if is_recent else self._start
        seconds, step = self._seconds, self._step
        return (step - first_step) / (seconds - first_seconds) if seconds > first_seconds else None

    def _numbers(self) -> dict[str, str]:
        """Return every number as text, by its name on the screen."""
        elapsed = time.monotonic() - self._started
        progress = self._progress()
        done = progress - self._initial_progress
        left = elapsed * max(0.0, 1.0 - progress) / done if done > 0 else None
        speed = self._speed()
        budget = self._budget
        steps = f"{self._step:,}/{budget.timesteps:,}" if budget.has_step_limit else f"{self._step:,}"
        return {
            "percent": f"{min(1.0, progress):4.0%}",
            "steps": f"{steps} steps",
            "episodes": "" if budget.episodes is None else f"{self._episodes:,}/{budget.episodes:,} episodes  ",
            "speed": f"{speed:,.0f}" if speed is not None else "–",
            "return": self._mean_return(),
            "eval": self._evaluation,
            "elapsed": clock(elapsed),
            "left": "–" if left is None else clock(left),
        }

    def _is_starting(self) -> bool:
        return self._has_workers and self._step <= self._initial and not self._ended

    def _render(self) -> Group:
        """Return the bar, the numbers under it, and the workers on a line of their own: 80 columns are enough."""
        n = self._numbers()
        bar = Table.grid(expand=True, padding=(0, 1))
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        times = Text.assemble((n["percent"], "bold"), f"  {n['elapsed']} elapsed  {n['left']} left")
        bar.add_row(ProgressBar(total=1.0, completed=self._progress()), times)
        numbers = Text.assemble(
            (n["episodes"], "cyan"), (n["steps"], "cyan"), "  ", (n["speed"], "cyan"), " steps/s  return ",
            (n["return"], "bold green"), "  eval ", (n["eval"], "bold magenta"),
            no_wrap=True, overflow="ellipsis",
        )  # fmt: skip
        status = "starting workers" if self._is_starting() else self._worker_status
        time_line = self._history.time_line()
        curve = self._history.returns_line(self._console.width, self._console.encoding)
        others = [curve, Text(f"time  {time_line}" if time_line else ""), Text(status)]
        for line in others:
            line.no_wrap, line.overflow = True, "ellipsis"
        return Group(bar, numbers, *(line for line in others if line))

    def _print_line(self) -> None:
        n = self._numbers()
        progress = f"{n['speed']} steps/s  return {n['return']}  eval {n['eval']}"
        times = f"{n['elapsed']} elapsed  {n['left']} left"
        status = "starting workers" if self._is_starting() else progress
        text = f"{n['percent']}  {n['episodes']}{n['steps']}  {status}  {times}"
        further = (self._history.time_line(), self._worker_status)
        text += "".join(f"  {line}" for line in further if line)
        self._console.print(Text(text), soft_wrap=True)


def _worker_status(metrics: Mapping[str, float]) -> str:
    """Return ``policy lag 1.8 (max 7)``, with the number of restarts and of skipped updates if there were any."""
    text = f"policy lag {metrics['async/policy_lag']:.1f} (max {metrics['async/policy_lag_max']:.0f})"
    for name, noun in (("async/worker_restarts", "worker restarts"), ("async/skipped_updates", "skipped updates")):
        if metrics[name] > 0:
            text += f"  {noun} {metrics[name]:,.0f}"
    return text
