"""Recorded and shown episodes: the observations are those of training, and training itself is unchanged."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import limelight
from helpers.manual_workers import draw_no_report
from helpers.toys import Corridor
from limelight.algo.normalization import make_normalizer
from limelight.cli import main as cli
from limelight.envs.make import make_envs
from limelight.errors import ConfigError, EnvError, LimelightError
from limelight.nn.model import make_model
from limelight.runs.checkpoint import latest_checkpoint, read_state
from limelight.runs.evaluation import play
from limelight.settings.io import with_settings
from limelight.settings.schema import EnvConfig, TrainConfig
from limelight.viewing import frames as frames_module
from limelight.viewing import record as record_module
from limelight.viewing.frames import to_frame
from limelight.viewing.record import record, show

imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
loop_module = importlib.import_module("limelight.training.loop")
QUICK: dict[str, Any] = {
    "quiet": True, "tensorboard": False, "eval_every": 0, "final_episodes": 0, "num_envs": 4, "num_steps": 8,
}  # fmt: skip


def make_agent(env_id: str, **settings: Any) -> limelight.Agent:
    """Return an untrained agent whose actions vary."""
    config = with_settings(TrainConfig(), {"env_id": env_id, "policy_init_gain": 8.0, "hidden_sizes": (8,), **settings})
    envs = make_envs(config.env, num_envs=1)
    spaces = envs.single_observation_space, envs.single_action_space
    envs.close()
    normalizer = None
    if config.env.normalize_obs:
        normalizer = make_normalizer(spaces[0])
        assert normalizer is not None
        normalizer.update(np.random.default_rng(0).normal(1.0, 3.0, (50, *spaces[0].shape)))
    return limelight.Agent(make_model(*spaces, config.model, 1), normalizer, config, *spaces)


class Spy:
    """A policy that stores its observations and actions."""

    def __init__(self, policy: Any) -> None:
        self.policy, self.obs, self.actions, self.starts = policy, [], [], []
        self.to_env, self.recurrent_state = policy.to_env, None

    def act(self, obs: Any, episode_start: Any) -> Any:
        self.obs.append(obs.copy())
        self.starts.append(episode_start.copy())
        self.actions.append(self.policy.act(obs, episode_start))
        return self.actions[-1]


def spied(agent: limelight.Agent, monkeypatch: pytest.MonkeyPatch) -> list[Spy]:
    """Return the list of policies that ``agent`` makes from now on."""
    spies: list[Spy] = []
    policy = agent.policy
    monkeypatch.setattr(agent, "policy", lambda rng: spies.append(Spy(policy(rng))) or spies[-1])
    return spies


def balance(agent: limelight.Agent) -> None:
    """Change the head so that no action is the best one everywhere, as one is for an untrained network."""
    envs = make_envs(agent.config.env, num_envs=1, backend="ale", max_episode_steps=60)
    spy = Spy(agent.policy(np.random.default_rng(0)))
    play(envs, spy, agent.normalize, 1, 0)
    envs.close()
    with torch.no_grad():
        params = agent.model(torch.from_numpy(np.stack(spy.obs))).params
        agent.model.policy_head.linear.bias -= params.mean((0, 1))


def decode(path: Path) -> tuple[str, np.ndarray]:
    """Return the description of the stream and its frames [N, height, width, 3]."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    about = next(line for line in done.stderr.decode().splitlines() if "Video: h264" in line)
    size = re.search(r", (\d+)x(\d+)", about)
    assert size is not None
    return about, np.frombuffer(done.stdout, np.uint8).reshape(-1, int(size[2]), int(size[1]), 3)


@pytest.fixture(scope="module")
def cartpole() -> limelight.Agent:
    return make_agent("CartPole-v1", max_episode_steps=40)


# --------------------------------------------------------------------------- observations


