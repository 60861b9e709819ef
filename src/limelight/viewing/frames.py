"""Captioned frames of an environment, and their sinks: an MP4 file or a window.

Pillow (installed with matplotlib), pygame (installed with Gymnasium's classic control) and imageio-ffmpeg are imported
when they are used.
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

from limelight.errors import ConfigError, EnvError

Frame = NDArray[np.uint8]
"""An RGB image, [height, width, 3] bytes."""

ATARI_PIXEL_ASPECT = (3, 5)
"""Lines and columns of an enlarged Atari pixel: 160 × 210 become 800 × 630, about 4:3 as on a television."""
MIN_SIDE = 480
"""An image whose longer side is at most half of this is enlarged by a whole number, up to this length."""
_PAPER, _INK = (24, 26, 31), (236, 238, 241)
_INSTALL = 'needs imageio-ffmpeg, which is not installed; pip install "limelight-rl[video]"'
# Plays in every browser; one thread and a fast preset, as training waits for it.
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
    """A destination of frames."""

    def show(self, frame: Frame) -> bool:
        """Show or store the next frame; False if no further frames are wanted."""


# --------------------------------------------------------------------------- from rendered images to frames


def to_frame(rendered: Any, caption: Sequence[str], pixel: tuple[int, int] | None = None) -> Frame:
    """Return ``rendered`` with every pixel enlarged, below a line of text; height and width are even, as in H.264.

    Args:
        rendered: the result of ``render``, [height, width, 3] bytes.
        caption: parts of the line, from left to right.
        pixel: (lines, columns) of an enlarged pixel; None enlarges only small images, to about :data:`MIN_SIDE`.
    Raises: EnvError if ``rendered`` is no such image.
    """
    image = np.asarray(rendered)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        kind = f"an array {list(image.shape)} of {image.dtype}" if image.ndim else f"a {type(rendered).__name__}"
        raise EnvError(f"render returned {kind}: must be an image [height, width, 3] of bytes (uint8)")
    from PIL import Image, ImageDraw

    lines, columns = pixel or (max(1, MIN_SIDE // max(image.shape[:2])),) * 2
    height, width = image.shape[0] * lines, image.shape[1] * columns
    font_size = min(22, max(10, width // 16))
    above = font_size + 12
    frame = Image.new("RGB", (_even(width), _even(above + height)), _PAPER)
    start = (font_size // 2 + 2, above / 2)
    ImageDraw.Draw(frame).text(start, "    ".join(caption), _INK, _font(font_size), anchor="lm")
    frame.paste(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST), (0, above))
    return np.asarray(frame)


def _even(length: int) -> int:
    return length + length % 2


@functools.cache
def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size)


# --------------------------------------------------------------------------- MP4


def ffmpeg() -> str:
    """Return the path of the ffmpeg program that imageio-ffmpeg provides.

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
class VideoWriter:
    """Writes frames of one size as an MP4 file (H.264).

    A context manager: the file gets its name when it is complete, and an error leaves no file.

    Raises: ConfigError if there is no ffmpeg, or the file cannot be written; EnvError for frames of two sizes.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self.path = Path(path)
        self.fps = fps
        self._ffmpeg = ffmpeg()
        self._partial = self.path.with_name(f".{self.path.name}.tmp")
        self._process: subprocess.Popen[bytes] | None = None
        self._shape: tuple[int, ...] = ()

    def __enter__(self) -> Self:
        self._errors = tempfile.TemporaryFile()
        return self

    def show(self, frame: Frame) -> bool:
        """Append a frame; always True."""
        if self._process is None:
            self._process = self._start(frame)
        if frame.shape != self._shape:
            raise EnvError(f"render returned images of two sizes, {self._shape} and {frame.shape}; must be one size")
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(frame.data)
        except OSError:
            raise self._failure(self._process) from None
        return True

    def _start(self, frame: Frame) -> subprocess.Popen[bytes]:
        """Start ffmpeg for frames like ``frame``."""
        self._shape = height, width, _ = frame.shape
        source = {"-f": "rawvideo", "-pix_fmt": "rgb24", "-s": f"{width}x{height}", "-r": f"{self.fps:g}", "-i": "-"}
        options = [word for option in (*source.items(), *_ENCODING.items()) for word in option]
        command = [self._ffmpeg, "-v", "error", "-y", *options, str(self._partial)]
        # A process group of its own keeps a Ctrl-C, which is meant for this process, from ending it.
        group: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._partial.unlink(missing_ok=True)  # a link there would lead elsewhere
            return subprocess.Popen(command, stdin=subprocess.PIPE, stderr=self._errors, **group)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written ({error.strerror})") from None

    def _failure(self, process: subprocess.Popen[bytes]) -> ConfigError:
        """Return the error of an ffmpeg that has failed, with its own first line."""
        process.communicate()
        self._errors.seek(0)
        line = self._errors.read().decode(errors="replace").split("\n")[0]
        return ConfigError(f"{self.path}: cannot be written (ffmpeg: {line or f'exit status {process.returncode}'})")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        process = self._process
        with self._errors:
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
                raise self._failure(process)


# --------------------------------------------------------------------------- a window


def require_display() -> Any:
    """Return pygame with its display opened.

    Raises: ConfigError if there is no display or no pygame.
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
    """Shows frames in a window, in real time, until it is closed or Escape is pressed. A context manager.

    Raises: ConfigError where no window can be opened.
    """

    def __init__(self, title: str, fps: float) -> None:
        self.title = title
        self.fps = fps
        self._pygame = require_display()
        self._clock = self._pygame.time.Clock()
        self._window: Any = None

    def __enter__(self) -> Self:
        return self

    def show(self, frame: Frame) -> bool:
        """Show a frame for its share of a second; False once the window is closed."""
        pygame = self._pygame
        height, width, _ = frame.shape
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
