"""Hypothesis strategies for environments, right and wrong ones, and the environment that follows such a plan."""

from __future__ import annotations

import copy
import sys
import warnings
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Sequence, Space, Text, Tuple
from hypothesis import strategies as st

from limelight.envs.masks import choices
from limelight.spaces.describe import LARGEST_CODE
from limelight.spaces.packed import SIMPLE, walk

FLOATS = (np.float16, np.float32, np.float64)
INTEGERS = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)

# --------------------------------------------------------------------------- spaces


@st.composite
def boxes(draw: st.DrawFn, shapes: st.SearchStrategy[tuple[int, ...]], dtypes: tuple[Any, ...]) -> Box:
    """Boxes of these dtypes; bounds finite, infinite, one-sided or of one point."""
    dtype, shape = draw(st.sampled_from(dtypes)), draw(shapes)
    if dtype is np.bool_:
        return Box(0, 1, shape, dtype)
    whole = dtype in INTEGERS
    info = np.iinfo(dtype) if whole else np.finfo(dtype)
    low, high = draw(
        st.sampled_from(((0, 1), (0, 5), (3, 3), (0, int(info.max) if whole else np.inf)))
        if whole and info.min == 0
        else st.sampled_from(
            ((-1, 1), (2, 5), (3, 3), (-100, 7), (int(info.min), int(info.max)))
            if whole
            else ((-1.0, 1.0), (2.0, 5.5), (3.0, 3.0), (-np.inf, np.inf), (0.0, np.inf), (-np.inf, 1.0))
        )
    )
    return Box(np.full(shape, low, dtype), np.full(shape, high, dtype), shape, dtype)


def simple(shapes: st.SearchStrategy[tuple[int, ...]], dtypes: tuple[Any, ...]) -> st.SearchStrategy[Space[Any]]:
    """The simple spaces."""
    sizes = st.integers(1, 5)
    return st.one_of(
        boxes(shapes, dtypes),
        st.builds(lambda n, start: Discrete(n, start=start), sizes, st.sampled_from((0, 0, 1, -3, 2**40))),
        st.builds(lambda nvec: MultiDiscrete(np.array(nvec)), st.lists(sizes, min_size=1, max_size=3)),
        st.builds(
            lambda nvec, start: MultiDiscrete(np.array([nvec, nvec]), start=np.full((2, len(nvec)), start)),
            st.lists(sizes, min_size=1, max_size=2),
            st.sampled_from((0, 1, -2)),
        ),
        st.builds(MultiBinary, st.one_of(sizes, st.just([2, 2]))),
    )


def nested(parts: st.SearchStrategy[Space[Any]]) -> st.SearchStrategy[Space[Any]]:
    """Simple spaces, and Dicts and Tuples of them, up to two levels deep."""
    return st.recursive(
        parts,
        lambda inner: st.one_of(
            st.dictionaries(st.sampled_from(("a", "b", "z", "action mask")), inner, min_size=1, max_size=3).map(Dict),
            st.lists(inner, min_size=1, max_size=3).map(Tuple),
        ),
        max_leaves=4,
    )


SHAPES = st.sampled_from(((), (1,), (3,), (2, 3), (5, 5, 3), (1, 2, 2, 2)))
OBSERVATION_SPACES = nested(simple(SHAPES, (*FLOATS, *INTEGERS, np.bool_)))
ACTION_SPACES = nested(simple(st.sampled_from(((), (1,), (2,), (2, 2))), (*FLOATS * 5, np.int8)))
UNSUPPORTED = st.sampled_from(
    (
        Text(4), Sequence(Discrete(3)), Box(-1.0, 1.0, (0,)), Dict({}), Dict(a=Dict({}), b=Tuple(())), None, "Box",
        Dict(a=Discrete(2), b=Text(3)), Tuple((Box(0, 1, (0, 3)), Discrete(2))),
    )
)  # fmt: skip


def sample(space: Space[Any], rng: np.random.Generator) -> Any:
    """Return a value of ``space``; numbers of infinite intervals are normal."""
    if isinstance(space, Dict):
        return {key: sample(part, rng) for key, part in space.spaces.items()}
    if isinstance(space, Tuple):
        return tuple(sample(part, rng) for part in space.spaces)
    if isinstance(space, Discrete):
        return space.start + rng.integers(space.n)
    if isinstance(space, MultiDiscrete):
        return space.start + rng.integers(0, space.nvec)
    if isinstance(space, MultiBinary):
        return rng.integers(0, 2, space.shape).astype(np.int8)
    if not isinstance(space, Box):
        return 0
    if space.dtype.kind == "b":
        return rng.integers(0, 2, space.shape).astype(bool)
    if space.dtype.kind == "f":
        return np.asarray(np.clip(rng.standard_normal(space.shape), space.low, space.high), space.dtype)
    return np.asarray(rng.integers(space.low, space.high, endpoint=True, dtype=space.dtype), space.dtype)


