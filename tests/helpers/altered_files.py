"""Files that are cut or altered, and plain data of any kind, for tests with Hypothesis."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

numbers = st.integers(-(10**400), 10**400) | st.floats() | st.sampled_from([1e308, -1e308, 1e-320, 2**63, -(2**63), 0])
plain = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def cut_or_altered(data: bytes, draw: Any) -> bytes:
    """Data that are cut short, with bytes replaced or put in."""
    altered = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(altered) - 1)))
        piece = draw(st.binary(max_size=3) | st.sampled_from([b"-", b"9", b"null", b"NaN", b"1e999", b"{", b"[", b","]))
        altered[at : at + draw(st.integers(0, 3))] = piece
    return bytes(altered[: draw(st.integers(0, len(altered)) | st.just(len(altered)))])


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values in nested data."""
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(deeper for key, child in children for deeper in paths_of(child, (*path, key)))]


def put(value: Any, path: tuple[Any, ...], new: Any) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new
