"""Orders of the main process to the environments and learners of all workers, and their replies."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from limelight.envs.attributes import Order
from limelight.runners.processes.shared import Control

if TYPE_CHECKING:
    from limelight.runners.processes.supervisor import Supervisor, WorkerProcess

_TIMEOUT = 60.0
"""Seconds that workers have to finish a rollout and carry out an order."""


def send_order(supervisor: Supervisor, order: Order) -> list[Any]:
    """Let every worker carry out an order between two rollouts; return the results of all environments.

    Raises: the error of the first worker that cannot.
    """
    number = int(supervisor.control[Control.ORDERS]) + 1
    asked = []
    for worker in supervisor.workers:
        with suppress(OSError):  # it has exited; the next one in its slot has the lasting orders
            if worker.channel is not None:
                worker.channel.send((number, order))
                asked.append((worker, worker.slot.restarts))
    supervisor.control[Control.ORDERS] = number

    def is_done(worker: WorkerProcess, restarts: int) -> bool:
        replied = worker.reply is not None and worker.reply.number >= number
        return replied or worker.slot.restarts != restarts or worker.process is None

    if not supervisor.wait_until(lambda: all(is_done(*item) for item in asked), _TIMEOUT):
        supervisor.messages.append(f"{order.kind} {order.name}: not every worker has replied in {_TIMEOUT:g} s")
    replies = [worker.reply for worker in supervisor.workers if worker.reply and worker.reply.number == number]
    for reply in replies:
        if reply.error is not None:
            raise reply.error
    return [result for reply in replies for result in reply.results]
