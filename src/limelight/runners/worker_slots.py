"""What follows the death of a worker: another one after a while, or the end of the run. For whoever watches workers."""

from __future__ import annotations

from limelight.errors import WorkerError
from limelight.settings.schema import TrainConfig

_BACK_OFF, _LONGEST_BACK_OFF = 0.1, 10.0
"""Seconds before the first restart, which double with every further one, and their limit."""


class RestartPolicy:
    """Counts restarts, and allows as many as ``max_worker_restarts``."""

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.count = config, 0

    def after(self, worker: int, restarts: int, had_begun: bool, cause: str) -> tuple[float, str]:
        """Seconds until a new worker takes the place of one that died of ``cause``, and what to tell of it.

        Raises: WorkerError, which tells all of it, where that may not be.
        """
        workers, env = self.config.workers, self.config.env
        died = f"worker {worker} ({env.env_id}, {env.num_envs} environments) died: {cause.rstrip()}"
        if not had_begun:
            raise WorkerError(f"{died}\nit had not begun, so it is not restarted")
        if workers.on_worker_error == "raise":
            raise WorkerError(f"{died}\non_worker_error = raise, so the run ends")
        if self.count >= workers.max_worker_restarts:
            raise WorkerError(f"{died}\nmax_worker_restarts = {workers.max_worker_restarts} are used up")
        delay = min(_BACK_OFF * 2**restarts, _LONGEST_BACK_OFF)
        self.count += 1
        count = f"{self.count} of {workers.max_worker_restarts}"
        return delay, f"{died}\nrestarted in {delay:g} s with fresh seeds (restart {count})"
