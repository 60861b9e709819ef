"""MLflow. Without MLFLOW_TRACKING_URI, runs go into the folder ``mlruns`` beside the run's."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, final

_LONGEST = 500
"""Characters of a parameter, at most."""


@final
class MlflowClient:
    """See :class:`limelight.viewing.clients.client_logger.Client`."""

    def start(self, run_dir: Path, name: str, settings: dict[str, Any], run_id: str, is_resumed: bool) -> str:
        """Begin; the experiment is that of MLFLOW_EXPERIMENT_NAME, if set."""
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            uri = (run_dir.parent / "mlruns").as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        import mlflow

        self._client = mlflow.MlflowClient(uri)
        if is_resumed:
            self._id = run_id
            self._client.update_run(run_id, "RUNNING")
            return run_id
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", "limelight")
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found is not None else self._client.create_experiment(experiment)
        self._id = str(self._client.create_run(number, run_name=name).info.run_id)
        for section, values in settings.items():
            for key, value in values.items() if isinstance(values, dict) else [("", values)]:
                self._client.log_param(self._id, f"{section}.{key}".strip("."), str(value)[:_LONGEST])
        return self._id

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Send a row; MLflow takes no ``:`` in every version."""
        for name, value in metrics.items():
            self._client.log_metric(self._id, name.replace(":", " "), value, step=step)

    def video(self, path: Path) -> None:
        """Send a video."""
        self._client.log_artifact(self._id, str(path), "videos")

    def agent(self, folder: Path) -> None:
        """Send the agent."""
        self._client.log_artifacts(self._id, str(folder), "agent")

    def finish(self) -> None:
        """End the run."""
        self._client.set_terminated(self._id)
