"""TensorBoard events, written by TensorBoard's own record writer.

``torch.utils.tensorboard`` and TensorBoard's EventFileWriter are not used: both import all of TensorFlow where it is
installed, take seconds to load, and write from a thread.
"""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from limelight.runs.line_file import WholeFile

if TYPE_CHECKING:
    from limelight.algo.episodes import Episode
    from limelight.settings.schema import TrainConfig

_OVER_EPISODES = ("ep_rew_mean", "ep_len_mean", "ep_rew_max")


def writes_tensorboard(config: TrainConfig) -> bool:
    """Return whether the run writes events: by default wherever the package is installed."""
    return "tensorboard" in config.log.logger or (config.log.tensorboard and find_spec("tensorboard") is not None)


class TensorBoardLogger:
    """Writes every metric as a scalar, one event per row, and the statistics of episodes over episodes as well.

    The latter are a second event whose step is the number of episodes, under ``over_episodes/``. TensorBoard drops
    events by their step on resume, so those of the rows after the last checkpoint stay: the same episodes once more.

    Args:
        folder: where the new events file is made.
        resume_step: the step from which the run is resumed; TensorBoard drops the events of later steps.
    """

    def __init__(self, folder: Path, resume_step: int | None = None) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event = event_pb2.Event
        self._summary = summary_pb2.Summary
        folder.mkdir(parents=True, exist_ok=True)
        self._written = io.BytesIO()
        self._records = RecordWriter(self._written)
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = WholeFile(folder / name, lambda: self._record(file_version="brain.Event:2"))
        if resume_step is not None:
            session = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(step=resume_step + 1, session_log=session)

    def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Write a row."""
        value = self._summary.Value
        values = [value(tag=name, simple_value=float(metric)) for name, metric in metrics.items()]
        self._write(step=int(step), summary=self._summary(value=values))
        if metrics.get("rollout/episodes"):
            shared = {name: metrics[f"rollout/{name}"] for name in _OVER_EPISODES if f"rollout/{name}" in metrics}
            values = [value(tag=f"over_episodes/{name}", simple_value=float(x)) for name, x in shared.items()]
            self._write(step=int(metrics["rollout/episodes"]), summary=self._summary(value=values))

    def episodes(self, step: int, seconds: float, episodes: Sequence[Episode]) -> None:
        """Ignore episodes; the rows have their means."""

    def message(self, text: str) -> None:
        """Ignore messages; the console shows them."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, **fields: object) -> None:
        self._file.write(self._record(**fields))

    def _record(self, **fields: object) -> bytes:
        """Return an event as it is in the file: a reader stops at half a one, whatever follows."""
        self._written.seek(0)
        self._written.truncate()
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        return self._written.getvalue()
