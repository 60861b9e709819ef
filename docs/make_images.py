"""Write the pictures of README.md and docs/: an agent while it learns, a learning curve, the report, the terminal.

    python docs/make_images.py [NAME ...] [--output docs/images]

``learning.gif`` shows the run of ``agents/make_agents.py lunarlander`` (minutes; extra ``box2d``), made if it is
not there. The pictures of the report and of the terminal need Chromium or Chrome. The other files of docs/images are
plots of runs in benchmarks/results, which took hours.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gymnasium as gym
import numpy as np
from PIL import Image
from rich.console import Console
from rich.text import Text

import limelight
from limelight.runs.checkpoint import checkpoints
from limelight.viewing.frames import to_frame

HERE = Path(__file__).parent
LEARNER, ENV, SEED = "lunarlander", "LunarLander-v3", 1
STAGES = (50_000, 300_000)
"""Environment steps after which the animation shows the agent, beside the untrained one."""
CURVE = "limelight train CartPole-v1 --seed 1 --total-timesteps 100000 --run-dir runs/cartpole"
PANEL, GAP, PAPER = 320, 8, (24, 26, 31)
"""Pixels of one agent's image and between two of them, and the colour there."""
EVERY, FRAMES, HOLD = 5, 110, 8
"""Steps from one frame to the next; frames of the animation; frames for which the end of an episode is shown."""
FRAMES_PER_SECOND = 10
TERMINAL = "limelight train CartPole-v1 --seed 1 --run-dir runs/first"
COLUMNS, SHOWN_FROM = 92, 0.55
"""Columns of the terminal, and the share of the run after which it is shown."""


# --------------------------------------------------------------------------- an agent while it learns


def stages(folder: Path) -> Iterator[tuple[str, limelight.Agent]]:
    """Train the agent, if that has not been done; yield each stage, in words, and the agent as it was then."""
    script = runpy.run_path(str(HERE.parent / "agents" / "make_agents.py"))
    run_dir = script["train"](LEARNER, script["RECIPES"][LEARNER])
    untrained = {"seed": SEED, "quiet": True, "final_episodes": 0, "eval_every": 0, "backend": "sync"}
    yield "untrained", limelight.train(ENV, total_timesteps=1, run_dir=str(folder / "untrained"), **untrained).agent
    found = {int(path.name.partition("_")[2]): path for path in checkpoints(run_dir)}
    for step in STAGES:
        nearest = min(found, key=lambda other: abs(other - step))
        yield f"after {nearest // 1000:,}k steps", limelight.load(found[nearest])


def play(agent: limelight.Agent, name: str) -> list[Image.Image]:
    """Return the frames of an agent's episodes, one after the other, PANEL pixels wide and captioned."""
    env = gym.make(ENV, render_mode="rgb_array")
    frames: list[Image.Image] = []
    seed = SEED
    while len(frames) < FRAMES:
        obs, _ = env.reset(seed=seed)
        agent.reset()
        total, step, ended = 0.0, 0, False
        while not ended and len(frames) < FRAMES:
            if step % EVERY == 0:
                frames.append(panel(env.render(), name, total, step))
            action, _ = agent.predict(obs)
            obs, reward, terminated, truncated, _ = env.step(action)
            total, step, ended = total + float(reward), step + 1, terminated or truncated
        frames += [panel(env.render(), name, total, step)] * HOLD
        seed += 1
    env.close()
    return frames[:FRAMES]


def panel(rendered: np.ndarray, name: str, total: float, step: int) -> Image.Image:
    """Return one image with its caption, as the library's videos have it."""
    image = Image.fromarray(rendered)
    small = image.resize((PANEL, round(image.height * PANEL / image.width)), Image.Resampling.LANCZOS)
    return Image.fromarray(to_frame(np.asarray(small), [name, f"return {total:.0f}"]))


def write_learning(path: Path, folder: Path) -> None:
    """Write the episodes of the agent at its stages side by side as a GIF."""
    played = [play(agent, name) for name, agent in stages(folder)]
    joined = []
    for parts in zip(*played, strict=True):
        frame = Image.new("RGB", (len(parts) * PANEL + (len(parts) - 1) * GAP, parts[0].height), PAPER)
        for index, part in enumerate(parts):
            frame.paste(part, (index * (PANEL + GAP), 0))
        joined.append(frame)
    palette = joined[len(joined) // 2].quantize(64)
    frames = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in joined]
    duration = round(1000 / FRAMES_PER_SECOND)
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=duration, loop=0, optimize=True)


