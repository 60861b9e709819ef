"""The progress display, drawn into a buffer with a simulated clock."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import pytest
from rich.console import Console

from limelight.algo.episodes import Episode
from limelight.runners.base import Budget
from limelight.runners.time_shares import KINDS
from limelight.settings.schema import NO_STEP_BUDGET
from limelight.viewing import console as module
from limelight.viewing.console import ConsoleLogger


class Clock:
    """Stands for ``time.monotonic``."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def plain_console() -> Console:
    return Console(file=io.StringIO(), width=80)


def terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=True, force_interactive=True, color_system=None)


def output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def finished(*returns: float) -> list[Episode]:
    return [Episode(0, r, 10, True) for r in returns]


ASYNC = {
    "async/policy_lag": 1.75, "async/policy_lag_max": 7, "async/worker_restarts": 0, "async/skipped_updates": 0,
    "async/worker_0/steps_per_second": 900.0, "async/worker_0/updates_per_second": 14.0,
}  # fmt: skip
EVALUATION = {"eval/mean_reward": 475.25, "eval/std_reward": 3.21}


def test_plain_lines_now_and_then(clock: Clock) -> None:
    console = plain_console()
    logger = ConsoleLogger(100_000, console=console)
    logger.message("preset classic")
    logger.tick(0, 0.0)
    assert output(console).splitlines() == [  # the messages on the choices of the run come first
        "preset classic",
        "  0%  0/100,000 steps  – steps/s  return –  eval –  0:00 elapsed  – left",
    ]
    clock.now += 10
    logger.episodes(20_000, 2.0, finished(10, 20))
    lines = output(console).splitlines()
    assert lines[2:] == [" 20%  20,000/100,000 steps  10,000 steps/s  return 15.0  eval –  0:10 elapsed  0:40 left"]
    for _ in range(9):  # for ten seconds nothing more, however much arrives
        clock.now += 1
        logger.log(21_000, 2.5, EVALUATION)
    assert len(output(console).splitlines()) == 3
    clock.now += 1
    logger.log(50_000, 5.0, {"train/entropy": 0.1})
    assert output(console).splitlines()[3] == (
        " 50%  50,000/100,000 steps  10,000 steps/s  return 15.0  eval 475.2 ± 3.2  0:20 elapsed  0:20 left"
    )
    logger.message("a [bold]message[/bold]")
    logger.close()
    logger.close()
    lines = output(console).splitlines()
    assert lines[4] == "a [bold]message[/bold]"
    assert lines[5].startswith(" 50%  50,000/100,000 steps")
    assert len(lines) == 6
    assert "\x1b" not in output(console)


def test_the_last_line_has_the_mean_speed_of_the_whole_run(clock: Clock) -> None:
    """Not the speed of the last few drawings, nor the 0 of those before workers had started."""
    console = plain_console()
    logger = ConsoleLogger(100_000, has_workers=True, console=console)
    for _ in range(3):
        logger.tick(0, 0.0)
        clock.now += 10
    assert [" steps  starting workers  0:" in line for line in output(console).splitlines()] == [True] * 3
    logger.tick(30_000, 1.0)
    assert "30,000 steps/s" in output(console).splitlines()[-1]
    for second in range(2, 40):
        clock.now += 10
        logger.tick(30_000 + 1_000 * second, float(second))
    recent = output(console).splitlines()[-1]
    assert "1,000 steps/s" in recent
    logger.tick(100_000, 50.0)
    logger.close()
    assert " 2,000 steps/s" in output(console).splitlines()[-1]


def test_a_short_run_beside_workers_ends_with_its_speed(clock: Clock) -> None:
    console = plain_console()
    logger = ConsoleLogger(1_000, has_workers=True, console=console)
    logger.tick(0, 0.0)
    clock.now += 4
    logger.tick(1_000, 0.5)
    logger.close()
    lines = output(console).splitlines()
    assert lines[-1] == "100%  1,000/1,000 steps  2,000 steps/s  return –  eval –  0:04 elapsed  0:00 left"
    assert len(lines) == 2


