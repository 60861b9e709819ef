"""Random settings, right and wrong ones: a run trains, or ends in an error of one line that names a setting."""

from __future__ import annotations

import re
import tempfile
import typing
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from hypothesis import strategies as st

import limelight
from helpers.manual_workers import draw_no_report
from limelight.envs.toy import Aim, Catch, Match, Recall, Ring
from limelight.errors import LimelightError, NonFiniteError
from limelight.settings.io import ALIASES, Setting, all_settings
from limelight.settings.values import options

QUICK: dict[str, Any] = {
    "total_timesteps": 40, "num_envs": 2, "num_steps": 4, "hidden_sizes": (4,), "eval_every": 20, "eval_episodes": 1,
    "final_episodes": 1, "eval_envs": 1, "confirm_episodes": 1, "checkpoint_every": 20, "tensorboard": False,
    "num_workers": None, "backend": "sync", "device": "cpu", "precision": "float32",
}  # fmt: skip
SMALL = {
    "num_envs": 4, "num_steps": 8, "num_epochs": 3, "num_minibatches": 4, "core_size": 5, "total_timesteps": 60,
    "eval_episodes": 2, "final_episodes": 2, "eval_envs": 2, "confirm_episodes": 2,
}  # fmt: skip
"""Largest values of settings that take time or memory; they are allowed more."""
LEFT_OUT = {"run_dir", "env_id", "algo", "asynchronous", "runner", "num_workers"}
"""Settings that the tests choose by themselves."""
WRONG: tuple[Any, ...] = (
    "text", "", "1", None, True, -1, 0, 0.5, 1.5, 10**30, 10**400, -(10**400), 10**5000, float("nan"), float("inf"),
    -1e300, [], {}, [1, "a"], {"a": 1}, b"1", 1j, object(), np.float32(0.5), np.array([1, 2]), np.int64(3),
    np.zeros((3, 3)), np.zeros(999), {1, 2}, len, "a\nb",
)  # fmt: skip
TEXTS = {
    "env_module": ("math", "no_such_module", "", "1/0", "a b", "..", "math\n"),
    "encoder": ("nature", "a3c", "text", "math:pi", "torch.nn:Linear", "torch.nn:", ":", "no_such:thing", "a\nb"),
    "preset": ("auto", "none", "plain", "pong", "text", "", "a\nb"),
    "ray_address": ("auto", "text"),
}
KWARGS: tuple[dict[str, Any], ...] = (
    {},
    {"size": 4},
    {"size": -1},
    {"size": "x"},
    {"size": None},
    {"nope": 1},
    {"": 2},
)


def values(setting: Setting) -> st.SearchStrategy[Any]:
    """Valid values and edges of a setting, as far as they are quick; one in eight is a wrong one."""
    right = st.one_of(*(_right(setting, kind) for kind in options(setting.annotation)))
    return st.integers(0, 7).flatmap(lambda n: st.sampled_from(WRONG) if n == 0 else right)


def _right(setting: Setting, kind: Any) -> st.SearchStrategy[Any]:
    bounds, origin = setting.range, typing.get_origin(kind)
    if setting.name == "env_kwargs":
        return st.sampled_from(KWARGS)
    if origin is Literal:
        return st.sampled_from([name for name in typing.get_args(kind) if name not in ("async", "fastest", "envpool")])
    if setting.name in ("callback", "logger"):
        return st.just([])
    if setting.name == "info_keys":
        return st.lists(st.sampled_from(("success", "sum:x", "")), max_size=2)
    if origin is tuple:
        return st.lists(st.integers(0, 5), max_size=3)
    if kind is bool:
        return st.booleans()
    if kind is str:
        return st.sampled_from(TEXTS.get(setting.name, ("text",)))
    if kind in (int, float) and bounds is not None:
        low = next((bound for bound in (bounds.ge, bounds.gt) if bound is not None), -1e9)
        high = next((bound for bound in (bounds.le, bounds.lt) if bound is not None), None)
        edges = [low, low + 1, *(() if high is None or setting.name in SMALL else (high,))]
        inner = st.integers(int(low), SMALL.get(setting.name, int(min(high or 1e9, 1e9))))
        if kind is float:
            edges += [1e-30, 1e-300, 1e-3, *(() if high is not None else (1e30, 1e300))]
            return st.one_of(st.sampled_from(edges), st.floats(low, 10 if high is None else high))
        return st.one_of(st.sampled_from([int(edge) for edge in edges]), inner)
    return st.none()


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Keyword arguments of train: an environment, an algorithm, and up to six further settings."""
    names = sorted(all_settings().keys() - LEFT_OUT)
    chosen = draw(st.lists(st.sampled_from(names), max_size=6, unique=True))
    run: dict[str, Any] = {
        "env": draw(st.sampled_from((Ring, Aim, Recall, Match, Catch))),
        "algo": draw(st.sampled_from(("a2c", "ac", "ppo", "auto"))), "preset": "plain",
    }  # fmt: skip
    return {**QUICK, **run, **{name: draw(values(all_settings()[name])) for name in chosen}}


def check_config(run: dict[str, Any], *_: Any) -> str:
    """Train, and check the outcome; return what it was."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = limelight.train(run_dir=str(Path(folder) / "run"), quiet=True, **run)
        except LimelightError as error:
            text = str(error)
            assert "\n" not in text, text
            if isinstance(error, NonFiniteError):  # e.g. from a step size of 10
                return "diverged"
            named = set(re.findall(r"\w+", text)) & {*all_settings(), *ALIASES}
            assert named, text
            return f"refused {sorted(named)[0]}"
        assert result.status in ("completed", "reached_return")
        parameters = list(result.agent.model.parameters())
        assert all(np.isfinite(p.detach().numpy()).all() for p in parameters)
        return "trained"


CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]


@settings(max_examples=60, suppress_health_check=CHECKS, phases=(Phase.explicit, Phase.generate))
@given(run=configs())
def test_random_settings_train_or_are_refused_in_one_line(monkeypatch: pytest.MonkeyPatch, run: dict[str, Any]) -> None:
    draw_no_report(monkeypatch)
    event(check_config(run))


@pytest.mark.random
@settings(max_examples=1_000, suppress_health_check=CHECKS, phases=(Phase.explicit, Phase.generate))
@given(run=configs())
def test_a_thousand_random_settings_train_or_are_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, run: dict[str, Any]
) -> None:
    draw_no_report(monkeypatch)
    event(check_config(run))
