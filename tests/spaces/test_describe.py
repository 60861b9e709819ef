from __future__ import annotations

import inspect
import json
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import (
    Box,
    Dict,
    Discrete,
    Graph,
    MultiBinary,
    MultiDiscrete,
    OneOf,
    Sequence,
    Space,
    Text,
    Tuple,
)

from limelight.errors import CheckpointError, EnvError
from limelight.spaces.describe import check_spaces, describe_space, space_difference, space_from_json, space_to_json
from limelight.spaces.packed import MaskSource, Packed

SPACES: list[Space[Any]] = [
    Box(-1.0, 1.0, (3,)),
    Box(0, 255, (4, 84, 84), np.uint8),
    Box(np.float32([-np.inf, -0.1, 1e-30]), np.float32([np.inf, 0.1, 4.8]), dtype=np.float32),
    Box(np.array([[0.1, -np.inf]]), np.array([[0.2, np.inf]]), dtype=np.float64),
    Box(-np.inf, np.inf, (), np.float32),
    Box(0, 2**63 - 1, (2,), np.int64),
    Box(0, 2**64 - 1, (1,), np.uint64),
    Discrete(5),
    Discrete(3, start=-1),
    *([Discrete(3, dtype=np.int32)] if "dtype" in inspect.signature(Discrete).parameters else []),  # Gymnasium 1.2.2
    MultiDiscrete([2, 3, 4]),
    MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[1, 0], [0, -2]]), dtype=np.int32),
    MultiBinary(3),
    MultiBinary([2, 3]),
    Tuple([Discrete(3), Box(0, 1, (2,), np.bool_)]),
    Dict([("b", Discrete(2)), ("a", Tuple([MultiBinary(2), Dict({"c": Box(-1, 1, (1,))})]))]),
]


@pytest.mark.parametrize("space", SPACES, ids=describe_space)
def test_a_space_comes_back_from_json_exactly(space: Space[Any]) -> None:
    text = json.dumps(space_to_json(space), allow_nan=False)
    back = space_from_json(json.loads(text))
    assert back == space
    assert type(back) is type(space)
    assert back.dtype == space.dtype
    assert back.shape == space.shape
    if isinstance(space, Dict) and isinstance(back, Dict):
        assert list(back.spaces) == list(space.spaces)
    if isinstance(space, Box) and isinstance(back, Box):
        assert space.low.tobytes() == back.low.tobytes()
        assert space.high.tobytes() == back.high.tobytes()
        assert len(text) < 300  # the bounds of an image are one number


def test_only_known_spaces_have_a_json_form() -> None:
    with pytest.raises(TypeError, match="no JSON form for space Text"):
        space_to_json(Text(3))
    with pytest.raises(
        CheckpointError, match="space = 'Text': must be one of Box, Discrete, MultiDiscrete, MultiBinary, Dict, Tuple"
    ):
        space_from_json({"space": "Text"})


