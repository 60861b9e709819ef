"""The exact state of Gymnasium environments as plain data, without pickle.

The state is the attributes of every layer of a wrapper chain. An environment that draws from a global generator is not
restored exactly, which cannot be detected.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Space
from gymnasium.vector import VectorEnv, VectorWrapper
from numpy.typing import NDArray

from limelight.errors import CheckpointError
from limelight.spaces.same_bytes import same_bytes
from limelight.typing import State

SingleOrVectorEnv = gym.Env[Any, Any] | VectorEnv[Any, Any, Any]

# Attributes that only the constructor sets, and sets again when the run resumes.
_STATIC = {"spec", "metadata", "_metadata", "render_mode", "_cached_spec"}
_STATIC |= {"_saved_kwargs", "_ezpickle_args", "_ezpickle_kwargs", "_limelight_reader"}
# Environments with a large table P that is always the same (FrozenLake's may belong to a random map).
_TABLES = {"gymnasium.envs.toy_text.taxi.TaxiEnv", "gymnasium.envs.toy_text.cliffwalking.CliffWalkingEnv"}
_BIT_GENERATORS = {"PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"}
_CONSTANT = (type(None), bool, int, float, str)
_LARGE = 1 << 20
"""Bytes from which an array is copied once for all environments that hold it."""
_MUTABLE = (list, dict, deque, np.ndarray, np.random.Generator)


def get_env_state(env: SingleOrVectorEnv) -> State | None:
    """Return all that ``env`` and its wrappers need to continue exactly; None if it holds more than plain data.

    Plain data: numbers, text, None, NumPy arrays and generators, lists, tuples, dicts and deques of these.
    Two attributes that are the same object are the same object after restoring.
    """
    states = get_env_states([env])
    return None if states is None else states[0]


def set_env_state(env: SingleOrVectorEnv, state: State) -> None:
    """Restore the state of :func:`get_env_state` in a new ``env``, made with the same settings.

    Raises: CheckpointError if the state belongs to another kind of environment.
    """
    set_env_states([env], [state])


def get_env_states(envs: Sequence[SingleOrVectorEnv]) -> list[State] | None:
    """Return the states of several environments, which may share objects (a generator); None if one has no state."""
    memo = _Memo()
    try:
        return [{"layers": [_get_layer(layer, memo) for layer in _layers(env)]} for env in envs]
    except _NotPlainError:
        return None


def set_env_states(envs: Sequence[SingleOrVectorEnv], states: Sequence[State]) -> None:
    """Restore the states of :func:`get_env_states`.

    Raises: CheckpointError if the states belong to other environments.
    """
    saved = [[layer["class"] for layer in state["layers"]] for state in states]
    present = [[_class_name(layer) for layer in _layers(env)] for env in envs]
    if saved != present:
        raise CheckpointError(
            f"env_id: the checkpoint holds {len(saved)} × {_chain(saved)}, but the run has {len(present)} × "
            f"{_chain(present)}; resume with the environment and settings of the run's config.yaml"
        )
    made: list[Any] = []
    for env, state in zip(envs, states, strict=True):
        for layer, data in zip(_layers(env), state["layers"], strict=True):
            _set_layer(layer, data, made)


class _NotPlainError(Exception):
    """An attribute of the environment is not plain data."""


@dataclass
class _Memo:
    """Holds the mutable objects encoded so far, so that an object met twice is restored as one."""

    numbers: dict[int, int] = field(default_factory=dict)
    """id of the object → its number, in the order of encoding."""
    roots: dict[int, int] = field(default_factory=dict)
    """id of the array that owns the memory → id of the first array encoded from it."""
    copies: list[NDArray[Any]] = field(default_factory=list)
    """Copies of large arrays, which other environments may hold too: prices, maps."""


def _layers(env: SingleOrVectorEnv) -> Iterator[Any]:
    """Yield the environment and those it wraps, from the outside in."""
    layer: Any = env
    while isinstance(layer, gym.Wrapper | VectorWrapper):
        yield layer
        layer = layer.env
    yield layer


def _class_name(layer: object) -> str:
    return f"{type(layer).__module__}.{type(layer).__qualname__}"


def _chain(envs: list[list[str]]) -> str:
    return "<".join(name.rpartition(".")[2] for name in envs[0]) if envs else "none"


def _get_layer(layer: Any, memo: _Memo) -> State:
    # Pairs, not dicts: the numbers of _Memo depend on the order, which a file format need not keep.
    spaces = [
        [name, _encode(value._np_random, memo)]  # the generator of its sample(), made on first use
        for name, value in vars(layer).items()
        if isinstance(value, Space) and value._np_random is not None
    ]
    attributes = [
        [name, _encode(value, memo)] for name, value in vars(layer).items() if not _is_static(layer, name, value)
    ]
    return {"class": _class_name(layer), "spaces": spaces, "attributes": attributes}


def _set_layer(layer: Any, data: State, made: list[Any]) -> None:
    attributes = vars(layer)
    for name, rng in data["spaces"]:
        attributes[name]._np_random = _decode(rng, made)
    saved = {name: _decode(value, made) for name, value in data["attributes"]}
    if not all(isinstance(name, str) for name in saved):
        raise CheckpointError(f"the attributes of {data['class']} in the checkpoint have names that are no text")
    for name, value in list(attributes.items()):
        if name not in saved and not _is_static(layer, name, value):
            del attributes[name]  # the saved environment no longer had it
    attributes.update(saved)


def _is_static(layer: Any, name: str, value: Any) -> bool:
    """Return whether only construction decides the attribute: configuration, spaces, functions without state."""
    if name in _STATIC or isinstance(value, Space | EnvSpec | type | np.ufunc):
        return True
    if name == "env" and isinstance(layer, gym.Wrapper | VectorWrapper):
        return True
    if name == "P" and _class_name(layer) in _TABLES:
        return True
    if isinstance(value, FunctionType):  # closure variables may be state, unless they are constants
        return all(type(cell.cell_contents) in _CONSTANT for cell in value.__closure__ or ())
    if isinstance(value, BuiltinFunctionType):
        return value.__self__ is None or isinstance(value.__self__, ModuleType)
    if isinstance(value, MethodType):
        return value.__self__ is layer
    return isinstance(getattr(type(layer), name, None), functools.cached_property)


def _encode(value: Any, memo: _Memo) -> Any:
    """Encode ``value`` as None, bool, int, float, str, numeric array, or a list that starts with a tag."""
    kind = type(value)
    if kind in _CONSTANT:
        return value
    if isinstance(value, np.generic):
        if value.dtype.kind not in "biufU" or (value.dtype.itemsize > 8 and value.dtype.kind != "U"):
            raise _NotPlainError
        return ["scalar", value.dtype.str, _encode(value.item(), memo)]
    if kind is tuple:
        return ["tuple", *(_encode(item, memo) for item in value)]
    if kind not in _MUTABLE:
        raise _NotPlainError
    identity = id(value.bit_generator if kind is np.random.Generator else value)
    if identity in memo.numbers:
        return ["same", memo.numbers[identity]]
    memo.numbers[identity] = len(memo.numbers)
    return _encode_mutable(value, memo)


def _encode_mutable(value: Any, memo: _Memo) -> Any:
    if isinstance(value, np.ndarray):
        return _encode_array(value, memo)
    if isinstance(value, dict):
        return ["dict", *([_encode(k, memo), _encode(v, memo)] for k, v in value.items())]
    if isinstance(value, list):
        return ["list", *(_encode(item, memo) for item in value)]
    if isinstance(value, deque):
        return ["deque", value.maxlen, *(_encode(item, memo) for item in value)]
    state = value.bit_generator.state
    if state["bit_generator"] not in _BIT_GENERATORS:
        raise _NotPlainError
    return ["generator", state]


def _encode_array(array: np.ndarray[Any, Any], memo: _Memo) -> Any:
    """Return a copy, or the raw bytes of arrays that safetensors cannot hold: text, complex, Fortran order."""
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    shared = memo.roots.setdefault(id(root), id(array)) != id(array)
    contiguous = array.flags.c_contiguous or array.flags.f_contiguous
    if shared or not contiguous or array.dtype.kind not in "biufcSU":
        raise _NotPlainError
    kind, native = array.dtype.kind, array.dtype.isnative
    if kind in "biuf" and native and array.dtype.itemsize <= 8 and array.flags.c_contiguous:
        return _copy(array, memo)
    order: Any = "C" if array.flags.c_contiguous else "F"
    data = np.frombuffer(array.tobytes(order), np.uint8).copy()
    return ["array", array.dtype.str, list(array.shape), order, data]


def _copy(array: NDArray[Any], memo: _Memo) -> NDArray[Any]:
    """Return a copy; of a large array that was copied before, by another environment, that copy."""
    if array.nbytes < _LARGE:
        return array.copy()
    for known in memo.copies:
        if known.dtype == array.dtype and known.shape == array.shape and same_bytes(known, array):
            return known
    memo.copies.append(array.copy())
    return memo.copies[-1]


def _decode(value: Any, made: list[Any]) -> Any:
    """Return the value of :func:`_encode`; ``made`` collects the mutable objects in the order of encoding."""
    if isinstance(value, np.ndarray):
        made.append(value.copy())
        return made[-1]
    if not isinstance(value, list):
        return value
    tag, *rest = value
    if tag == "same":
        return made[rest[0]]
    if tag == "scalar":
        return np.dtype(rest[0]).type(_decode(rest[1], made))
    if tag == "tuple":
        return tuple(_decode(item, made) for item in rest)
    return _decode_mutable(tag, rest, made)


def _decode_mutable(tag: str, rest: list[Any], made: list[Any]) -> Any:
    if tag == "array":
        dtype, shape, order, data = rest
        made.append(np.frombuffer(data.tobytes(), dtype).reshape(shape, order=order).copy(order=order))
        return made[-1]
    if tag == "generator":
        if rest[0]["bit_generator"] not in _BIT_GENERATORS:  # a name from a file selects the function called here
            raise CheckpointError(f"bit_generator = {rest[0]['bit_generator']!r}: must be one of NumPy's own")
        generator = np.random.Generator(getattr(np.random, rest[0]["bit_generator"])())
        generator.bit_generator.state = rest[0]
        made.append(generator)
        return generator
    if tag == "dict":
        mapping: dict[Any, Any] = {}
        made.append(mapping)  # before its items, which may refer to the mapping
        mapping.update((_decode(k, made), _decode(v, made)) for k, v in rest)
        return mapping
    items: Any = deque(maxlen=rest.pop(0)) if tag == "deque" else []
    made.append(items)
    items.extend(_decode(item, made) for item in rest)
    return items
