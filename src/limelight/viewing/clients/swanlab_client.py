"""SwanLab. Runs are offline under the run's folder, unless SWANLAB_MODE says otherwise; ``swanlab sync`` sends them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, final


@final
class SwanlabClient:
    """See :class:`limelight.viewing.clients.client_logger.Client`."""

    def start(self, run_dir: Path, name: str, settings: dict[str, Any], run_id: str, is_resumed: bool) -> str:
        """Begin; project and mode are those of SWANLAB_PROJ_NAME and SWANLAB_MODE, if set."""
        import swanlab

        self._swanlab = swanlab
        mode: Any = os.environ.get("SWANLAB_MODE", "offline")
        swanlab.init(
            project=os.environ.get("SWANLAB_PROJ_NAME", "limelight"), name=name, id=run_id, config=settings, mode=mode,
            log_dir=str(run_dir / "swanlog"), resume="allow" if mode == "online" else None,
        )  # fmt: skip
        return run_id

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Send a row."""
        self._swanlab.log(metrics, step=step)

    def video(self, path: Path) -> None:
        """Send a video."""
        self._swanlab.save(str(path), base_path=str(path.parent))

    def agent(self, folder: Path) -> None:
        """Send the agent's files."""
        self._swanlab.save(str(folder / "*"), base_path=str(folder.parent))

    def finish(self) -> None:
        """End the run."""
        self._swanlab.finish()