# --------------------------------------------------------------------------- curve and report


def curve_run(folder: Path) -> Path:
    """Train on CartPole for the curve and the report; return the folder of the run."""
    run_dir = folder / "runs" / "cartpole"
    if not run_dir.is_dir():
        words = [*CURVE.split()[1:], "--quiet"]
        subprocess.run([sys.executable, "-m", "limelight", *words], cwd=folder, check=True)
    return run_dir


def write_curve(path: Path, folder: Path) -> None:
    """Write the learning curve of the run's report."""
    shutil.copyfile(curve_run(folder) / "plots" / "learning_curve.png", path)


def write_report(path: Path, folder: Path) -> None:
    """Write the upper part of a report as a browser shows it."""
    photograph(curve_run(folder) / "report.html", path, 1240, 950)


def photograph(page: Path, path: Path, width: int, height: int) -> None:
    """Let a browser draw a page, and save its upper part as a PNG file of 64 colors."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    browser = next((found for name in names if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit(f"{path.name} needs a browser: one of {', '.join(names)}")
    shot = page.with_suffix(".png")
    size = [
        f"--window-size={width},{height}",
        f"--screenshot={shot}",
        "--hide-scrollbars",
        "--virtual-time-budget=8000",
    ]
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", *size, page.absolute().as_uri()]
    subprocess.run(command, check=True, capture_output=True)
    Image.open(shot).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


# --------------------------------------------------------------------------- the terminal


def write_terminal(path: Path, folder: Path) -> None:
    """Write what a terminal shows in the middle of a training."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text(f"$ {TERMINAL}"))
    for line in screen_of_training(folder):
        console.print(Text.from_ansi(line), overflow="fold")
    svg = console.export_svg(title="limelight", font_aspect_ratio=0.6)
    width, height = (round(float(value)) for value in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
    page = folder / "terminal.html"
    page.write_text(f"<body style='margin:0'>{svg}</body>", encoding="utf-8")
    photograph(page, path, width, height)


def screen_of_training(folder: Path) -> list[str]:
    """Run ``limelight train`` in a terminal of its own; return the lines that are on it in the middle of the run."""
    import pty

    main, side = pty.openpty()
    size = {**os.environ, "COLUMNS": str(COLUMNS), "LINES": "30", "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "limelight", *TERMINAL.split()[1:]]
    process = subprocess.Popen(command, cwd=folder, env=size, stdin=side, stdout=side, stderr=side)
    text = ""
    try:
        while process.poll() is None and progress_of(screen(text)) < SHOWN_FROM:
            if select.select([main], [], [], 0.5)[0]:
                text += os.read(main, 65536).decode(errors="replace")
                time.sleep(0.05)
    finally:
        process.terminate()
        process.wait()
    return screen(text)


def progress_of(lines: list[str]) -> float:
    """Return the share of the run that the display shows; 0 before there is one."""
    found = re.findall(r"(\d+)%", re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", "\n".join(lines)))
    return int(found[0]) / 100 if found else 0.0


def screen(text: str) -> list[str]:
    """Return the lines of a terminal after ``text``, which moves up and clears lines as the display does."""
    lines, row = [""], 0
    for piece in re.split(r"(\x1b\[\d*[AK]|\x1b\[\?25[lh]|\r\n|\r|\n)", text):
        if piece.endswith("A"):
            row = max(0, row - int(piece[2:-1] or 1))
        elif piece.endswith("K") and piece.startswith("\x1b"):
            lines[row] = ""
        elif piece in ("\r\n", "\n"):
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif not piece.startswith("\x1b[?") and piece != "\r":
            lines[row] += piece
    return lines


PICTURES: dict[str, Callable[[Path, Path], None]] = {
    "learning.gif": write_learning,
    "cartpole.png": write_curve,
    "report.png": write_report,
    "terminal.png": write_terminal,
}


def main() -> None:
    """Write the pictures that are named; all without names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(PICTURES))
    parser.add_argument("--output", type=Path, default=HERE / "images")
    args = parser.parse_args()
    for name in [name for name in args.names if name not in PICTURES]:
        parser.error(f"{name}: no such picture; there are {', '.join(PICTURES)}")
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names or PICTURES:
            PICTURES[name](args.output / name, Path(folder))
            print(f"{args.output / name}: {(args.output / name).stat().st_size:,} bytes", flush=True)


if __name__ == "__main__":
    main()
