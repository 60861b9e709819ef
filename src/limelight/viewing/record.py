"""Episodes of an agent recorded as MP4 files or shown in a window.

The environment is the one of training, made with a render mode, and the episodes are run as in an evaluation: the agent
receives the observations that it was trained on.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from numpy.typing import NDArray

from limelight.envs.faults import close_env, env_code, stops_the_run, what_happened
from limelight.envs.gymnasium_backend import SyncBackend
from limelight.envs.source import EnvSource, resolve_env
from limelight.errors import ConfigError, EnvError
from limelight.runs.evaluation import EnvLike, Evaluation, check_fits, counts, env_of, joined, play
from limelight.runs.folder import VIDEOS, VideoInfo, write_json
from limelight.runs.traces import EpisodeTrace
from limelight.settings.schema import EnvConfig
from limelight.settings.values import coerce
from limelight.typing import AnyEnv, EnvFactory
from limelight.viewing.frames import (
    ATARI_PIXEL_ASPECT,
    Frame,
    FrameSink,
    VideoWriter,
    Window,
    ffmpeg,
    require_display,
    to_frame,
)
from limelight.viewing.numbers import compact

if TYPE_CHECKING:
    from limelight.runs.agent import Agent

MAX_FRAMES = 18_000
"""Most frames of a video: 20 minutes of an Atari game."""
MAX_TRAINING_FRAMES = 3_000
"""Most frames of a video that training waits for."""


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
    """Record ``episodes`` whole episodes in one MP4 file.

    Args:
        agent: from :func:`limelight.load`, or a :class:`limelight.Agent`.
        path: the file; an existing one is replaced.
        env: as for :func:`limelight.evaluate`.
        episodes: how many; the i-th starts from ``seed + i``, like the one of the i-th environment in an evaluation.
        seed: of the environment (and of the actions, if not ``deterministic``).
        deterministic: the most probable action instead of a sample.
        max_frames: the length at which the video ends, and its last episode is cut.
    Returns: the returns and lengths of the episodes.
    Raises: EnvError if the environment renders no images; ConfigError if ffmpeg is missing or the file cannot be
        written.
    """
    episodes, seed, _ = counts(episodes, seed, None)
    deterministic = coerce("deterministic", deterministic, bool)
    with _prefix_errors("video"):
        ffmpeg()  # first, as this check takes no time
        with _rendered(*env_of(agent, env)) as rendered, VideoWriter(Path(path), rendered.fps) as video:
            return rendered.play(agent, video, episodes, seed, deterministic, max_frames)


def show(
    agent: Agent, env: EnvLike = None, *, episodes: int = 1, seed: int = 0, deterministic: bool = True
) -> Evaluation:
    """Show ``episodes`` whole episodes in a window, in real time; closing it cuts the episode and ends the show.

    The arguments are those of :func:`record`.

    Raises: EnvError if the environment renders no images; ConfigError if there is no display.
    """
    episodes, seed, _ = counts(episodes, seed, None)
    deterministic = coerce("deterministic", deterministic, bool)
    with _prefix_errors("render"):
        require_display()
        with _rendered(*env_of(agent, env)) as rendered, Window(f"{rendered.name} · Limelight", rendered.fps) as window:
            return rendered.play(agent, window, episodes, seed, deterministic, None)


def record_to_run(
    agent: Agent, run_dir: Path, name: str, env: EnvLike = None, *, which: str, step: int | None = None, **how: Any
) -> tuple[Path, Evaluation]:
    """Record into ``run_dir``, and write the :class:`VideoInfo` that report.html shows beside the file.

    Args:
        agent: as for :func:`record`.
        run_dir: the folder of the run.
        name: the name of the file, without suffix.
        env: as for :func:`record`.
        which: which agent it is: best or last.
        step: environment steps of training before the video; None: it is made after training.
        how: further arguments of :func:`record`.
    Returns: the path of the video, and the returns and lengths of its episodes.
    """
    path = Path(run_dir) / VIDEOS / f"{name}.mp4"
    played = record(agent, path, env, **how)
    info = VideoInfo(
        which=which,
        step=step,
        seed=how.get("seed", 0),
        sampled=not how.get("deterministic", True),
        returns=played.returns,
        lengths=played.lengths,
        cut=played.cut > 0,
    )
    write_json(path.with_suffix(".json"), dataclasses.asdict(info))
    return path, played


def record_trace(agent: Agent, path: Path, trace: EpisodeTrace, env: EnvLike = None) -> None:
    """Record an episode of an evaluation again, by the seed of its environment and all actions since the reset.

    Raises: EnvError if the environment renders no images, or the same seed and actions give another episode;
        ConfigError as :func:`record`.
    """
    with _prefix_errors("video"):
        ffmpeg()
        with _rendered(*env_of(agent, env)) as rendered, VideoWriter(path, rendered.fps) as video:
            rendered.repeat(trace, video)


def check_video(config: EnvConfig, factory: EnvFactory | None, setting: str) -> None:
    """Check that videos of an environment can be made, by rendering one frame; ``setting`` is what asks for them.

    Raises: EnvError or ConfigError if not.
    """
    with _prefix_errors(setting):
        ffmpeg()
        with _rendered(config, factory) as rendered:
            with env_code(rendered.name, "reset()"):
                rendered.env.reset(seed=0)
            rendered.frame([])


@contextmanager
def _prefix_errors(prefix: str) -> Iterator[None]:
    """Let the messages of errors begin with ``prefix``."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{prefix}: {error}") from error
    except EnvError as error:
        raise EnvError(f"{prefix}: {error}") from error