@pytest.mark.slow
@pytest.mark.parametrize(
    ("game", "settings"),
    [
        ("ALE/Pong-v5", {"max_episode_steps": 220}),
        ("Breakout", {"core": "lstm", "core_size": 8, "terminal_on_life_loss": True}),
        ("pong", {"frame_size": 42, "frame_stack": 1, "frame_skip": 3, "noop_max": 5}),
    ],
)
def test_a_recorded_atari_game_has_the_observations_of_the_vector_environment(
    game: str, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ale_py")
    how = {"sticky_actions": 0.25, "max_episode_steps": 110, "encoder": "a3c", **settings}
    agent = make_agent(game, **how)
    balance(agent)
    envs = make_envs(agent.config.env, num_envs=1, backend="ale")
    expected = Spy(agent.policy(None))
    by_ale = play(envs, expected, agent.normalize, 1, seed=7)
    envs.close()
    spies = spied(agent, monkeypatch)
    recorded = record(agent, tmp_path / "game.mp4", seed=7)
    (seen,) = spies
    assert len(seen.obs) == len(expected.obs) == recorded.lengths[0] > 80
    assert len({int(action[0]) for action in expected.actions}) > 1
    for obs, by_vector in zip(seen.obs, expected.obs, strict=True):
        assert obs.dtype == by_vector.dtype == np.uint8
        np.testing.assert_array_equal(obs, by_vector)
    np.testing.assert_array_equal(seen.actions, expected.actions)
    assert recorded == by_ale == limelight.evaluate(agent, episodes=1, seed=7)


@pytest.mark.parametrize(
    ("env_id", "settings"),
    [
        ("CartPole-v1", {"normalize_obs": True, "core": "gru", "core_size": 8}),
        ("Taxi-v4", {"max_episode_steps": 30}),  # masks of actions come in info, observations are packed
        ("MiniGrid-Empty-5x5-v0", {"max_episode_steps": 20}),
        ("limelight.envs.wrappers:masked_cartpole", {}),
    ],
)
@pytest.mark.parametrize("deterministic", [True, False])
def test_other_recorded_environments_give_the_observations_of_an_evaluation(
    env_id: str, settings: dict[str, Any], deterministic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if env_id.startswith("MiniGrid"):
        pytest.importorskip("minigrid")
    agent = make_agent(env_id, **settings)
    spies = spied(agent, monkeypatch)
    how: dict[str, Any] = {"seed": 3, "deterministic": deterministic}
    evaluated = limelight.evaluate(agent, episodes=1, **how)
    assert record(agent, tmp_path / "game.mp4", **how) == evaluated
    np.testing.assert_array_equal(spies[0].obs, spies[1].obs)
    np.testing.assert_array_equal(spies[0].actions, spies[1].actions)
    np.testing.assert_array_equal(spies[0].starts, spies[1].starts)


def test_episodes_of_a_video_are_the_first_ones_of_an_evaluation(tmp_path: Path) -> None:
    """Each starts from the seed of the corresponding environment there."""
    agent = make_agent("FrozenLake-v1", max_episode_steps=30)
    recorded = record(agent, tmp_path / "three.mp4", episodes=4, seed=11)
    assert sorted(recorded.lengths) == sorted(limelight.evaluate(agent, episodes=4, seed=11).lengths)
    assert len(set(recorded.lengths)) > 1


# --------------------------------------------------------------------------- frames


def test_a_frame_is_the_image_enlarged_by_whole_numbers_below_its_caption() -> None:
    image = np.random.default_rng(0).integers(0, 256, (210, 160, 3)).astype(np.uint8)
    frame = to_frame(image, ["score 12", "step 3"], frames_module.ATARI_PIXEL_ASPECT)
    height = frame.shape[0] - 630
    assert frame.shape == (630 + height, 800, 3)
    assert height % 2 == 0 < height
    np.testing.assert_array_equal(frame[height::3, ::5], image)
    np.testing.assert_array_equal(frame[height + 2 :: 3, 4::5], image)
    same, other = (
        to_frame(image, [text], frames_module.ATARI_PIXEL_ASPECT)[:height]
        for text in ("score 12    step 3", "score 13")
    )
    np.testing.assert_array_equal(frame[:height], same)
    assert (frame[:height] != other).any()
    assert frame[:height].max() > 200 > frame[:height].min()  # light letters on a dark strip


@pytest.mark.parametrize(
    ("shape", "factor"), [((7, 5), 68), ((64, 64), 7), ((241, 300), 1), ((401, 599), 1), ((1, 1), 480)]
)
def test_frames_have_even_sides(shape: tuple[int, int], factor: int) -> None:
    image = np.full((*shape, 3), 200, np.uint8)
    frame = to_frame(image, ["score −1,234.5", "step 12"])
    assert frame.shape[0] % 2 == frame.shape[1] % 2 == 0
    assert frame.shape[1] - shape[1] * factor in (0, 1)
    assert (frame == 200).all(2).sum() >= shape[0] * shape[1] * factor**2


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (None, "render returned a NoneType: must be an image"),
        ("+---+", "render returned a str"),
        (np.zeros((4, 4), np.uint8), r"an array \[4, 4\] of uint8"),
        (np.zeros((4, 4, 3), np.float32), r"an array \[4, 4, 3\] of float32"),
        (np.zeros((0, 4, 3), np.uint8), r"an array \[0, 4, 3\] of uint8"),
    ],
)
def test_a_rendered_object_that_is_no_image_is_named(image: Any, words: str) -> None:
    with pytest.raises(EnvError, match=words):
        to_frame(image, [])


