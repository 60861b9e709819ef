"""Write the images of README.md: an agent before and after training, and the learning curve of a run's report.

    python docs/make_images.py [--output docs/images]

Takes about a minute on one core. Needs the extra ``video``. The other files of docs/images are plots of runs in
benchmarks/results, which took hours.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image

import limelight
from limelight.viewing.record import record

HERE = Path(__file__).parent
ENV, STEPS, SEED = "Acrobot-v1", 300_000, 1
CURVE_STEPS = 100_000
FRAMES_PER_SECOND = 15
WIDTH, GAP = 340, 8
"""Pixels of one agent's image in the animation, and between the two."""
HOLD = 15
"""Frames for which the animation shows its last frame before it starts again."""
PAPER = (24, 26, 31)

Frame = NDArray[np.uint8]


def read_frames(path: Path) -> list[Frame]:
    """Return the frames of an MP4 file, [height, width, 3] bytes each."""
    frames = imageio_ffmpeg.read_frames(str(path))
    width, height = next(frames)["size"]
    return [np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in frames]


def play(agent: limelight.Agent, folder: Path, name: str, max_frames: int) -> list[Image.Image]:
    """Record one episode of ``agent`` with the library's own recorder and return its frames, WIDTH pixels wide."""
    path = folder / f"{name}.mp4"
    record(agent, path, ENV, seed=SEED, max_frames=max_frames)
    images = [Image.fromarray(frame) for frame in read_frames(path)]
    size = WIDTH, round(images[0].height * WIDTH / images[0].width)
    return [image.resize(size, Image.Resampling.LANCZOS) for image in images]


def side_by_side(left: list[Image.Image], right: list[Image.Image]) -> list[Image.Image]:
    """Join two animations, the shorter one held at its last frame, in one palette of 64 colors."""
    joined = []
    for index in range(max(len(left), len(right))):
        frame = Image.new("RGB", (2 * WIDTH + GAP, left[0].height), PAPER)
        frame.paste(left[min(index, len(left) - 1)], (0, 0))
        frame.paste(right[min(index, len(right) - 1)], (WIDTH + GAP, 0))
        joined.append(frame)
    palette = joined[len(joined) // 2].quantize(64)
    return [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in joined]


def write_animation(path: Path, folder: Path) -> None:
    """Train on Acrobot and write an episode of the untrained beside one of the trained agent as a GIF."""
    quiet = {"seed": SEED, "quiet": True, "final_episodes": 0}
    first = limelight.train(ENV, total_timesteps=100, eval_every=0, run_dir=str(folder / "first"), **quiet)
    last = limelight.train(ENV, total_timesteps=STEPS, run_dir=str(folder / "last"), **quiet)
    trained = play(limelight.load(last.run_dir), folder, "trained", 500)
    untrained = play(first.agent, folder, "untrained", len(trained))
    frames = side_by_side(untrained, trained)
    frames += [frames[-1]] * HOLD
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=1000 // FRAMES_PER_SECOND, loop=0, optimize=True
    )


def write_curve(path: Path, folder: Path) -> None:
    """Train on CartPole and keep the learning curve of the run's report."""
    result = limelight.train(
        "CartPole-v1", total_timesteps=CURVE_STEPS, seed=SEED, run_dir=str(folder / "a2c-1"), quiet=True
    )
    shutil.copyfile(result.run_dir / "plots" / "learning_curve.png", path)


def main() -> None:
    """Write both images."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=HERE / "images")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        write_animation(output / "acrobot.gif", Path(folder))
        write_curve(output / "cartpole.png", Path(folder))


if __name__ == "__main__":
    main()