# --------------------------------------------------------------------------- rendered environments


class _RenderedEnv:
    """An environment with a render mode, in which an agent can be shown."""

    def __init__(self, env: AnyEnv, source: EnvSource) -> None:
        self.env = env
        self.name = source.name
        self.fps = float(env.metadata.get("render_fps") or 30)
        self._pixel = None if source.kind != "atari" else ATARI_PIXEL_ASPECT

    def frame(self, caption: list[str]) -> Frame:
        """Return the present state of the environment as a frame.

        Raises: EnvError if the environment cannot render, or the result is no image.
        """
        try:
            image = self.env.render()
        except BaseException as error:  # any rendering library may raise anything
            if stops_the_run(error):
                raise
            hint = "; MuJoCo needs OpenGL, which MUJOCO_GL selects" if "mujoco" in sys.modules else ""
            raise EnvError(f"{self.name} cannot render here: render() {what_happened(error)}{hint}") from error
        return to_frame(image, caption, self._pixel)

    def play(
        self, agent: Agent, sink: FrameSink, episodes: int, seed: int, deterministic: bool, max_frames: int | None
    ) -> Evaluation:
        """Run episodes one after the other into ``sink``, until it wants no more or has received ``max_frames``."""
        envs = SyncBackend([self.env], env_id=self.name)
        check_fits(agent, envs, self.name)
        rng = None if deterministic else np.random.default_rng(seed)
        played: list[Evaluation] = []
        num_frames, is_open = 0, True

        def show_step(episode_return: float, length: int) -> bool:
            nonlocal num_frames, is_open
            caption = [f"score {compact(episode_return)}", f"step {length:,}"]
            caption += [f"episode {len(played) + 1} of {episodes}"] if episodes > 1 else []
            num_frames += 1
            is_open = sink.show(self.frame(caption)) and num_frames != max_frames
            return is_open

        while is_open and len(played) < episodes:
            played.append(play(envs, agent.policy(rng), agent.normalize, 1, seed + len(played), show_step, self.name))
        return joined(played)

    def repeat(self, trace: EpisodeTrace, sink: FrameSink) -> None:
        """Repeat an episode, and show its steps in ``sink``; the episodes before it are played unseen.

        Raises: EnvError where a reward differs.
        """
        envs = SyncBackend([self.env], env_id=self.name)
        totals, begun = np.cumsum(trace.rewards), -1

        def show_step(episode_return: float, length: int) -> bool:
            nonlocal begun
            begun += length == 0
            if begun < trace.number:
                return True
            if length and not np.isclose(episode_return, totals[length - 1], rtol=1e-5, atol=1e-6):
                raise EnvError(
                    f"{self.name}: the same seed and actions gave another reward at step {length} (return "
                    f"{episode_return:g}, it was {totals[length - 1]:g}): such an episode cannot be shown again"
                )
            is_open = sink.show(self.frame([f"score {compact(episode_return)}", f"step {length:,}"]))
            return is_open and length < min(len(totals), MAX_FRAMES)

        play(envs, _Repeat(trace), lambda obs: obs, trace.number + 1, trace.seed, show_step, self.name)


@final
class _Repeat:
    """A policy that takes the actions of an episode, and those before it in its environment."""

    recurrent_state: NDArray[np.float32] | None = None

    def __init__(self, trace: EpisodeTrace) -> None:
        self._actions = iter(trace.all_actions)

    def begin_rollout(self) -> None:
        """Do nothing: nothing is learnt."""

    def act(self, obs: NDArray[Any], episode_start: NDArray[np.float32]) -> NDArray[Any]:
        """Return the next action, [1, *action_shape]."""
        action: NDArray[Any] = next(self._actions)[None]
        return action

    def to_env(self, actions: NDArray[Any]) -> NDArray[Any]:
        """Return the actions, which are the environment's already."""
        return actions


@contextmanager
def _rendered(config: EnvConfig, factory: EnvFactory | None) -> Iterator[_RenderedEnv]:
    """Make the environment with a render mode, and close it afterwards.

    Raises: EnvError if it renders no images.
    """
    source = resolve_env(config, factory)
    offered = source.render_modes()
    if "rgb_array" not in offered:
        modes = ", ".join(map(str, offered)) or "none"
        raise EnvError(f"{source.name} renders no images; its render modes are {modes}, and rgb_array is needed")
    with _headless_mujoco():
        env = _make_rendering(source)
        try:
            if env.render_mode != "rgb_array":
                raise EnvError(
                    f"{source.name} renders no images, as its callable takes no render_mode; add this argument and "
                    "pass it on to the environment"
                )
            yield _RenderedEnv(env, source)
        finally:
            close_env(env, source.name)


def _make_rendering(source: EnvSource) -> AnyEnv:
    try:
        return source.make("rgb_array")
    except Exception as error:  # a callable may pass render_mode on to an environment that does not take it
        raise EnvError(f"{source.name} cannot be made with render_mode rgb_array ({_one_line(error)})") from error


@contextmanager
def _headless_mujoco() -> Iterator[None]:
    """Let MuJoCo render by EGL where there is no display; by default it looks for one."""
    chosen = not sys.platform.startswith("linux") or "DISPLAY" in os.environ or "MUJOCO_GL" in os.environ
    if not chosen:
        os.environ["MUJOCO_GL"] = "egl"
    try:
        yield
    finally:
        if not chosen:
            os.environ.pop("MUJOCO_GL", None)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
