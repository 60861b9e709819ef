"""Callbacks: what a user's object is told of a run, what it may do, and how its faults are reported."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, final

import numpy as np

from limelight.algo.episodes import Episode
from limelight.algo.learner import CHANGEABLE
from limelight.envs.attributes import Order
from limelight.errors import ConfigError, LimelightError, WorkerError, did_you_mean
from limelight.runs.agent import Agent
from limelight.runs.evaluation import Evaluation
from limelight.runs.plain import require_plain
from limelight.settings.io import with_settings
from limelight.settings.named import load_named
from limelight.settings.rules import validate
from limelight.settings.schema import TrainConfig
from limelight.settings.values import require_list
from limelight.typing import State

if TYPE_CHECKING:
    from limelight.training.loop import TrainingLoop

BUILT_IN = {
    name: f"limelight.training.builtin_callbacks:{name}"
    for name in ("StopWithoutImprovement", "StopAfter", "ScheduleEnvAttr", "ChangeSetting")
}
"""Callbacks that need no module in front of their name."""


class Callback(Protocol):
    """Is told of the progress of a run; every method is optional, and one that returns False ends the run.

    A callback may also have ``get_state()``, which returns plain data for the checkpoint, and ``set_state(state)``.
    """

    def on_start(self, run: Run) -> bool | None:
        """Training begins or continues; a state has been restored."""

    def on_rollout(self, run: Run) -> bool | None:
        """A rollout has been learnt from; where workers train, five times a second."""

    def on_episodes(self, run: Run, episodes: Sequence[Episode]) -> bool | None:
        """Training episodes have finished, oldest first."""

    def on_evaluation(self, run: Run, evaluation: Evaluation) -> bool | None:
        """The agent has been evaluated."""

    def on_best(self, run: Run, evaluation: Evaluation) -> bool | None:
        """The evaluation was the best so far, or equal to it, and the agent has been saved."""

    def on_checkpoint(self, run: Run, folder: Path) -> bool | None:
        """A checkpoint has been written."""

    def on_end(self, run: Run, status: str) -> None:
        """Training has ended without an error: completed, reached_return, stopped or interrupted; the last call."""


METHODS = {
    "on_start": (), "on_rollout": (), "on_episodes": ("episodes",), "on_evaluation": ("evaluation",),
    "on_best": ("evaluation",), "on_checkpoint": ("folder",), "on_end": ("status",),
}  # fmt: skip
"""The methods, and their arguments after ``run``."""


@final
class Run:
    """The run as callbacks see it."""

    def __init__(self, loop: TrainingLoop) -> None:
        self._loop = loop

    @property
    def step(self) -> int:
        """Return the environment steps so far."""
        return self._loop.runner.num_steps

    @property
    def seconds(self) -> float:
        """Return the training seconds so far, those before a resume included."""
        return self._loop.seconds

    @property
    def episodes(self) -> int:
        """Return the number of finished training episodes."""
        return self._loop.episodes.count

    @property
    def config(self) -> TrainConfig:
        """Return the settings with which the run was started."""
        return self._loop.config

    @property
    def run_dir(self) -> Path:
        """Return the folder of the run."""
        return self._loop.run_dir

    @property
    def agent(self) -> Agent:
        """Return the agent as it is now."""
        return self._loop.agent

    def message(self, text: str) -> None:
        """Show a line to the user."""
        self._loop.logger.message(text)

    def set_env_attr(self, name: str, value: Any) -> None:
        """Set an attribute of every training environment: plain data, which a resumed run and new workers keep.

        Raises: ConfigError if there is none of that name, or the environments have no attributes.
        """
        require_plain(f"set_env_attr = {name}", value)
        self._carry_out(Order("set_env_attr", name, value))

    def call_env(self, name: str, *args: Any, **kwargs: Any) -> list[Any]:
        """Call a method of every training environment; return the results, those of the first worker first.

        Raises: ConfigError if there is none of that name, or the environments have no methods to call.
        """
        return self._carry_out(Order("call_env", name, None, args, kwargs))

    def change_setting(self, name: str, value: float) -> None:
        """Change a step size or the weight of a loss from the next rollout on; a resumed run keeps it.

        Raises: ConfigError for another setting, or a value out of its range.
        """
        if name not in CHANGEABLE:
            near = did_you_mean(name, CHANGEABLE)
            raise ConfigError(f"change_setting = {name}: must be {' | '.join(CHANGEABLE)}{near}")
        validate(with_settings(self.config, {name: value}))
        self._carry_out(Order("change_setting", name, float(value)))

    def _carry_out(self, order: Order) -> list[Any]:
        """Give an order to the runner, and note it."""
        results = self._loop.runner.follow(order)
        self._loop.orders.add(self.step, order)
        return results


def load_callbacks(config: TrainConfig, given: Sequence[Callback]) -> list[Callback]:
    """Return the callbacks that the settings name, followed by those that were given as objects.

    Raises: ConfigError for one that cannot be made, or is no callback.
    """
    require_list("callbacks", given)
    named = [load_named("callback", text, BUILT_IN) for text in config.log.callback]
    for text, callback in zip(config.log.callback, named, strict=True):
        require_callback(f"callback = {text}", callback)
    for i, callback in enumerate(given):
        require_callback(f"callbacks[{i}] = {_name(callback)}", callback)
    return [*named, *given]


def require_callback(where: str, callback: Any) -> None:
    """Refuse an object that is no callback, or has a method that is never called.

    Raises: ConfigError.
    """
    if isinstance(callback, type):
        raise ConfigError(f"{where}: is a class; pass an object of it, {callback.__name__}()")
    mine = [name for name in dir(callback) if name.startswith("on_")]
    for name in mine:
        if name not in METHODS:
            near = did_you_mean(name, METHODS) or f"; the methods are {', '.join(METHODS)}"
            raise ConfigError(f"{where}: {name} is never called{near}")
        method = getattr(callback, name)
        names = ("run", *METHODS[name])
        try:
            inspect.signature(method).bind(*names)
        except (TypeError, ValueError):
            raise ConfigError(f"{where}: {name} must take ({', '.join(names)})") from None
    if not mine:
        raise ConfigError(f"{where}: has none of the methods {', '.join(METHODS)}")
    one_of = [name for name in ("get_state", "set_state") if callable(getattr(callback, name, None))]
    if len(one_of) == 1:
        raise ConfigError(f"{where}: has {one_of[0]} alone; a state needs get_state and set_state")


@final
class Callbacks:
    """Calls the methods of several callbacks, in order."""

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self.callbacks = tuple(callbacks)
        self.stopped = False
        """One of them has ended the run."""
        self.failed = False
        """One of them has raised an exception: none is called any more."""
        self.started = False
        """They have been told of the start; what comes before is not for them: a branch is saved at once."""
        self.run: Run | None = None
        """Their first argument."""
        self.methods = {name: [(_name(c), getattr(c, name)) for c in callbacks if hasattr(c, name)] for name in METHODS}

    def notify(self, name: str, *args: Any) -> None:
        """Call a method of all callbacks that have it.

        Raises: LimelightError that names the callback and the method, if one fails.
        """
        self.started |= name == "on_start"
        for who, method in self.methods[name] if self.started else ():
            if self.failed:
                return
            try:
                result = _guarded(f"{who}.{name}", method, self.run, *args)
            except BaseException:
                self.failed = True
                raise
            if isinstance(result, bool | np.bool_) and not result:
                self.stopped = True

    def get_state(self) -> State:
        """Return the states of those that have one, by their names; plain data.

        After a failure, those that cannot be had are left out.

        Raises: LimelightError for a state that a checkpoint cannot hold.
        """
        states: dict[str, Any] = {}
        for key, callback in self._keyed():
            with suppress(LimelightError) if self.failed else nullcontext():
                state = _guarded(f"{_name(callback)}.get_state", callback.get_state)
                require_plain(f"{_name(callback)}.get_state()", state)
                states[key] = state
        return states

    def set_state(self, states: Mapping[str, Any], notify: Callable[[str], None]) -> None:
        """Continue from :meth:`get_state`; ``notify`` receives a line on those that were added or left out."""
        found = dict(self._keyed())
        for key, callback in found.items():
            if key in states:
                _guarded(f"{_name(callback)}.set_state", callback.set_state, states[key])
        others = sorted(found.keys() ^ states.keys())
        if others:
            notify(f"callbacks {', '.join(others)}: begin anew, as the checkpoint was made with others")

    def _keyed(self) -> list[tuple[str, Any]]:
        """Return the callbacks with a state by name, those of one class numbered."""
        keyed: dict[str, Any] = {}
        for callback in self.callbacks:
            if hasattr(callback, "get_state"):
                name, n = _name(callback), 1
                while (key := name if n == 1 else f"{name} {n}") in keyed:
                    n += 1
                keyed[key] = callback
        return list(keyed.items())


def _guarded(where: str, method: Any, *args: Any) -> Any:
    """Call a user's method; an exception becomes one line that names it."""
    try:
        return method(*args)
    except WorkerError:
        raise
    except LimelightError as error:
        raise _of_callback(type(error)(f"callback {where}: {error}")) from error
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        place = f"{Path(frame.filename).name}, line {frame.lineno}"
        raise _of_callback(LimelightError(f"callback {where} raised {reason} ({place})")) from error


def _of_callback(error: LimelightError) -> LimelightError:
    error.from_callback = True
    return error


def _name(callback: Any) -> str:
    return callback.__name__ if isinstance(callback, type) else type(callback).__name__
