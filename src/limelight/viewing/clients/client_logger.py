"""A Logger over the client of a service, the names of the services, and the loggers that settings name."""

from __future__ import annotations

import logging
import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, final

from limelight.errors import ConfigError
from limelight.runs.checkpoint import checkpoints, has_state
from limelight.runs.folder import VIDEOS, read_json, write_json
from limelight.settings.io import to_dict
from limelight.settings.named import load_named
from limelight.settings.schema import TrainConfig
from limelight.settings.values import require_list
from limelight.viewing.logger import Logger, require_loggers

if TYPE_CHECKING:
    from limelight.algo.episodes import Episode

_LOG = logging.getLogger("limelight")
SERVICES = {
    name: f"limelight.viewing.clients.{name}_client:{name.capitalize()}Client"
    for name in ("wandb", "swanlab", "mlflow", "trackio")
}
"""Client class by the name of the service, which is that of its package and of the extra."""
RECORD = "loggers.json"
"""The file of a run folder with the run's id and the videos sent, by service."""


class Client(Protocol):
    """The client of a service; its package is imported by ``start``."""

    def start(self, run_dir: Path, name: str, settings: dict[str, Any], run_id: str, is_resumed: bool) -> str:
        """Begin the run, or continue the one of this id; return its id."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Send a row of finite metrics."""

    def video(self, path: Path) -> None:
        """Send an MP4 file."""

    def agent(self, folder: Path) -> None:
        """Send the folder of an agent as an artifact."""

    def finish(self) -> None:
        """Send what is pending, and end the run."""


@final
class ClientLogger:
    """Sends rows as they come; videos and the agent, the best if there is one, at the end."""

    def __init__(self, service: str, client: Client) -> None:
        self.service = service
        self.client = client
        self._run_dir: Path | None = None
        self._record: dict[str, Any] = {}
        self._has_failed = False

    def start(self, run_dir: Path, config: TrainConfig, resume_step: int | None) -> None:
        """Begin, or continue the run of the same id.

        Raises: ConfigError that names the service, if it refuses.
        """
        self._record = read_json(run_dir / RECORD).get(self.service, {})
        is_resumed = bool(self._record)
        name, run_id = run_dir.resolve().name, self._record.get("id") or uuid.uuid4().hex[:8]
        try:
            self._record["id"] = self.client.start(run_dir.resolve(), name, to_dict(config), run_id, is_resumed)
        except Exception as error:  # a service may raise anything
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConfigError(f"logger = {self.service}: cannot start ({reason})") from error
        self._run_dir = run_dir
        self._save()

    def log(self, step: int, seconds: float, metrics: Mapping[str, float]) -> None:
        """Send a row; values that are not finite are left out."""
        row = {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
        self._send(self.client.log, int(step), {"time/seconds": seconds, **row})

    def episodes(self, step: int, seconds: float, episodes: Sequence[Episode]) -> None:
        """Ignore episodes; the rows have their means."""

    def message(self, text: str) -> None:
        """Ignore messages; the console shows them."""

    def close(self) -> None:
        """Send videos and agent, and end the run; a second call does nothing."""
        if self._run_dir is None:
            return
        folder, self._run_dir = self._run_dir, None
        sent = self._record.setdefault("videos", [])
        for path in sorted((folder / VIDEOS).glob("[!.]*.mp4")):
            if path.name not in sent:
                self._send(self.client.video, path)
                sent.append(path.name)
        agents = [folder / "best"] if has_state(folder / "best") else checkpoints(folder)[-1:]
        for agent in agents:
            self._send(self.client.agent, agent)
        self._send(self.client.finish)
        self._run_dir = folder
        self._save()
        self._run_dir = None

    def _send(self, method: Callable[..., None], *args: Any) -> None:
        """Call a method of the client; the first one that fails is a note, as training does not depend on it."""
        try:
            method(*args)
        except Exception as error:  # a service may raise anything
            if not self._has_failed:
                reason = " ".join(str(error).split()) or type(error).__name__
                _LOG.warning("limelight: note: logger = %s: %s failed (%s)", self.service, method.__name__, reason)
            self._has_failed = True

    def _save(self) -> None:
        assert self._run_dir is not None
        path = self._run_dir / RECORD
        write_json(path, {**read_json(path), self.service: self._record})


def load_loggers(config: TrainConfig, given: Sequence[Logger]) -> list[Logger]:
    """Return the loggers that the settings name, followed by those that were given as objects.

    Raises: ConfigError for one that cannot be made, with the extra where a package is missing.
    """
    require_list("loggers", given)
    require_loggers(given)
    if "tensorboard" in config.log.logger:
        _require_installed("tensorboard")
    named = [_load(text) for text in config.log.logger if text != "tensorboard"]
    return [*named, *given]


def _load(text: str) -> Logger:
    if text not in SERVICES:
        logger = load_named("logger", text, {"tensorboard": "", **SERVICES})
        require_loggers([logger])
        return logger
    _require_installed(text)
    return ClientLogger(text, load_named("logger", text, SERVICES))


def _require_installed(service: str) -> None:
    if find_spec(service) is None:
        raise ConfigError(f"logger = {service}: {service} is not installed; pip install 'limelight-rl[{service}]'")


def start_loggers(loggers: Sequence[Logger], run_dir: Path, config: TrainConfig, resume_step: int | None) -> None:
    """Tell the loggers that have ``start`` of the run; if one fails, those before it are closed."""
    with ExitStack() as stack:
        for logger in loggers:
            if hasattr(logger, "start"):
                logger.start(run_dir, config, resume_step)
            stack.callback(logger.close)
        stack.pop_all()