def test_the_file_has_every_frame_of_the_episode(cartpole: limelight.Agent, tmp_path: Path) -> None:
    path, outside = tmp_path / "new" / "cartpole.mp4", tmp_path / "outside"
    path.parent.mkdir()
    outside.write_text("precious")
    path.with_name(".cartpole.mp4.tmp").symlink_to(outside)  # as a folder of a stranger may have it
    recorded = record(cartpole, path, seed=2)
    assert outside.read_text() == "precious"
    about, frames = decode(path)
    assert "yuv420p" in about
    assert ", 50 fps," in about
    assert len(frames) == recorded.lengths[0] + 1
    env = gym.make("CartPole-v1", render_mode="rgb_array")
    env.reset(seed=2)
    first = to_frame(env.render(), ["score 0", "step 0"])
    env.close()
    assert frames.shape[1:] == first.shape
    assert np.abs(frames[0].astype(int) - first).mean() < 3  # H.264 loses a little
    assert np.abs(frames[0].astype(int) - frames[-1]).mean() > np.abs(frames[0].astype(int) - frames[1]).mean()
    assert [file.name for file in path.parent.iterdir()] == ["cartpole.mp4"]


def test_an_endless_episode_is_cut(tmp_path: Path) -> None:
    agent = make_agent("CartPole-v1", max_episode_steps=10**6)
    recorded = record(agent, tmp_path / "short.mp4", episodes=5, max_frames=6)
    assert (recorded.lengths, recorded.cut) == ([5], 1)
    assert len(decode(tmp_path / "short.mp4")[1]) == 6
    ends_there = record(make_agent("CartPole-v1", max_episode_steps=5), tmp_path / "whole.mp4", max_frames=6)
    assert (ends_there.lengths, ends_there.cut) == ([5], 0)


def test_a_video_of_an_atari_game_has_the_proportions_of_a_television(tmp_path: Path) -> None:
    pytest.importorskip("ale_py")
    record(make_agent("pong", encoder="a3c", max_episode_steps=4), tmp_path / "pong.mp4")
    about, frames = decode(tmp_path / "pong.mp4")
    assert ", 15 fps," in about
    assert frames.shape[2] == 800
    court = frames[-1, -500:-100]
    assert np.ptp(court.astype(int), axis=2).max() > 50  # in colour


# --------------------------------------------------------------------------- errors


class Still(Corridor):
    """An environment that takes a render_mode and renders images."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012
    images: Callable[[], Any] = staticmethod(lambda: np.zeros((20, 20, 3), np.uint8))

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__()
        self.render_mode = render_mode

    def render(self) -> Any:
        return type(self).images()


class Sizes(Still):
    """Renders images of two sizes."""

    sizes = iter(range(20, 10**6))
    images = staticmethod(lambda: np.zeros((20, next(Sizes.sizes), 3), np.uint8))


class Wrong(Corridor):
    """Claims to render, but takes no render_mode."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012


class Broken(Still):
    """Cannot render."""

    @staticmethod
    def images() -> Any:
        raise OSError("no OpenGL\nanywhere")


class Exits(Still):
    """Ends the process where it is reset to be drawn."""

    def reset(self, **given: Any) -> Any:
        if self.render_mode is not None:
            sys.exit(3)
        return super().reset(**given)


