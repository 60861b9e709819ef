"""Types and ranges of settings: values from Python and from the words of a command line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from helpers.settings import one_line, train_config
from limelight.errors import ConfigError
from limelight.settings.schema import EnvKwargs
from limelight.settings.values import Range, parse_words, require_short, to_text


def test_a_path_of_any_possible_length_passes(tmp_path: Path) -> None:
    for name in ("a", "n" * 255, "/".join(["d" * 200] * 15), "é" * 127, "nul\0", "", ".."):
        require_short("run_dir", tmp_path / name)
    with pytest.raises(ConfigError, match=r"run_dir = .*: a name in it has 256 bytes; at most 255 are possible"):
        require_short("run_dir", tmp_path / ("é" * 128))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gama": 0.9}, "gama: no such setting; did you mean gamma?"),
        ({"zzzzzz": 0.9}, "zzzzzz: no such setting"),
        ({"lr": 0.9, "learning_rate": 0.9}, "lr: is called learning_rate here, which is given too; leave one out"),
        ({"gamma": "high"}, "gamma = 'high': must be a number"),
        ({"gamma": True}, "gamma = True: must be a number"),
        ({"gamma": None}, "gamma = None: must be a number"),
        ({"critic": np.zeros(2)}, "critic = array([0., 0.]): must be shared | separate | target"),
        ({"gamma": 10**400}, f"gamma = 1{'0' * 99} …: must be a number"),
        ({"gamma": 10**5000}, "gamma = a number of thousands of digits: must be a number"),
        ({"gamma": np.zeros((2, 2))}, "gamma = array([[0., 0.], [0., 0.]]): must be a number"),
        ({"num_envs": 1.5}, "num_envs = 1.5: must be a whole number"),
        ({"num_envs": True}, "num_envs = True: must be a whole number"),
        ({"num_envs": math.inf}, "num_envs = inf: must be a whole number"),
        ({"num_envs": math.nan}, "num_envs = nan: must be a whole number"),
        ({"critic": "twin"}, "critic = 'twin': must be shared | separate | target"),
        ({"critic": ["shared"]}, "critic = ['shared']: must be shared | separate | target"),
        ({"normalize_obs": 1}, "normalize_obs = 1: must be true or false"),
        ({"preset": 3}, "preset = 3: must be text"),
        ({"hidden_sizes": 64}, "hidden_sizes = 64: must be a list, each a whole number"),
        ({"hidden_sizes": ["64"]}, "hidden_sizes = '64': must be a whole number"),
        ({"env_kwargs": "x"}, "env_kwargs = 'x': must be a mapping"),
        (
            {"env_kwargs": {"a": object}},
            "env_kwargs.a = <class 'object'>: must be a whole number or a number or true or false or text or a list or "
            "a mapping or none",
        ),
        ({"reward_clip": "off"}, "reward_clip = 'off': must be a number or none"),
        ({"run_dir": 7}, "run_dir = 7: must be text or none"),
    ],
)
def test_wrong_names_and_types_are_refused_in_words(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        train_config(**values)
    assert one_line(error) == message


def test_numbers_and_lists_are_converted_to_their_type_and_values_of_a_union_stay() -> None:
    config = train_config(gamma=1, num_envs=8.0, hidden_sizes=[32.0, 16], reward_clip=2, run_dir=None)
    assert (config.algorithm.gamma, type(config.algorithm.gamma)) == (1.0, float)
    assert (config.env.num_envs, type(config.env.num_envs)) == (8, int)
    assert config.model.hidden_sizes == (32, 16)
    assert type(config.algorithm.reward_clip) is float
    kwargs = train_config(env_kwargs={"f": 10.0, "i": 1, "b": True, "s": "1"}).env.env_kwargs
    assert [type(value) for value in kwargs.values()] == [float, int, bool, str]


@pytest.mark.parametrize(
    ("words", "annotation", "value"),
    [
        (["1e6"], int, 1_000_000),
        (["200_000"], int | None, 200_000),
        (["None"], int | None, None),
        (["none"], str, "none"),
        (["-1e2"], float, -100.0),
        (["12"], str, "12"),
        (["TRUE"], bool, True),
        (["b"], Literal["a", "b"], "b"),
        (["a", "b"], tuple[Path, ...], (Path("a"), Path("b"))),
        (["a", "true", "b", "2", "c", "2.0", "d", "1e3", "e", "x"], EnvKwargs,
         {"a": True, "b": 2, "c": 2.0, "d": 1e3, "e": "x"}),
        (["a", "nan", "b", "inf", "c", "-Infinity", "d", "1e999", "e", ".nan", "f", "-.INF"], EnvKwargs,
         {"a": "nan", "b": "inf", "c": "-Infinity", "d": "1e999", "e": math.nan, "f": -math.inf}),
        (["[1, 2]"], list[Any], [1, 2]),
        (["inf"], float, math.inf),
        ([], EnvKwargs, {}),
        ([], tuple[int, ...], ()),
    ],
)  # fmt: skip
def test_words_become_values_of_their_type(words: list[str], annotation: Any, value: Any) -> None:
    parsed = parse_words("x", words, annotation)
    assert repr(parsed) == repr(value)  # == alone lets 1 pass for 1.0 and True


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["how=raise"], "; give: --env-kwargs how raise"),
        (["a=1", "b=x y"], "; give: --env-kwargs a 1 b 'x y'"),  # two words are a pair, but no name has "="
        (["a=", "b=c=d", "e=f"], "; give: --env-kwargs a '' b c=d e f"),
        (["how"], ""),
        (["a=1", "b"], ""),
        (["=1"], ""),
    ],
)
def test_words_that_are_no_pairs_are_refused_with_the_fix(words: list[str], fix: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_words("env_kwargs", words, EnvKwargs)
    assert one_line(error) == f"env_kwargs = {' '.join(words)}: must be KEY VALUE pairs{fix}"


def test_a_value_may_have_an_equals_sign() -> None:
    assert parse_words("env_kwargs", ["map", "a=b"], EnvKwargs) == {"map": "a=b"}


@pytest.mark.parametrize(
    "value", [None, True, 3, 0.5, "text", (8, 6), {"a": 1, "b": "x", "c": False}, {"a": math.inf, "b": "nan"}]
)
def test_the_text_of_a_value_is_read_back_as_that_value(value: Any) -> None:
    kinds = {dict: EnvKwargs, tuple: tuple[int, ...], type(None): int | None}
    assert parse_words("x", to_text(value).split(), kinds.get(type(value), type(value))) == value


@pytest.mark.parametrize(
    ("bounds", "interval", "inside", "outside"),
    [
        (Range(ge=0, lt=1), "[0, 1)", [0, 0.5], [-0.1, 1, math.nan, math.inf]),
        (Range(gt=0, le=1), "(0, 1]", [1e-9, 1], [0, 1.1]),
        (Range(ge=1), "[1, ∞)", [1, 10**400], [0, math.inf]),
        (Range(), "(−∞, ∞)", [-1e300, 0], [math.inf, -math.inf, math.nan]),
    ],
)
def test_a_range_is_an_interval_of_finite_numbers(
    bounds: Range, interval: str, inside: list[float], outside: list[float]
) -> None:
    assert str(bounds) == interval
    assert all(value in bounds for value in inside)
    assert not any(value in bounds for value in outside)
    for value in outside:
        with pytest.raises(ConfigError, match=r"x = .*: must be "):
            bounds.check("x", value)