# --------------------------------------------------------------------------- wrong observations

SPOILERS: dict[str, Any] = {
    "text": "north", "none": None, "object": object(), "ragged": [[1.0, 2.0], [3.0]], "shape": np.zeros((7, 2, 9)),
    "complex": 1j, "bytes": b"12", "mapping": {"x": 1}, "date": np.datetime64("2020-01-01"),
    "nan": np.nan, "infinity": np.inf, "half": 0.5, "million": 1_000_000, "minus": -70_000, "1e300": 1e300,
    "googol": 10**100, "list": None, "float64": None, "missing": None, "extra": None,
}  # fmt: skip
NEVER_FIT = ("text", "none", "object", "ragged", "shape", "complex", "bytes", "mapping", "date", "nan", "infinity")


def spoil(space: Space[Any], obs: Any, how: str, index: int) -> Any:
    """Return a copy of ``obs`` with one part replaced by one that does not fit; list, float64 and extra do."""
    parts = list(walk(space))
    path, leaf = parts[index % len(parts)]
    obs = copy.deepcopy(obs)
    if how == "extra":
        return {**obs, "more": 1} if isinstance(obs, dict) else (*obs, 1) if isinstance(obs, tuple) else obs
    if how == "missing" and path:
        return {} if isinstance(space, Dict) else ()
    return replaced(obs, path, lambda value: _spoilt(leaf, value, how))


def replaced(obs: Any, path: tuple[Any, ...], change: Any) -> Any:
    """Return ``obs`` with the part at ``path`` changed."""
    if not path:
        return change(obs)
    first, *rest = path
    new = replaced(obs[first], tuple(rest), change)
    if isinstance(obs, dict):
        return {**obs, first: new}
    return (*obs[:first], new, *obs[first + 1 :])


def _spoilt(leaf: Space[Any], value: Any, how: str) -> Any:
    if how == "list":
        return np.asarray(value).tolist()
    if how == "float64":
        return np.asarray(value, np.float64)
    replacement = SPOILERS[how]
    if how in ("nan", "infinity", "half", "million", "minus", "1e300", "googol"):
        return np.full(leaf.shape or (), replacement)
    return replacement


def must_be_refused(space: Space[Any], how: str, index: int) -> bool:
    """Return whether docs/environments.md refuses the observations of :func:`spoil`."""
    parts = list(walk(space))
    path, leaf = parts[index % len(parts)]
    if how in NEVER_FIT:
        return True
    if how == "missing":
        return bool(path)
    whole = not isinstance(leaf, Box) or leaf.dtype.kind != "f"
    return whole and (how in ("half", "1e300", "googol") or (how in ("million", "minus") and not isinstance(leaf, Box)))


# --------------------------------------------------------------------------- rewards, ends, infos, exceptions

GOOD_REWARDS: dict[str, Any] = {
    "float": 0.5, "int": 3, "bool": True, "float32": np.float32(0.25), "array": np.array([1.5]), "list": [1.0],
    "scalar": np.array(2), "million": 1e6,
}  # fmt: skip
BAD_REWARDS: dict[str, Any] = {
    "nan": np.nan, "infinity": -np.inf, "1e300": 1e300, "text": "much", "digits": "1.5", "bytes": b"1.5", "none": None,
    "complex": 1 + 2j, "numpy complex": np.complex64(1 + 2j), "two": np.array([1.0, 2.0]), "mapping": {}, "no": [],
    "googol": 10**400, "date": np.timedelta64(3, "s"), "array of text": np.array(["1.5"]), "object": object(),
}  # fmt: skip
ENDS: dict[str, Any] = {
    "bool": bool, "numpy": np.bool_, "int": int, "array": lambda end: np.array([end]),
}  # fmt: skip
ODD_ENDS: dict[str, Any] = {
    "none": None, "text": "no", "nan": np.nan, "two": np.array([True, False]), "list": [], "object": object(),
}  # fmt: skip
INFOS: dict[str, Any] = {
    "empty": {}, "text": {"episode": "text", "final_obs": 3, "_final_obs": None}, "numbers": {1: 2, None: 3},
    "function": {"f": len}, "nan": {"x": np.nan}, "episode": {"episode": {"r": 1.0, "l": 3}},
}  # fmt: skip
ODD_INFOS: dict[str, Any] = {
    "none": None,
    "list": [],
    "number": 3,
    "text": "action_mask",
}
MASKS = ("none", "legal", "some", "no action", "short", "text", "nan", "missing later", "ragged")


