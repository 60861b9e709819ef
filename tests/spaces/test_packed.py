"""Composite spaces as vectors: packing and unpacking, values that do not fit, equality."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Text, Tuple
from gymnasium.vector.utils import batch_space, create_empty_array, iterate

from helpers.composite_envs import ROOM
from limelight.errors import EnvError
from limelight.spaces.packed import Packed, walk

SPACES: list[Space[Any]] = [
    ROOM,
    Tuple([Discrete(32), Discrete(11), Discrete(2)]),
    Dict({"a": Tuple([Dict({"b": Box(-1.0, 1.0, (2, 3))})])}),
    Dict({"image": Box(0, 255, (4, 5), np.uint8), "mask": MultiBinary(3), "place": Discrete(256)}),
    MultiDiscrete(np.array([[2, 3], [4, 5]]), start=np.array([[1, 0], [0, -2]])),
]


def same(a: Any, b: Any) -> None:
    """Check equality in structure, types, dtypes and numbers; of float64 in the precision of float32."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        a, b = tuple(a.values()), tuple(b.values())
    if isinstance(a, tuple):
        for x, y in zip(a, b, strict=True):
            same(x, y)
        return
    assert a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=1e-6)
    assert a.shape == b.shape


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_unpacking_inverts_packing(space: Space[Any]) -> None:
    packed = Packed(space)
    packed.seed(3)
    space.seed(4)
    for _ in range(20):
        value = space.sample()
        vector = packed.pack(value)
        assert vector.shape == packed.shape
        assert vector.dtype == packed.dtype
        same(packed.unpack(vector), value)
        assert vector in packed
        assert packed.sample() in packed


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_batches_are_rows(space: Space[Any]) -> None:
    packed = Packed(space)
    space.seed(1)
    values = [space.sample() for _ in range(3)]
    rows = np.stack([packed.pack(value) for value in values])
    nested = packed.unpack(rows)
    np.testing.assert_array_equal(packed.pack_batch(nested), rows)
    for i, row in enumerate(rows):
        same(packed.unpack(row), copy.deepcopy(values[i]))
    shapes = [np.shape(part) for part in parts_of(nested)]
    assert shapes == [(3, *(leaf.space.shape or ())) for leaf in packed.leaves]


def parts_of(nested: Any) -> list[Any]:
    if isinstance(nested, dict):
        nested = tuple(nested.values())
    return [part for item in nested for part in parts_of(item)] if isinstance(nested, tuple) else [nested]


def test_bytes_stay_bytes() -> None:
    assert Packed(SPACES[1]).dtype == np.uint8
    assert Packed(SPACES[3]).dtype == np.uint8
    assert Packed(Tuple([Discrete(257)])).dtype == np.float32
    assert Packed(Tuple([Discrete(2, start=-1)])).dtype == np.float32
    assert Packed(Tuple([MultiDiscrete([2], start=np.array([255]))])).dtype == np.float32
    assert Packed(Tuple([Box(0.0, 1.0, (1,))])).dtype == np.float32


def test_leaves_follow_one_another() -> None:
    packed = Packed(ROOM)
    starts = [leaf.start for leaf in packed.leaves]
    assert starts == [0, *np.cumsum([leaf.size for leaf in packed.leaves])[:-1]]
    assert packed.shape == (sum(leaf.size for leaf in packed.leaves),)
    assert [leaf.path for leaf in packed.leaves] == [path for path, _ in walk(ROOM)]
    assert ("inside", 1, "dials") in [leaf.path for leaf in packed.leaves]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"speed": None}, "no ['speed']: the value has 'camera', 'count', 'height', 'inside', 'lamp'"),
        ({"speed": np.zeros(3)}, "['speed'] has shape (3,): must be Box(2,) float64"),
        ({"inside": 3}, "no ['inside'][0]: ['inside'] is a int"),
        ({"inside": (5, {"bits": np.zeros((2, 2)), "dials": [0, 0]})}, "['inside'][0] = 5: must be Discrete(3"),
        ({"inside": (-2, {"bits": np.zeros((2, 2)), "dials": [0, 0]})}, "['inside'][0] = -2: must be Discrete(3"),
        (
            {"inside": (0, {"bits": np.full((2, 2), 2), "dials": [0, 0]})},
            "['inside'][1]['bits'][0, 0] = 2: must be MultiBin",
        ),
        (
            {"inside": (0, {"bits": np.zeros((2, 2)), "dials": [0, 5]})},
            "['inside'][1]['dials'][1] = 5: must be MultiDis",
        ),
    ],
)
def test_values_that_do_not_fit_are_named(change: dict[str, Any], message: str) -> None:
    packed = Packed(ROOM)
    value = {**ROOM.sample(), **change}
    value = {key: part for key, part in value.items() if part is not None}
    with pytest.raises(ValueError, match=r"^") as error:
        packed.pack(value)
    assert message in str(error.value)


def test_rows_that_do_not_fit_are_named() -> None:
    packed = Packed(Dict({"a": Box(-1, 1, (2,)), "b": Discrete(3)}))
    for value in ({"a": np.zeros((4, 2)), "b": np.zeros(3)}, {"a": np.float32(3), "b": np.zeros(1)}):
        with pytest.raises(ValueError, match=r"must (have 4|be Box)"):
            packed.pack_batch(value)


def test_equal_spaces_have_the_same_parts_in_the_same_order() -> None:
    a, b = ("a", Discrete(2)), ("b", Box(0, 1, (1,)))
    assert Dict([a, b]) == Dict([b, a])
    assert Packed(Dict([a, b])) != Packed(Dict([b, a]))
    assert Packed(Dict([a, b])) == Packed(Dict([a, b]))
    assert Packed(Dict([a, b])) != Packed(Tuple([a[1], b[1]]))
    assert Packed(Dict([a])) != Box(0, 255, (1,), np.uint8)
    mask = Dict({"action_mask": MultiBinary(2), "x": Discrete(2)})
    assert Packed(mask) != Packed(mask, "observation")
    assert Packed(mask, "observation") != Packed(mask, "info")


def test_the_mask_is_a_leaf_that_is_not_visible() -> None:
    space = Dict({"action_mask": MultiBinary(2), "inner": Dict({"action_mask": Discrete(2)})})
    assert Packed(space).mask is None
    assert len(Packed(space).visible) == 2
    packed = Packed(space, "observation")
    assert packed.mask is not None
    assert packed.mask.part == slice(0, 2)
    assert [leaf.path for leaf in packed.visible] == [("inner", "action_mask")]


def test_other_parts_are_refused() -> None:
    with pytest.raises(EnvError, match=r"\['a'\]\[0\]: cannot be a part"):
        Packed(Dict({"a": Tuple([Text(3)])}))


def test_gymnasium_takes_it_for_a_box() -> None:
    packed = Packed(ROOM)
    assert pickle.loads(pickle.dumps(packed)) == packed
    assert copy.deepcopy(packed) == packed
    assert batch_space(packed, 4).shape == (4, *packed.shape)
    rows = create_empty_array(packed, 4)
    assert rows.shape == (4, *packed.shape)
    assert len(list(iterate(batch_space(packed, 4), rows))) == 4
    assert "camera" in repr(packed)