def test_a_run_that_ends_before_its_workers_have_started_is_not_said_to_be_starting(clock: Clock) -> None:
    console = plain_console()
    logger = ConsoleLogger(1_000, has_workers=True, console=console)
    logger.tick(0, 0.0)
    logger.close()
    assert output(console).splitlines()[-1].startswith("  0%  0/1,000 steps  – steps/s  return –")


def test_a_terminal_says_that_workers_are_starting(clock: Clock) -> None:
    console = terminal()
    logger = ConsoleLogger(1_000, has_workers=True, console=console)
    assert "starting workers" in output(console)
    start = len(output(console))
    clock.now += 1
    logger.tick(100, 0.1)
    assert "starting workers" not in output(console)[start:]
    logger.close()


def test_small_returns_are_shown_with_their_digits(clock: Clock) -> None:
    """MiniGrid's are below 1: 0.961 ± 0.012 is not 1.0 ± 0.0."""
    console = plain_console()
    logger = ConsoleLogger(1000, console=console)
    logger.episodes(10, 0.1, finished(0.95, 0.97))
    logger.log(10, 0.1, {"eval/mean_reward": 0.961, "eval/std_reward": 0.012})
    logger.close()
    assert "return 0.96  eval 0.961 ± 0.012" in output(console)


def test_return_is_the_mean_of_the_last_hundred_episodes(clock: Clock) -> None:
    console = plain_console()
    logger = ConsoleLogger(1000, console=console)
    logger.episodes(10, 0.1, finished(*[0.0] * 50))
    logger.episodes(20, 0.2, finished(*[30.0] * 100))
    logger.close()
    assert "return 30.0" in output(console).splitlines()[-1]


def test_a_resumed_run_counts_from_where_it_was(clock: Clock) -> None:
    console = plain_console()
    logger = ConsoleLogger(100_000, initial_step=60_000, console=console)
    logger.tick(60_000, 30.0)
    assert output(console).startswith(" 60%  60,000/100,000 steps  – steps/s")
    clock.now += 10
    logger.log(70_000, 31.0, {})
    assert "70%  70,000/100,000 steps  10,000 steps/s  return –  eval –  0:10 elapsed  0:30 left" in output(console)
    clock.now += 10
    logger.log(80_000, 33.0, {})
    logger.close()
    assert "80,000/100,000 steps  6,667 steps/s" in output(console).splitlines()[-1]


def test_steps_beyond_the_budget_count_as_all_of_it(clock: Clock) -> None:
    console = plain_console()
    logger = ConsoleLogger(1000, console=console)
    clock.now += 5000
    logger.log(1024, 5000.0, {})
    logger.close()
    assert "100%  1,024/1,000 steps" in output(console)
    assert "1:23:20 elapsed  0:00 left" in output(console)


def test_the_bar_is_there_before_the_first_step_and_redraws_a_few_times_a_second(clock: Clock) -> None:
    console = terminal()
    threads = threading.active_count()
    logger = ConsoleLogger(100_000, console=console)
    assert "0/100,000 steps" in output(console)
    drawn = len(output(console))
    for step in range(1, 100):
        logger.episodes(step, step / 1000, finished(1.0))
    assert len(output(console)) == drawn
    logger.tick(5000, 0.1)
    assert len(output(console)) == drawn
    clock.now += 0.25
    logger.tick(5000, 0.5)
    assert " 5,000/100,000 steps" in output(console).replace("\n", " ")
    clock.now += 0.25
    logger.episodes(10_000, 1.0, finished(1.0))
    assert "10%  0:00 elapsed  0:04 left" in output(console)
    assert "10,000/100,000 steps  10,000 steps/s  return 1.0  eval –" in output(console)
    logger.log(10_001, 1.0, EVALUATION)  # an evaluation does not wait
    assert "eval 475.2 ± 3.2" in output(console)
    assert threading.active_count() == threads
    logger.message("saved")
    assert "saved\n" in output(console)
    logger.close()
    drawn = len(output(console))
    logger.log(20_000, 2.0, EVALUATION)
    logger.close()
    assert len(output(console)) == drawn
    assert output(console).endswith("\x1b[?25h")  # the cursor is back