class RudeError(Exception):
    """An exception of several lines."""

    def __str__(self) -> str:
        return "first line\nsecond\tline"


ERRORS: dict[str, BaseException] = {
    "runtime": RuntimeError("the simulator broke"), "lines": RudeError(), "key": KeyError("place"),
    "stop": StopIteration(),
    "unpack": ValueError("not enough values to unpack (expected 2, got 1)"), "pipe": BrokenPipeError(),
    "eof": EOFError(), "memory": MemoryError(), "type": TypeError("unexpected keyword argument 'seed'"),
    "assertion": AssertionError(), "exit": SystemExit(), "exit 3": SystemExit(3), "exit text": SystemExit("bye\nbye"),
    "warning": UserWarning("as an error"), "overflow": OverflowError(), "group": ExceptionGroup("g", [ValueError()]),
}  # fmt: skip
RESULTS: dict[str, Any] = {"none": None, "observation": np.zeros(3), "three": (0, 0.0, True), "text": "result"}


@dataclass(frozen=True)
class Plan:
    """What an environment has and does; the fault is in step ``at`` of every copy, where 0 is the first reset."""

    observation_space: Any
    action_space: Any
    seed: int = 0
    length: int | None = 5
    """Steps of an episode; None: it never ends."""
    end: str = "terminated"
    """terminated, truncated or both."""
    end_type: str = "bool"
    reward: str = "float"
    info: str = "empty"
    mask: str = "none"
    fault: tuple[str, str] | None = None
    """Kind (observation, reward, end, info, reset, step, close, init, result) and name in the table of that kind."""
    at: int = 3
    part: int = 0
    log: list[Any] = field(default_factory=list, compare=False, repr=False)
    """Observations of every copy, in order."""
    actions: list[Any] = field(default_factory=list, compare=False, repr=False)
    """Actions that were not in the action space."""

    def __call__(self) -> PlannedEnv:
        return PlannedEnv(self)

    def is_refused(self, max_episode_steps: int | None = None) -> bool:
        """Return whether a run must end in an error, if every copy comes to step ``at``."""
        if self.fault is None:
            return False
        kind, name = self.fault
        if kind == "observation":
            return must_be_refused(self.observation_space, name, self.part)
        if kind == "reset":  # the first one is before step ``at``, and a second one is at the end of an episode
            return self.at == 0 or self.length is not None or max_episode_steps is not None
        in_steps = kind in ("result", "reward", "end") and self.at > 0
        return in_steps or kind in ("step", "init") or (kind, self.at) == ("result", 0)

    def may_be_refused(self) -> bool:
        """Return whether anything here is wrong or odd, or not supported."""
        spaces = (self.observation_space, self.action_space)
        plain = all(any(True for _ in walk(space)) for space in spaces) and all(
            isinstance(part, SIMPLE) and 0 not in part.shape for space in spaces for _, part in walk(space)
        )
        large = plain and any(
            isinstance(part, Discrete) and part.start > LARGEST_CODE
            for space in spaces
            for path, part in walk(space)
            if path or self.mask != "none"
        )
        whole = plain and any(isinstance(p, Box) and p.dtype.kind != "f" for _, p in walk(self.action_space))
        return not plain or large or whole or self.mask not in ("none", "legal", "some") or self.fault is not None


