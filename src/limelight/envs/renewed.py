"""Worker processes of environments that are replaced when they exit: ``on_env_error = restart`` with backend async."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any, final

import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.vector.async_vector_env import AsyncState, _async_worker
from gymnasium.vector.utils import CloudpickleWrapper, concatenate, iterate

from limelight.envs.async_copies import AsyncCopy, Restarted
from limelight.envs.attributes import Order
from limelight.envs.faults import own_fault, process_exit
from limelight.envs.guards import MOST_IN_A_ROW, pause
from limelight.errors import EnvError

_EXIT_SECONDS = 1.0
"""Seconds to wait for the status of a process whose pipe is closed."""


@contextmanager
def _started(envs: AsyncVectorEnv, name: str) -> Iterator[None]:
    """Turn the exit of a process inside this context, in which they are started, into an EnvError; end the others."""
    try:
        yield
    except (EOFError, ConnectionError, EnvError) as error:
        processes = getattr(envs, "processes", [])
        if not isinstance(error, EnvError):
            gone = wait([process.sentinel for process in processes], _EXIT_SECONDS)
            for process in processes:
                process.join(_EXIT_SECONDS if process.sentinel in gone else 0)
        codes = [process.exitcode for process in processes]
        for process in processes:
            process.kill()
            process.join()
        for pipe in getattr(envs, "parent_pipes", []):
            pipe.close()
        envs.closed = True
        if isinstance(error, EnvError):  # of the watch
            raise
        raise process_exit(name, codes) from error


@final
class Processes(AsyncVectorEnv):
    """One process per environment."""

    def __init__(self, copies: Sequence[AsyncCopy], autoreset_mode: AutoresetMode) -> None:
        with _started(self, copies[0].name):
            super().__init__(copies, copy=False, context="spawn", autoreset_mode=autoreset_mode)


@final
class RenewedProcesses(AsyncVectorEnv):
    """One process per environment; in the place of one that exits another is started, and the episode is truncated.

    Observations come through pipes, as the memory that Gymnasium shares cannot be given to further processes.
    """

    def __init__(self, copies: Sequence[AsyncCopy], autoreset_mode: AutoresetMode) -> None:
        self.copies = list(copies)
        self._in_a_row = [0] * len(copies)
        self._seeds: list[int | None] = [None] * len(copies)
        self._commands: list[tuple[str, Any]] = [("", None)] * len(copies)
        options: dict[str, Any] = {"shared_memory": False, "copy": False, "context": "spawn"}
        with _started(self, copies[0].name):
            super().__init__(copies, autoreset_mode=autoreset_mode, **options)

    def keep(self, order: Order) -> None:
        """Set the attribute of an order in further processes too; nothing for other orders."""
        if order.kind == "set_env_attr":
            orders = {**self.copies[0].orders, order.name: order}
            self.copies = [dataclasses.replace(copy, orders=orders) for copy in self.copies]

    def _send(self, i: int, command: tuple[str, Any]) -> None:
        self._commands[i] = command
        with contextlib.suppress(OSError):  # it has exited, which receiving its answer tells
            self.parent_pipes[i].send(command)

    def reset_async(self, seed: Any = None, options: dict[str, Any] | None = None) -> None:
        """Send a reset to every process, or to those that ``options`` name."""
        mask = (options or {}).get("reset_mask", np.ones(self.num_envs, np.bool_))
        for i in range(self.num_envs):
            own = None if seed is None else seed + i
            self._seeds[i] = self._seeds[i] if own is None else own
            self._send(i, ("reset", {"seed": own, "options": None}) if mask[i] else ("reset-noop", None))
        self._state = AsyncState.WAITING_RESET

    def reset_wait(self, timeout: float | None = None) -> tuple[Any, dict[str, Any]]:
        """Return the observations of all resets."""
        self._give_up(timeout)
        observations, infos = [], dict[str, Any]()
        for i in range(self.num_envs):
            reply, messages = self._receive(i), list[str]()
            while reply is None:
                messages.append(self._renew(i))
                self._send(i, ("reset", self._commands[i][1] or {}))
                reply = self._receive(i)
            observations.append(reply[0])
            told = Restarted(tuple(messages), False).as_info() if messages else {}
            infos = self._add_info(infos, {**reply[1], **told}, i)
        self._state = AsyncState.DEFAULT
        self.observations = concatenate(self.single_observation_space, observations, self.observations)
        return self.observations, infos

    def step_async(self, actions: Any) -> None:
        """Send an action to every process."""
        for i, action in enumerate(iterate(self.action_space, actions)):
            self._send(i, ("step", action))
        self._state = AsyncState.WAITING_STEP

    def step_wait(self, timeout: float | None = None) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Return the results of all steps; that of a process that has exited is truncated."""
        self._give_up(timeout)
        replies, infos = list[Any](), dict[str, Any]()
        for i in range(self.num_envs):
            reply = self._receive(i)
            if reply is None:
                reply = self._truncated(i)
            elif reply[2] or reply[3]:
                self._in_a_row[i] = 0
            replies.append(reply)
            infos = self._add_info(infos, reply[4], i)
        observations, rewards, terminated, truncated, _ = zip(*replies, strict=True)
        self._state = AsyncState.DEFAULT
        self.observations = concatenate(self.single_observation_space, observations, self.observations)
        ends = np.array(terminated, np.bool_), np.array(truncated, np.bool_)
        return self.observations, np.array(rewards, np.float64), *ends, infos

    def _give_up(self, timeout: float | None) -> None:
        """Raise TimeoutError where ``close`` asks for pending answers: the processes are ended then."""
        if timeout is not None:
            raise multiprocessing.TimeoutError

    def _receive(self, i: int) -> Any:
        """Return the answer of a process; None if it has exited, or has been ended because it did not answer."""
        try:
            reply, _ = self.parent_pipes[i].recv()
            return reply
        except (EOFError, OSError):
            return None
        except EnvError:  # of the watch: no answer for too long
            self.processes[i].kill()
            return None

    def _truncated(self, i: int) -> Any:
        """Replace a process; return the last observation as the end of its episode."""
        last = np.array(self.observations[i])
        told = Restarted((self._renew(i),), True).as_info()
        if self.autoreset_mode is not AutoresetMode.SAME_STEP:
            return last, 0.0, False, True, told
        self._send(i, ("reset", {}))
        reply = self._receive(i)
        while reply is None:
            self._renew(i)
            self._send(i, ("reset", {}))
            reply = self._receive(i)
        return reply[0], 0.0, False, True, {"final_obs": last, "final_info": told, **reply[1]}

    def _renew(self, i: int) -> str:
        """Start the next process of an environment; return the message.

        Raises: EnvError after too many in a row.
        """
        process = self.processes[i]
        process.join(_EXIT_SECONDS)
        if process.is_alive():  # it has closed its pipe, or hangs in its exit
            process.kill()
            process.join()
        codes = [process.exitcode if j == i else None for j in range(self.num_envs)]
        fault = process_exit(self.copies[i].name, codes)
        self._in_a_row[i] += 1
        if self._in_a_row[i] > MOST_IN_A_ROW:
            raise own_fault(f"{fault}; {MOST_IN_A_ROW} in a row have, without a whole episode, so the run ends")
        pause(self._in_a_row[i])
        copy = self.copies[i]
        self.copies[i] = dataclasses.replace(copy, restarts=copy.restarts + 1, seed=self._seeds[i])
        self.parent_pipes[i].close()
        self._start(i)
        return f"{fault}; a new one goes on (restart {self.copies[i].restarts} of this environment)"

    def _start(self, i: int) -> None:
        context = multiprocessing.get_context("spawn")
        parent_pipe, child_pipe = context.Pipe()
        args = (i, CloudpickleWrapper(self.copies[i]), child_pipe, parent_pipe, None, self.error_queue)
        rest = (self.autoreset_mode, None)[: len(inspect.signature(_async_worker).parameters) - len(args)]
        name = f"Worker<{type(self).__name__}>-{i}"
        process = context.Process(target=_async_worker, name=name, args=(*args, *rest), daemon=True)
        process.start()
        child_pipe.close()
        self.parent_pipes[i] = parent_pipe
        self.processes[i] = process  # type: ignore[call-overload]