def test_it_fits_a_terminal_of_eighty_columns(clock: Clock) -> None:
    console = terminal(80)
    logger = ConsoleLogger(10_000_000, console=console)
    clock.now += 20_000
    logger.episodes(9_999_000, 19_000.0, finished(-234.5))
    start = len(output(console))
    logger.log(9_999_000, 19_000.0, {"eval/mean_reward": -1234.5, "eval/std_reward": 123.4})
    lines = output(console)[start:].split("\x1b[2K")[-1].splitlines()
    assert len(lines) == 2
    assert all(len(line) <= 80 for line in lines)
    assert "–" not in lines[1]
    assert "eval -1,234.5 ± 123.4" in lines[1]
    logger.close()


def test_a_plain_line_has_the_policy_lag_and_failures_of_workers(clock: Clock) -> None:
    console = plain_console()
    logger = ConsoleLogger(1000, console=console)
    clock.now += 10
    logger.log(100, 1.0, {"train/entropy": 0.5, **ASYNC})
    assert output(console).splitlines()[-1].endswith(" left  policy lag 1.8 (max 7)")
    logger.log(200, 2.0, {**ASYNC, "async/worker_restarts": 2, "async/skipped_updates": 1_203})
    logger.log(200, 2.0, EVALUATION)  # a row without workers does not change their numbers
    logger.close()
    last = output(console).splitlines()[-1]
    assert last.endswith(" left  policy lag 1.8 (max 7)  worker restarts 2  skipped updates 1,203")


def test_workers_have_a_third_line_of_eighty_columns(clock: Clock) -> None:
    console = terminal(80)
    logger = ConsoleLogger(10_000_000, console=console)

    def drawn(metrics: dict[str, float]) -> list[str]:
        clock.now += 1
        start = len(output(console))
        logger.log(9_999_000, 19_000.0, metrics)
        return output(console)[start:].split("\x1b[2K")[-1].splitlines()

    assert len(drawn(EVALUATION)) == 2
    worst = {"async/policy_lag": 123.4, "async/policy_lag_max": 12_345, "async/worker_restarts": 1_000}
    lines = drawn({**ASYNC, **worst, "async/skipped_updates": 1_000_000})
    assert [len(line) <= 80 for line in lines] == [True] * 3
    assert lines[2].strip() == "policy lag 123.4 (max 12345)  worker restarts 1,000  skipped updates 1,000,000"
    assert drawn(ASYNC)[2].strip() == "policy lag 1.8 (max 7)"
    logger.close()


@pytest.mark.parametrize("make", [plain_console, terminal])
def test_a_message_of_many_lines_keeps_them(clock: Clock, make: type[Console]) -> None:
    """A worker's traceback: as it is, however long its lines, brackets not taken for markup."""
    console = make()
    logger = ConsoleLogger(1000, console=console)
    message = f'worker 1 exited: it raised\n  File "x.py", line 3\n    a[bold] = {"y" * 100}\nIndexError: [/red]'
    logger.message(message)
    logger.close()
    assert f"{message}\n" in output(console)


@pytest.mark.parametrize("make", [plain_console, terminal])
def test_quiet_shows_messages_only(clock: Clock, make: type[Console]) -> None:
    console = make()
    logger = ConsoleLogger(1000, quiet=True, console=console)
    clock.now += 60
    logger.log(10, 1.0, EVALUATION)
    logger.episodes(20, 1.0, finished(1.0))
    logger.message("done")
    logger.close()
    assert output(console) == "done\n"


def test_standard_output_stays_clean(capsys: pytest.CaptureFixture[str]) -> None:
    logger = ConsoleLogger(1000)
    logger.log(10, 1.0, {})
    logger.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "10/1,000 steps" in captured.err


def test_a_budget_of_episodes_is_shown_beside_the_steps(clock: Clock) -> None:
    """The percentage and the time left are those of the budget of which more is used."""
    for budget, steps in ((Budget(NO_STEP_BUDGET, 200), "4,000 steps"), (Budget(8_000, 400), "4,000/8,000 steps")):
        console = plain_console()
        logger = ConsoleLogger(budget, console=console)
        logger.tick(0, 0.0)
        clock.now += 10
        logger.episodes(4_000, 2.0, finished(*[20.0] * 100))
        episodes = f"100/{budget.episodes} episodes"
        assert output(console).splitlines()[1] == (
            f" 50%  {episodes}  {steps}  2,000 steps/s  return 20.0  eval –  0:10 elapsed  0:10 left"
        )
        logger.close()


