"""Ray's interface as runners/ray.py uses it, in this process: what crosses is pickled, and comes out read-only.

So what the tests of the runner's arithmetic need takes no processes; that Ray itself behaves so, test_ray.py shows.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import pytest
import torch
from ray.exceptions import RayTaskError

from limelight.runners.ray import cluster as ray_cluster
from limelight.runners.ray import runner as ray_runner


class NoTensors(cloudpickle.Pickler):
    """A tensor may be on any device, and the other side need not have that."""

    def reducer_override(self, obj: Any) -> Any:
        assert not isinstance(obj, torch.Tensor), "a tensor was to cross between processes"
        return super().reducer_override(obj)


def crossed(value: Any) -> Any:
    """``value`` as it comes out on the other side."""
    buffers: list[pickle.PickleBuffer] = []
    file = io.BytesIO()
    NoTensors(file, protocol=5, buffer_callback=buffers.append).dump(value)
    return pickle.loads(file.getvalue(), buffers=[memoryview(bytes(b.raw())).toreadonly() for b in buffers])


class Ref:
    """What a task came to, or an object in the store."""

    def __init__(self, value: Any = None, error: Exception | None = None) -> None:
        self.value, self.error = value, error


@dataclass
class FakeRay:
    """Stands in for the module; runs every task at once."""

    puts: list[Any] = field(default_factory=list)
    """What was put into the store."""
    calls: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    """Methods of actors and their arguments."""
    actors: list[Any] = field(default_factory=list)

    def put(self, value: Any) -> Ref:
        self.puts.append(value)
        return Ref(crossed(value))

    def get(self, ref: Ref) -> Any:
        if ref.error is not None:
            raise ref.error
        return crossed(ref.value)

    def wait(self, refs: Sequence[Ref], num_returns: int, timeout: float) -> tuple[list[Ref], list[Ref]]:
        assert 1 <= num_returns <= len(refs)
        return list(refs[:num_returns]), list(refs[num_returns:])

    def kill(self, actor: Any) -> None:
        assert actor in self.actors

    def remote(self, cls: type) -> Any:
        return Maker(self, cls)

    def call(self, name: str, method: Callable[..., Any], args: tuple[Any, ...]) -> Ref:
        self.calls.append((name, args))
        values = [arg.value if isinstance(arg, Ref) else crossed(arg) for arg in args]
        try:
            return Ref(method(*values))
        except Exception as error:
            return Ref(error=RayTaskError(name, "Traceback of the worker", error).as_instanceof_cause())


@dataclass
class Maker:
    """What ``ray.remote(cls)`` is."""

    ray: FakeRay
    cls: type

    def options(self, **options: Any) -> Maker:
        assert set(options) == {"num_cpus", "num_gpus", "scheduling_strategy"}
        return self

    def remote(self, *args: Any) -> Any:
        actor = FakeActor(self.ray, self.cls(*args))
        self.ray.actors.append(actor)
        return actor


class FakeActor:
    """What ``ray.remote(cls).remote()`` is; ``real`` is the object behind it."""

    def __init__(self, ray: FakeRay, real: Any) -> None:
        self.ray, self.real = ray, real

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.real, name)

        class Method:
            remote = staticmethod(lambda *args: self.ray.call(name, method, args))

        return Method


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    """In place of Ray, a cluster that has room for any number of workers."""
    fake = FakeRay()
    monkeypatch.setattr(ray_runner, "ray", fake)
    monkeypatch.setattr(ray_runner, "join", lambda config: (lambda: None, None))
    monkeypatch.setattr(ray_runner, "free_places", lambda workers: 99)
    assert ray_cluster.join is not ray_runner.join
    return fake