@pytest.mark.parametrize("space", SPACES, ids=describe_space)
def test_supported_spaces_pass(space: Space[Any]) -> None:
    check_spaces(space, Discrete(2), "x")


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (Text(3), Discrete(2), "observation space Text is not supported (supported: Box, Discrete,"),
        (Dict({"a": Tuple([Text(3)])}), Discrete(2), "observation space Text at ['a'][0] is not supported"),
        (Dict({"a": OneOf([Discrete(2)])}), Discrete(2), "observation space OneOf at ['a'] is not supported"),
        (Sequence(Discrete(2)), Discrete(2), "observation space Sequence is not supported"),
        (Graph(Discrete(2), None), Discrete(2), "observation space Graph is not supported"),
        (Tuple([]), Discrete(2), "observation space Tuple() is empty"),
        (Discrete(2), Dict({"a": Text(3)}), "action space Text at ['a'] is not supported"),
        (Discrete(2), Box(-1, 1, (0,)), "action space Box(0,) float32 is not supported; it must hold"),
        (Packed(Dict({"a": Box(0, 1, (0,))})), Discrete(2), "Box(0,) float32 at ['a']"),
        (Box(0, 1, (2, 0)), Discrete(2), "must hold at least one real number"),
    ],
)
def test_unsupported_spaces_are_named(observation: Space[Any], action: Space[Any], message: str) -> None:
    with pytest.raises(EnvError) as error:
        check_spaces(observation, action, "Some-v0")
    assert str(error.value).startswith("env_id = Some-v0: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_spaces_are_described_in_a_few_words() -> None:
    assert describe_space(Box(0, 255, (84, 84), np.uint8)) == "Box(84, 84) uint8"
    assert describe_space(Discrete(3, start=1)) == "Discrete(3, start=1)"
    assert describe_space(Discrete(3)) == "Discrete(3)"
    assert describe_space(MultiDiscrete([2, 3])) == "MultiDiscrete([2, 3])"
    assert describe_space(MultiBinary(3)) == "MultiBinary(3)"
    nested = Dict({"a": Tuple([Discrete(3), Box(0, 1, (2,))])})
    assert describe_space(nested) == "Dict(a: Tuple(Discrete(3), Box(2,) float32))"
    assert describe_space(Packed(nested)) == describe_space(nested)


@pytest.mark.parametrize("mask", [None, "observation", "info"])
def test_packed_spaces_come_back_from_json(mask: MaskSource | None) -> None:
    space = Packed(Dict([("observation", SPACES[-1]), ("action_mask", MultiBinary(2))]), mask)
    back = space_from_json(json.loads(json.dumps(space_to_json(space), allow_nan=False)))
    assert back == space
    assert isinstance(back, Packed)
    assert back.leaves == space.leaves
    assert back.mask == space.mask


class Pixels(Box):
    """A space of a user's own."""


def test_subclasses_are_supported_and_equal_to_what_they_extend() -> None:
    box = Pixels(-1, 1, (3,), np.float32)
    check_spaces(box, Discrete(2), "env")
    check_spaces(Dict({"x": box}), Discrete(2), "env")
    assert space_difference(box, Box(-1, 1, (3,), np.float32)) is None


def test_a_space_of_another_library_is_named_with_it() -> None:
    foreign = type("Box", (Space,), {})((3,), np.float32)
    with pytest.raises(EnvError, match=r"Box is of .*test_describe and not of gymnasium\.spaces"):
        check_spaces(foreign, Discrete(2), "env")
    with pytest.raises(EnvError, match=r"is no gymnasium\.Space"):
        check_spaces(None, Discrete(2), "env")  # type: ignore[arg-type]


def test_the_difference_of_spaces_is_shown_even_where_their_descriptions_are_equal() -> None:
    low, wide = Box(0, 1, (2,), np.float32), Box(0, np.array([1, 5]), (2,), np.float32)
    assert space_difference(low, wide) == "bounds [0, 1] and [0, 5] of number [1]"
    assert space_difference(low, wide, float_bounds=False) is None
    assert space_difference(Dict({"a": low}), Dict({"a": wide})) == "bounds [0, 1] and [0, 5] of number [1] at ['a']"
    assert space_difference(low, Box(0, 1, (3,), np.float32)) == "Box(2,) float32 and Box(3,) float32"
    assert space_difference(Discrete(3), Discrete(3, start=1)) == "Discrete(3) and Discrete(3, start=1)"


@pytest.mark.parametrize("space", [Discrete(5, start=2**40), MultiDiscrete([2**25, 3]), Discrete(3, start=-(2**30))])
def test_codes_that_a_packed_vector_would_change_are_refused(space: Space[Any]) -> None:
    check_spaces(space, Discrete(2), "alone")
    with pytest.raises(EnvError, match=r"at \['place'\] has codes beyond 16,777,216"):
        check_spaces(Dict({"place": space}), Discrete(2), "packed")
