"""What a person is shown of an environment: its pictures, enlarged, the score above, as an MP4 file or in a window.

For watch.py. Pillow (matplotlib brings it), pygame (Gymnasium's classic control brings it) and imageio-ffmpeg are
imported when they are used.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, final

import numpy as np
from numpy.typing import NDArray

from limelight.errors import ConfigError

Frame = NDArray[np.uint8]
"""A picture, [height, width, 3] bytes."""

ATARI_PIXEL_ASPECT = (3, 5)
"""Lines and columns of a pixel of Atari's: 160 × 210 become 800 × 630, about the 4:3 of a television."""
MIN_SIDE = 480
"""The longer side of a picture is enlarged to this by a whole number, if it is less than half of it."""
_PAPER, _INK = (24, 26, 31), (236, 238, 241)
_INSTALL = 'needs imageio-ffmpeg, which is not installed; pip install "limelight-rl[video]"'
# Good to look at, plays in every browser, and takes little of the time of whoever trains meanwhile.
_ENCODING = {
    "-c:v": "libx264",
    "-preset": "veryfast",
    "-crf": "23",
    "-pix_fmt": "yuv420p",
    "-threads": "1",
    "-movflags": "+faststart",
    "-f": "mp4",
}


class FrameSink(Protocol):
    """Where frames go."""

    def show(self, frame: Frame) -> bool:
        """The next one; False if nobody looks any more."""


# --------------------------------------------------------------------------- from pictures to frames


def to_frame(picture: Any, caption: Sequence[str], pixel: tuple[int, int] | None = None) -> Frame:
    """``picture`` with every pixel enlarged, under a line of text; height and width are even, as H.264 has them.

    Args:
        picture: what ``render`` returned, [height, width, 3] bytes.
        caption: parts of the line, from left to right.
        pixel: (lines, columns) of a pixel; None enlarges small pictures alone, to about :data:`MIN_SIDE`.
    Raises: ConfigError for anything else than a picture.
    """
    seen = np.asarray(picture)
    if seen.dtype != np.uint8 or seen.ndim != 3 or seen.shape[2] != 3 or not seen.size:
        raise ConfigError(
            f"render gave {_described(picture, seen)}: must be a picture [height, width, 3] of bytes (uint8)"
        )
    from PIL import Image, ImageDraw

    lines, columns = pixel or (max(1, MIN_SIDE // max(seen.shape[:2])),) * 2
    height, width = seen.shape[0] * lines, seen.shape[1] * columns
    size = min(22, max(10, width // 16))
    above = size + 12
    frame = Image.new("RGB", (_even(width), _even(above + height)), _PAPER)
    ImageDraw.Draw(frame).text((size // 2 + 2, above / 2), "    ".join(caption), _INK, _font(size), anchor="lm")
    frame.paste(Image.fromarray(seen).resize((width, height), Image.Resampling.NEAREST), (0, above))
    return np.asarray(frame)


def _described(picture: Any, seen: NDArray[Any]) -> str:
    return f"an array {list(seen.shape)} of {seen.dtype}" if seen.ndim else f"a {type(picture).__name__}"


def _even(length: int) -> int:
    return length + length % 2


@functools.cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


# --------------------------------------------------------------------------- MP4


def ffmpeg() -> str:
    """The path of imageio-ffmpeg's program.

    Raises: ConfigError if there is none.
    """
    try:
        import imageio_ffmpeg
    except ImportError:
        raise ConfigError(_INSTALL) from None
    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise ConfigError(f"needs ffmpeg, but {' '.join(str(error).split())}") from None


@final
class VideoFile:
    """Frames of one size as an MP4 file (H.264). A context: the file gets its name once whole; an error leaves none.

    Raises: ConfigError if there is no ffmpeg, or the file cannot be written.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path, self.fps, self._ffmpeg = Path(path), fps, ffmpeg()
        self._partial = self.path.with_name(f".{self.path.name}.tmp")
        self._process: subprocess.Popen[bytes] | None = None
        self._shape: tuple[int, ...] = ()

    def __enter__(self) -> Self:
        self._said = tempfile.TemporaryFile()
        return self

    def show(self, frame: Frame) -> bool:
        """Append a frame; always True."""
        if self._process is None:
            self._process = self._start(frame)
        if frame.shape != self._shape:
            raise ConfigError(f"render gave pictures of two sizes, {self._shape} and {frame.shape}; must be one")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(frame.data)
        except OSError:
            raise self._failed(self._process) from None
        return True

    def _start(self, frame: Frame) -> subprocess.Popen[bytes]:
        self._shape = height, width, _ = frame.shape
        source = {"-f": "rawvideo", "-pix_fmt": "rgb24", "-s": f"{width}x{height}", "-r": f"{self.fps:g}", "-i": "-"}
        options = [word for option in (*source.items(), *_ENCODING.items()) for word in option]
        command = [self._ffmpeg, "-v", "error", "-y", *options, str(self._partial)]
        # In a group of its own, so that a Ctrl-C, which is meant for us, does not end it.
        group: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=self._said, **group)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written ({error.strerror})") from None

    def _failed(self, process: subprocess.Popen[bytes]) -> ConfigError:
        process.communicate()
        self._said.seek(0)
        said = self._said.read().decode(errors="replace").split("\n")[0]
        return ConfigError(f"{self.path}: cannot be written (ffmpeg: {said or f'ended with {process.returncode}'})")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        process = self._process
        with self._said:
            if process is None:
                return
            if kind is not None:
                process.kill()
            process.communicate()
            if kind is None and process.returncode == 0:
                os.replace(self._partial, self.path)
                return
            self._partial.unlink(missing_ok=True)
            if kind is None:
                raise self._failed(process)


# --------------------------------------------------------------------------- a window


def require_display() -> Any:
    """pygame, once it is seen that it can open windows.

    Raises: ConfigError if it cannot.
    """
    displays = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")
    if sys.platform.startswith("linux") and not any(map(os.environ.get, displays)):
        raise ConfigError("there is no display here (DISPLAY and WAYLAND_DISPLAY are not set); use --video")
    try:
        import pygame
    except ImportError:
        raise ConfigError("needs pygame, which is not installed; pip install pygame, or use --video") from None
    try:
        pygame.display.init()
    except pygame.error as error:
        raise ConfigError(f"no window can be opened here ({error}); use --video") from None
    return pygame


@final
class Window:
    """Frames in a window, in real time; closing it, or Escape, ends the show. A context.

    Raises: ConfigError where no window can be opened.
    """

    def __init__(self, title: str, fps: float) -> None:
        self.title, self.fps = title, fps
        self._pygame = require_display()
        self._clock = self._pygame.time.Clock()
        self._window: Any = None

    def __enter__(self) -> Self:
        return self

    def show(self, frame: Frame) -> bool:
        """Show a frame for as long as it is to last; False once the window is closed."""
        pygame, (height, width, _) = self._pygame, frame.shape
        if self._window is None:
            pygame.display.set_caption(self.title)
            self._window = pygame.display.set_mode((width, height))
        self._window.blit(pygame.image.frombuffer(frame.tobytes(), (width, height), "RGB"), (0, 0))
        pygame.display.flip()
        self._clock.tick(self.fps)
        events = pygame.event.get()
        escape = any(event.type == pygame.KEYDOWN and event.key == pygame.K_ESCAPE for event in events)
        return not escape and not any(event.type == pygame.QUIT for event in events)

    def __exit__(self, *_: object) -> None:
        self._pygame.display.quit()