class PlannedEnv(gym.Env[Any, Any]):
    """Follows a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.observation_space, self.action_space = plan.observation_space, plan.action_space
        self.rng = np.random.default_rng(plan.seed)
        self.total = 0
        self.steps = 0
        self.seen: list[Any] = []
        plan.log.append(self.seen)
        self.fail("init", True)

    def fail(self, kind: str, now: bool) -> None:
        """Raise if the plan says so."""
        if self.plan.fault is not None and self.plan.fault[0] == kind and now:
            error = ERRORS[self.plan.fault[1]]
            if isinstance(error, SystemExit):
                sys.exit(error.code)
            raise error

    def now(self, kind: str) -> str | None:
        """Return the name of the fault of this kind in this step."""
        fault = self.plan.fault
        return fault[1] if fault is not None and fault[0] == kind and self.total == self.plan.at else None

    def observe(self) -> Any:
        space = self.plan.observation_space
        obs = sample(space, self.rng)
        how = self.now("observation")
        if how is not None:
            obs = spoil(space, obs, how, self.plan.part)
        self.seen.append(obs)
        return obs

    def info(self) -> Any:
        odd = self.now("info")
        if odd is not None:
            return ODD_INFOS[odd]
        mask, total = self.mask(), sum(choices(self.plan.action_space))
        return {**INFOS[self.plan.info], **({} if mask is None or not total else {"action_mask": mask})}

    def mask(self) -> Any:
        sizes, kind = choices(self.plan.action_space), self.plan.mask
        if kind == "none" or (kind == "missing later" and self.total >= self.plan.at):
            return None
        wrong = self.total >= self.plan.at
        if kind == "legal" or kind == "missing later" or (kind != "some" and not wrong):
            return np.ones(sum(sizes), np.int8)
        first = np.concatenate([np.arange(n) == 0 for n in sizes]) if sizes else np.zeros(0)
        return {
            "some": first.astype(np.int8), "no action": np.zeros(sum(sizes)), "short": np.ones(sum(sizes) + 1),
            "text": "all", "nan": np.full(sum(sizes), np.nan), "ragged": [[1], [1, 1]],
        }[kind]  # fmt: skip

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.fail("reset", self.total >= self.plan.at)
        self.steps = 0
        result = (self.observe(), self.info())
        return RESULTS[self.plan.fault[1]] if self.plan.at == 0 and self.now("result") and self.plan.fault else result

    def step(self, action: Any) -> Any:
        self.total += 1
        self.steps += 1
        with warnings.catch_warnings(action="ignore"):  # a Box of no dimension gets a number, and warns
            if not self.plan.action_space.contains(action):
                self.plan.actions.append(action)
        self.fail("step", self.total >= self.plan.at)
        plan = self.plan
        is_end = plan.length is not None and self.steps >= plan.length
        ends = [ENDS[plan.end_type](is_end and plan.end in (name, "both")) for name in ("terminated", "truncated")]
        odd_end, bad_reward, result = self.now("end"), self.now("reward"), self.now("result")
        if result is not None:
            return RESULTS[result]
        if odd_end is not None:
            ends[plan.part % 2] = ODD_ENDS[odd_end]
        reward = GOOD_REWARDS[plan.reward] if bad_reward is None else BAD_REWARDS[bad_reward]
        return (self.observe(), reward, *ends, self.info())

    def close(self) -> None:
        self.fail("close", True)


def _faults() -> st.SearchStrategy[tuple[str, str]]:
    tables = {
        "observation": SPOILERS, "reward": BAD_REWARDS, "end": ODD_ENDS, "info": ODD_INFOS, "reset": ERRORS,
        "step": ERRORS, "close": ERRORS, "init": ERRORS, "result": RESULTS,
    }  # fmt: skip
    weights = ("observation",) * 6 + ("reward",) * 3 + tuple(tables)
    return st.sampled_from(weights).flatmap(lambda kind: st.sampled_from(list(tables[kind])).map(lambda n: (kind, n)))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans of environments: a third are right, a third have one fault, the others odd masks or spaces."""
    observation, action = draw(OBSERVATION_SPACES), draw(ACTION_SPACES)
    kind = draw(st.sampled_from(("right", "right", "fault", "fault", "mask", "space")))
    if kind == "space":
        bad = draw(UNSUPPORTED)
        observation, action = (bad, action) if draw(st.booleans()) else (observation, bad)
    return Plan(
        observation, action, draw(st.integers(0, 999)), draw(st.sampled_from((1, 2, 5, 5, None))),
        draw(st.sampled_from(("terminated", "truncated", "both"))), draw(st.sampled_from(list(ENDS))),
        draw(st.sampled_from(list(GOOD_REWARDS))), draw(st.sampled_from(list(INFOS))),
        draw(st.sampled_from(MASKS)) if kind == "mask" else "none",
        draw(_faults()) if kind == "fault" else None, draw(st.integers(0, 8)), draw(st.integers(0, 3)),
    )  # fmt: skip
