"""Watching an agent: whole episodes with pictures, as MP4 files or in a window. Used by cli.py, train.py and users.

The agent plays by evaluate.play in the environment of its training, made with a render mode: it sees what it saw there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from limelight.envs.gymnasium_backend import SyncBackend
from limelight.envs.source import EnvSource, resolve_env
from limelight.errors import ConfigError, EnvError
from limelight.runs.evaluation import EnvLike, Evaluation, check_fits, env_of, play
from limelight.runs.folder import write_json
from limelight.runs.reader import VIDEOS
from limelight.settings.schema import EnvConfig
from limelight.typing import AnyEnv, EnvFactory
from limelight.viewing.frames import (
    ATARI_PIXEL_ASPECT,
    Frame,
    FrameSink,
    VideoFile,
    Window,
    ffmpeg,
    require_display,
    to_frame,
)

if TYPE_CHECKING:
    from limelight.runs.agent import Agent

MAX_FRAMES = 18_000
"""A video ends here at the latest: after 20 minutes of an Atari game."""
MAX_TRAINING_FRAMES = 3_000
"""And here if training waits for it."""


def record(
    agent: Agent,
    path: str | Path,
    env: EnvLike = None,
    *,
    episodes: int = 1,
    seed: int = 0,
    deterministic: bool = True,
    max_frames: int = MAX_FRAMES,
) -> Evaluation:
    """Play ``episodes`` whole episodes into one MP4 file; what they came to.

    Args:
        agent: from :func:`limelight.load`, or a :class:`limelight.Agent`.
        path: of the file; one that is there is replaced.
        env: as for :func:`limelight.evaluate`.
        episodes: how many; the i-th starts from ``seed + i``, as that of the i-th environment of an evaluation does.
        seed: of the environment (and of the actions, if not ``deterministic``).
        deterministic: the most probable action instead of a sample.
        max_frames: where the video ends, and its last episode is cut.
    Raises: ConfigError if the environment draws no pictures, ffmpeg is not there, or the file cannot be written.
    """
    with _prefix_errors("video"):
        ffmpeg()  # asked first, as it takes no time
        with _stage(*env_of(agent, env)) as stage, VideoFile(Path(path), stage.fps) as video:
            return stage.play(agent, video, episodes, seed, deterministic, max_frames)


def show(
    agent: Agent, env: EnvLike = None, *, episodes: int = 1, seed: int = 0, deterministic: bool = True
) -> Evaluation:
    """Play ``episodes`` whole episodes in a window, in real time; closing it cuts the episode and ends the show.

    Arguments are those of :func:`record`.
    Raises: ConfigError if the environment draws no pictures, or there is no display.
    """
    with _prefix_errors("render"):
        require_display()
        with _stage(*env_of(agent, env)) as stage, Window(f"{stage.name} · Limelight", stage.fps) as window:
            return stage.play(agent, window, episodes, seed, deterministic, None)


def record_to_run(
    agent: Agent, run_dir: Path, name: str, env: EnvLike = None, *, which: str, step: int | None = None, **how: Any
) -> tuple[Path, Evaluation]:
    """:func:`record` into ``run_dir``, with what report.html says of it beside the file; its path, and what was played.

    Args:
        name: of the file, without suffix.
        which: whose video it is: best or last.
        step: environment steps of training after which it was made; None: afterwards.
        how: further arguments of :func:`record`.
    """
    path = Path(run_dir) / VIDEOS / f"{name}.mp4"
    played = record(agent, path, env, **how)
    about = {"which": which, "step": step, "seed": how.get("seed", 0), "sampled": not how.get("deterministic", True)}
    results = {"returns": played.returns, "lengths": played.lengths, "cut": played.cut > 0}
    write_json(path.with_suffix(".json"), {**about, **results})
    return path, played


def check_video(config: EnvConfig, factory: EnvFactory | None, asked: str) -> None:
    """See that videos can be made of an environment, by one frame; ``asked`` is the setting that wants them.

    Raises: ConfigError if not.
    """
    with _prefix_errors(asked):
        ffmpeg()
        with _stage(config, factory) as stage:
            stage.env.reset(seed=0)
            stage.frame([])


@contextmanager
def _prefix_errors(what: str) -> Iterator[None]:
    """Complaints begin with ``what``."""
    try:
        yield
    except (ConfigError, EnvError) as error:
        raise type(error)(f"{what}: {error}") from error


# --------------------------------------------------------------------------- playing


class _RenderedEnv:
    """An environment that draws pictures, to play in."""

    def __init__(self, env: AnyEnv, source: EnvSource) -> None:
        self.env, self.name = env, source.name
        self.fps = float(env.metadata.get("render_fps") or 30)
        self._pixel = None if source.kind != "atari" else ATARI_PIXEL_ASPECT

    def frame(self, caption: list[str]) -> Frame:
        """What the environment shows now.

        Raises: ConfigError if it cannot draw, or it is no picture.
        """
        try:
            picture = self.env.render()
        except Exception as error:  # of whichever library draws
            mend = "; MuJoCo needs OpenGL, and MUJOCO_GL says whose" if "mujoco" in sys.modules else ""
            raise ConfigError(f"{self.name} cannot draw here ({_one_line(error)}){mend}") from error
        return to_frame(picture, caption, self._pixel)

    def play(
        self, agent: Agent, screen: FrameSink, episodes: int, seed: int, deterministic: bool, max_frames: int | None
    ) -> Evaluation:
        """Episodes one after the other on ``screen``, until it is closed or has shown ``max_frames``."""
        envs = SyncBackend([self.env], env_id=self.name)
        check_fits(agent, envs, self.name)
        rng, frames, open_ = None if deterministic else np.random.default_rng(seed), 0, True
        played: list[Evaluation] = []

        def watch(episode_return: float, length: int) -> bool:
            nonlocal frames, open_
            caption = [f"score {_number(episode_return)}", f"step {length:,}"]
            caption += [f"episode {len(played) + 1} of {episodes}"] if episodes > 1 else []
            frames += 1
            open_ = screen.show(self.frame(caption)) and frames != max_frames
            return open_

        while open_ and len(played) < episodes:
            played.append(play(envs, agent.policy(rng), agent.normalize, 1, seed + len(played), watch))
        returns, lengths = [one.returns[0] for one in played], [one.lengths[0] for one in played]
        return Evaluation(returns, lengths, sum(one.cut for one in played))


@contextmanager
def _stage(config: EnvConfig, factory: EnvFactory | None) -> Iterator[_RenderedEnv]:
    """The environment, made with a render mode, and closed afterwards.

    Raises: ConfigError if it has none that gives pictures.
    """
    source = resolve_env(config, factory)
    offered = source.render_modes()
    if "rgb_array" not in offered:
        modes = ", ".join(map(str, offered)) or "none"
        raise ConfigError(f"{source.name} draws no pictures; its render modes are {modes}, and rgb_array is needed")
    with _headless_mujoco():
        env = _drawing(source)
        try:
            if env.render_mode != "rgb_array":
                raise ConfigError(
                    f"{source.name} draws no pictures, as it takes no render_mode; give it this argument, "
                    "and hand it on"
                )
            yield _RenderedEnv(env, source)
        finally:
            env.close()


def _drawing(source: EnvSource) -> AnyEnv:
    try:
        return source.make("rgb_array")
    except Exception as error:  # a callable hands on what it is given, and its environment knows no render mode
        raise ConfigError(f"{source.name} cannot be made with render_mode rgb_array ({_one_line(error)})") from error


@contextmanager
def _headless_mujoco() -> Iterator[None]:
    """EnvLike there is no display, MuJoCo draws by EGL; left to itself, it looks for a display."""
    chosen = not sys.platform.startswith("linux") or "DISPLAY" in os.environ or "MUJOCO_GL" in os.environ
    if not chosen:
        os.environ["MUJOCO_GL"] = "egl"
    try:
        yield
    finally:
        if not chosen:
            os.environ.pop("MUJOCO_GL", None)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.1f}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
