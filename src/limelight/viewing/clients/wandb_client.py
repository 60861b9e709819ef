"""Weights & Biases. Without an account, runs are offline under the run's folder; ``wandb sync`` sends them later."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, final


@final
class WandbClient:
    """See :class:`limelight.viewing.clients.client_logger.Client`."""

    def start(self, run_dir: Path, name: str, settings: dict[str, Any], run_id: str, is_resumed: bool) -> str:
        """Begin; project and mode are those of WANDB_PROJECT and WANDB_MODE, if set."""
        import wandb

        mode: Any = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
        self._wandb = wandb
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "limelight"), dir=run_dir, id=run_id, name=name, config=settings,
            mode=mode, resume="allow" if mode == "online" else None, reinit="create_new",
            settings=wandb.Settings(silent=True, console="off"),
        )  # fmt: skip
        self._run.define_metric("step")  # rows after a resume may repeat steps, which wandb's own would not
        self._run.define_metric("*", step_metric="step")
        return run_id

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Send a row."""
        self._run.log({"step": step, **metrics})

    def video(self, path: Path) -> None:
        """Send a video."""
        self._run.log({f"videos/{path.stem}": self._wandb.Video(str(path), format="mp4")})

    def agent(self, folder: Path) -> None:
        """Send the agent."""
        artifact = self._wandb.Artifact(f"agent-{self._run.id}", "model")
        artifact.add_dir(str(folder))
        self._run.log_artifact(artifact)

    def finish(self) -> None:
        """End the run."""
        self._run.finish()