def corridor_agent(cls: type[Still]) -> limelight.Agent:
    agent = make_agent("helpers.toys:Corridor")
    agent.env_factory = cls
    return agent


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (Corridor, "video: helpers.toys:Corridor renders no images; its render modes are none, and rgb_array"),
        (lambda **given: Corridor(**given), "renders no images; its render modes are none"),
        (lambda **given: Wrong(**given), r"cannot be made with render_mode rgb_array \(.*render_mode"),
        (lambda: Still(), "renders no images, as its callable takes no render_mode; add this argument"),
        (
            Broken,
            r"Broken cannot render here: render\(\) raised OSError: no OpenGL anywhere \(test_record.py, line \d+\)$",
        ),
        (Sizes, r"render returned images of two sizes, \(\d+, \d+, 3\) and \(\d+, \d+, 3\)"),
        ("CartPole-v1", "its observation_space is"),
    ],
)
def test_an_environment_that_cannot_be_recorded_is_named(env: Any, words: str, tmp_path: Path) -> None:
    agent = make_agent("helpers.toys:Corridor")
    with pytest.raises(LimelightError, match=words) as error:
        record(agent, tmp_path / "game.mp4", env)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_environment_that_exits_while_videos_are_tried_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvError, match=r"^video_every = 50: .*reset\(\) called sys.exit\(\) \(test_record.py, line"):
        limelight.train(Exits, run_dir=str(tmp_path / "r"), video_every=50, **QUICK)


def test_an_environment_of_a_callable_is_recorded(tmp_path: Path) -> None:
    recorded = record(corridor_agent(Still), tmp_path / "still.mp4", max_frames=3)
    about, frames = decode(tmp_path / "still.mp4")
    assert ", 20 fps," in about
    assert (len(frames), recorded.cut) == (3, 1)


def test_without_ffmpeg_one_line_says_what_to_install(
    cartpole: limelight.Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ConfigError, match=r'video: needs imageio-ffmpeg.*pip install "limelight-rl\[video\]"'):
        record(cartpole, tmp_path / "game.mp4")
    with pytest.raises(ConfigError, match="video_every = 100: needs imageio-ffmpeg"):
        limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), video_every=100, **QUICK)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_named(
    cartpole: limelight.Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"file/game\.mp4: cannot be written"):
        record(cartpole, tmp_path / "file" / "game.mp4")
    (tmp_path / "kept.mp4").write_bytes(b"before")
    monkeypatch.setitem(frames_module._ENCODING, "-c:v", "nonsense")
    with pytest.raises(ConfigError, match=r"kept\.mp4: cannot be written \(ffmpeg: .*nonsense"):
        record(cartpole, tmp_path / "kept.mp4")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "kept.mp4"}
    assert (tmp_path / "kept.mp4").read_bytes() == b"before"


# --------------------------------------------------------------------------- a window


