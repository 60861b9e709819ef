"""Trackio. Runs are in its folder on this machine, without an account; ``trackio show`` shows them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, final


@final
class TrackioClient:
    """See :class:`limelight.viewing.clients.client_logger.Client`."""

    def start(self, run_dir: Path, name: str, settings: dict[str, Any], run_id: str, is_resumed: bool) -> str:
        """Begin; the project is that of TRACKIO_PROJECT, if set. Its ids are the names of runs."""
        import trackio

        self._trackio = trackio
        run_id = run_id if is_resumed else f"{name}-{run_id}"
        trackio.init(
            os.environ.get("TRACKIO_PROJECT", "limelight"), name=run_id, config=settings, resume="allow", embed=False,
            auto_log_gpu=False, auto_log_cpu=False,
        )  # fmt: skip
        return run_id

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Send a row."""
        self._trackio.log(dict(metrics), step=step)

    def video(self, path: Path) -> None:
        """Send a video."""
        self._trackio.log({f"videos/{path.stem}": self._trackio.Video(str(path))})

    def agent(self, folder: Path) -> None:
        """Send the agent."""
        artifact = self._trackio.Artifact("agent", "model")
        artifact.add_dir(str(folder))
        self._trackio.log_artifact(artifact)

    def finish(self) -> None:
        """End the run."""
        self._trackio.finish()
