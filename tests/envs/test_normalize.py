"""Which numbers of observations are standardised."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, Tuple

from composite import ROOM
from limelight.config import ConfigError
from limelight.envs.make import make_envs
from limelight.envs.normalize import ObservationNormalizer, make_normalizer
from limelight.packed import Packed


def test_real_numbers_alone_are_standardised() -> None:
    packed = Packed(ROOM)
    normalizer = make_normalizer(packed)
    assert normalizer is not None
    assert normalizer.entries is not None
    real = [leaf for leaf in packed.leaves if leaf.path in {("speed",), ("height",)}]
    entries = np.concatenate([np.arange(leaf.start, leaf.start + leaf.size) for leaf in real])
    assert normalizer.entries.tolist() == entries.tolist()
    rows = np.stack([packed.sample() for _ in range(50)])
    normalizer.update(rows)
    result = normalizer(rows)
    assert result.dtype == np.float32
    others = np.delete(np.arange(rows.shape[1]), entries)
    np.testing.assert_array_equal(result[:, others], rows[:, others])
    plain = ObservationNormalizer((3,))
    plain.update(rows[:, entries])
    np.testing.assert_array_equal(result[:, entries], plain(rows[:, entries]))
    np.testing.assert_array_equal(normalizer(rows[0]), result[0])
    again = make_normalizer(packed)
    assert again is not None
    again.set_state(normalizer.get_state())
    np.testing.assert_array_equal(again(rows), result)


def test_a_plain_box_is_standardised_whole() -> None:
    normalizer = make_normalizer(Box(-1, 1, (2, 3)))
    assert normalizer is not None
    assert normalizer.entries is None
    assert normalizer.moments.mean.shape == (2, 3)


@pytest.mark.parametrize(
    "space",
    [
        Discrete(3),
        Box(0, 255, (9, 9, 3), np.uint8),
        Box(-3, 3, (2,), np.int64),
        Packed(Tuple([Discrete(3), MultiBinary(2)])),
        Packed(Dict({"action_mask": Box(0.0, 1.0, (2,)), "x": Discrete(2)}), "observation"),
    ],
)
def test_nothing_to_standardise(space: object) -> None:
    assert make_normalizer(space) is None  # type: ignore[arg-type]


def test_it_is_refused_where_there_is_nothing() -> None:
    with pytest.raises(ConfigError, match=r"normalize_obs = true: needs Box observations .* set it to false"):
        make_envs("Blackjack-v1", 1, normalize_obs=True)