def test_time_left_of_a_resumed_budget_of_episodes(clock: Clock) -> None:
    console = plain_console()
    logger = ConsoleLogger(Budget(NO_STEP_BUDGET, 200), 1_000, 100, console=console)
    logger.tick(1_000, 50.0)
    clock.now += 10
    logger.episodes(2_000, 60.0, finished(*[20.0] * 50))
    assert " 75%  150/200 episodes" in output(console)
    assert output(console).endswith("0:10 elapsed  0:10 left\n")


def test_a_line_per_episode(clock: Clock) -> None:
    console = plain_console()
    logger = ConsoleLogger(1_000, 0, 7, episode_lines=True, console=console)
    logger.tick(0, 0.0)
    logger.episodes(100, 1.0, [Episode(9, 10.0, 12, True, 90, 1), Episode(2, 21.5, 20, False, 100, 0)])
    assert output(console).splitlines()[1:] == [
        "episode 8  worker 1  environment 9  return 10.0  length 12  mean of 1 10.0",
        "episode 9  worker 0  environment 2  return 21.5  length 20  mean of 2 15.75",
    ]
    for options in ({"quiet": True, "episode_lines": True}, {}):
        console = plain_console()
        ConsoleLogger(1_000, console=console, **options).episodes(100, 1.0, finished(1.0))
        assert "episode" not in output(console)


def shares(wall: float, *values: float) -> dict[str, float]:
    """A row with the shares of the time in the order in which they are shown."""
    return {"time/wall": wall, **dict(zip(KINDS, values, strict=True))}


def test_a_terminal_shows_the_curve_the_best_evaluation_and_where_the_time_goes(clock: Clock) -> None:
    console = terminal(80)
    logger = ConsoleLogger(10_000, has_workers=True, console=console)
    for i in range(100):
        logger.log(
            100 * i, float(i), {"rollout/ep_rew_mean": float(i), **ASYNC, **shares(1.0, 0.5, 0.2, 0.3, 0.1, 0.0)}
        )
    logger.log(9_900, 100.0, {"eval/mean_reward": 90.0, "eval/std_reward": 1.0, "time/eval_seconds": 25.0})
    clock.now += 1.0
    start = len(output(console))
    logger.log(9_900, 100.0, {"eval/mean_reward": 80.0, "eval/std_reward": 1.0})
    lines = [line.strip() for line in output(console)[start:].split("\x1b[2K")[-1].splitlines()]
    assert len(lines) == 5
    assert all(len(line) <= 80 for line in lines)
    assert lines[2].startswith("curve  ▁▁")
    assert lines[2].endswith("█  best eval 90.0")
    assert lines[3] == "time  environment 40%  acting 16%  learning 24%  evaluation 20%"
    assert lines[4].startswith("policy lag")
    logger.close()


def test_a_plain_line_says_where_the_time_goes(clock: Clock) -> None:
    console = plain_console()
    logger = ConsoleLogger(1_000, console=console)
    logger.tick(0, 0.0)
    clock.now += 10
    logger.log(100, 1.0, {"rollout/ep_rew_mean": 1.0, **shares(10.0, 0.25, 0.25, 0.5, 0.0, 0.0)})
    assert output(console).splitlines()[-1].endswith(" left  environment 25%  acting 25%  learning 50%")
    assert "▁" not in output(console)
    logger.close()


@pytest.mark.parametrize(("seconds", "is_given"), [(59.0, False), (61.0, True)])
def test_a_run_of_a_minute_ends_with_advice(seconds: float, is_given: bool, clock: Clock) -> None:
    console = plain_console()
    logger = ConsoleLogger(1_000, console=console, advise=lambda found: f"environment {found[KINDS[0]]:.0%}; try x")
    logger.log(100, 1.0, shares(seconds, 0.75, 0.25, 0.0, 0.0, 0.0))
    logger.close()
    assert (output(console).splitlines()[-1] == "environment 75%; try x") == is_given