@pytest.fixture
def no_display(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others always have a display, or say so themselves")
def test_without_a_display_one_line_says_so(no_display: None, cartpole: limelight.Agent) -> None:
    with pytest.raises(ConfigError, match=r"render: there is no display here .*; use --video"):
        show(cartpole)


def test_a_display_driver_that_opens_no_window_is_named(
    no_display: None, cartpole: limelight.Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pygame").display.quit()
    monkeypatch.setenv("SDL_VIDEODRIVER", "there_is_none")
    with pytest.raises(ConfigError, match=r"render: no window can be opened here \(.+\); use --video"):
        show(cartpole)


def test_a_window_shows_the_same_episode_and_closing_it_ends_the_show(
    no_display: None, cartpole: limelight.Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pygame = pytest.importorskip("pygame")
    pygame.display.quit()
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    assert show(cartpole, seed=4) == record(cartpole, tmp_path / "game.mp4", seed=4)
    shown: list[np.ndarray] = []
    show_frame = frames_module.Window.show

    def show_three(self: frames_module.Window, frame: np.ndarray) -> bool:
        shown.append(frame)
        if len(shown) == 3:
            pygame.event.post(pygame.event.Event(pygame.QUIT))
        return show_frame(self, frame)

    monkeypatch.setattr(frames_module.Window, "show", show_three)
    closed = show(cartpole, episodes=4, seed=4)
    assert (closed.lengths, closed.cut, len(shown)) == ([2], 1, 3)
    assert not pygame.display.get_init()


# --------------------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a best agent, and the videos of its training."""
    folder = tmp_path_factory.mktemp("recorded") / "run"
    settings = {**QUICK, "eval_every": 200, "eval_episodes": 2, "max_episode_steps": 30, "seed": 5}
    limelight.train("CartPole-v1", run_dir=str(folder), total_timesteps=640, video_every=320, **settings)
    return folder


def test_evaluate_video_prints_the_path(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(run_dir), "--video", "--seed", "3"]) == 0
    result, video = capsys.readouterr().out.splitlines()
    path = run_dir / "videos" / "best-evaluate-seed3.mp4"
    assert video == f"video: {path}"
    about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    assert (about["which"], about["step"], about["seed"], about["sampled"], about["cut"]) == (
        "best",
        None,
        3,
        False,
        False,
    )
    assert f"best agent of {run_dir}: {about['returns'][0]:.1f} ± 0.0 over 1 episode" in result
    assert len(decode(path)[1]) == about["lengths"][0] + 1


def test_evaluate_runs_more_episodes_than_the_video_shows_if_asked_to(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["evaluate", str(run_dir), "--video", "--video-episodes", "2", "--stochastic", "--which", "last", "--json"]
    assert cli.main(argv) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["episodes"] == 2
    path = run_dir / "videos" / "last-evaluate-seed0-stochastic.mp4"
    assert alone["video"] == str(path)
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["sampled"] is True
    assert cli.main([*argv, "--episodes", "7"]) == 0
    both = json.loads(capsys.readouterr().out)
    assert (both["episodes"], both["video"]) == (7, str(path))


def test_a_cut_video_is_reported_as_cut(
    run_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "__kwdefaults__", {**record.__kwdefaults__, "max_frames": 4})
    assert cli.main(["evaluate", str(run_dir), "--video", "--seed", "4"]) == 0
    assert capsys.readouterr().out.splitlines()[1].endswith("seed4.mp4 (cut after 3 steps)")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--render"], "render: there is no display here"),
        (
            ["--video", "--env-id", "helpers.toys:Corridor"],
            "video: helpers.toys:Corridor renders no images",
        ),
    ],
)
def test_errors_are_one_line(
    words: list[str], message: str, run_dir: Path, no_display: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["evaluate", str(run_dir), *words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"limelight: error: {message}")


# --------------------------------------------------------------------------- while training


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_no_report(monkeypatch)


def parameters(run_dir: Path) -> dict[str, Any]:
    """Return everything of the newest checkpoint that learning depends on."""
    newest = latest_checkpoint(run_dir)
    assert newest is not None
    state = read_state(newest)
    del state["config"], state["training"]["runner"]["seconds"], state["training"]["evaluator"]["solved_at"]
    return state


def rows(run_dir: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds" and not k.startswith("time/")} for line in lines]


@pytest.mark.parametrize("settings", [{}, {"normalize_obs": True, "core": "lstm", "core_size": 8}], ids=["mlp", "lstm"])
def test_training_is_bit_for_bit_the_same_with_videos(
    settings: dict[str, Any], tmp_path: Path, no_report: None
) -> None:
    how = {**QUICK, "eval_every": 300, "eval_episodes": 2, "log_every": 100, "total_timesteps": 700, **settings}
    plain = limelight.train("CartPole-v1", run_dir=str(tmp_path / "plain"), **how)
    recorded = limelight.train("CartPole-v1", run_dir=str(tmp_path / "recorded"), video_every=250, **how)
    np.testing.assert_equal(parameters(recorded.run_dir), parameters(plain.run_dir))
    assert rows(recorded.run_dir) == rows(plain.run_dir)
    assert len(list((recorded.run_dir / "videos").glob("*.mp4"))) == 2
    assert not (plain.run_dir / "videos").exists()


def test_videos_of_training_are_named_by_their_steps_and_shown_in_the_report(run_dir: Path) -> None:
    videos = sorted((run_dir / "videos").glob("best-[0-9]*.mp4"))
    steps = [int(path.name.split("-")[1]) for path in videos]
    assert [path.name for path in videos] == [f"best-{step}-seed5.mp4" for step in steps]
    assert [step // 320 for step in steps] == [1, 2]
    page = (run_dir / "report.html").read_text(encoding="utf-8")
    assert page.count('src="data:video/mp4;base64,') == 2
    for step, path in zip(steps, videos, strict=True):
        about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        assert (about["which"], about["step"], about["sampled"]) == ("best", step, False)
        assert f"step {step:,} · return {about['returns'][0]:.4g} · {about['lengths'][0]} steps" in page


def test_videos_of_training_show_the_best_agent(
    tmp_path: Path, no_report: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without evaluations they show the current agent."""
    recorded: list[limelight.Agent] = []
    monkeypatch.setattr(loop_module, "record_to_run", lambda agent, *args, **kwargs: recorded.append(agent))
    how = {**QUICK, "total_timesteps": 600, "video_every": 200}
    settings = {**how, "eval_every": 200, "eval_episodes": 2, "max_episode_steps": 20, "learning_rate": 0.05}
    result = limelight.train("CartPole-v1", run_dir=str(tmp_path / "best"), **settings)
    best = limelight.load(result.run_dir).get_state()["params"]
    np.testing.assert_array_equal(recorded[-1].get_state()["params"], best)
    last = limelight.load(limelight.train("CartPole-v1", run_dir=str(tmp_path / "last"), **how).run_dir)
    np.testing.assert_array_equal(recorded[-1].get_state()["params"], last.get_state()["params"])
    assert len(recorded) == 6


def test_a_failed_video_is_reported_and_the_run_continues(
    tmp_path: Path, no_report: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space\nleft")

    monkeypatch.setattr(loop_module, "record_to_run", fail)
    result = limelight.train("CartPole-v1", run_dir=str(tmp_path / "r"), total_timesteps=300, video_every=150, **QUICK)
    assert result.status == "completed"
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("no video at step ")]
    assert len(lines) == 2
    assert lines[0].endswith(": no space left")


@pytest.mark.parametrize("env", [Corridor, lambda: Still(), Broken], ids=["modes", "argument", "broken"])
def test_a_run_whose_videos_cannot_be_made_does_not_start(env: Any, tmp_path: Path) -> None:
    with pytest.raises(EnvError, match=r"^video_every = 50: .*(renders no images|cannot render here)") as error:
        limelight.train(env, run_dir=str(tmp_path / "r"), video_every=50, **QUICK)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_an_environment_of_a_callable_is_recorded_while_training(tmp_path: Path, no_report: None) -> None:
    result = limelight.train(Still, run_dir=str(tmp_path / "r"), total_timesteps=200, video_every=200, **QUICK)
    assert len(list((result.run_dir / "videos").glob("*.mp4"))) == 1


@pytest.mark.slow
def test_workers_continue_while_a_video_is_made(tmp_path: Path, no_report: None) -> None:
    result = limelight.train(
        "CartPole-v1", algo="a3c", num_workers=2, run_dir=str(tmp_path / "r"), total_timesteps=3_000, video_every=1_000,
        **{**QUICK, "max_episode_steps": 30},
    )  # fmt: skip
    assert result.status == "completed"
    steps = [int(path.name.split("-")[1]) for path in (result.run_dir / "videos").glob("*.mp4")]
    assert steps
    assert all(step >= 1_000 for step in steps)


def test_the_renderer_of_mujoco_is_chosen_only_while_rendering(
    no_display: None, cartpole: limelight.Agent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    asked: list[str | None] = []
    render = record_module._RenderedEnv.frame
    monkeypatch.setattr(
        record_module._RenderedEnv,
        "frame",
        lambda self, words: asked.append(os.environ.get("MUJOCO_GL")) or render(self, words),
    )
    record(cartpole, tmp_path / "game.mp4", max_frames=2)
    assert asked == ["egl" if sys.platform.startswith("linux") else None] * 2
    assert "MUJOCO_GL" not in os.environ
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    record_module.check_video(EnvConfig(), None, "video_every = 1")
    assert asked[2:] == ["osmesa"]
    assert os.environ["MUJOCO_GL"] == "osmesa"
