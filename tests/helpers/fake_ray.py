"""A stand-in for Ray that runs every task in this process, at once: arguments and results are pickled, and read-only.

Tests of the runner's arithmetic need no processes with it; those in tests/faults use Ray itself.
"""

from __future__ import annotations

import io
import pickle
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import cloudpickle
import pytest
import torch
from ray.exceptions import RayTaskError

from limelight.runners.ray import actors as ray_actors
from limelight.runners.ray import pool as ray_pool
from limelight.runners.ray.cluster import Cluster
from limelight.runners.ray.cluster_watch import ClusterWatch


class NoTensors(cloudpickle.Pickler):
    """Refuses tensors: the receiving process may not have their device."""

    def reducer_override(self, obj: Any) -> Any:
        assert not isinstance(obj, torch.Tensor), "a tensor was sent to another process"
        return super().reducer_override(obj)


def transferred(value: Any) -> Any:
    """Return ``value`` as another process receives it."""
    buffers: list[pickle.PickleBuffer] = []
    file = io.BytesIO()
    NoTensors(file, protocol=5, buffer_callback=buffers.append).dump(value)
    return pickle.loads(file.getvalue(), buffers=[memoryview(bytes(b.raw())).toreadonly() for b in buffers])


class Ref:
    """A reference to the result or the error of a task, or to an object in the store."""

    def __init__(self, value: Any = None, error: Exception | None = None) -> None:
        self.value = value
        self.error = error


@dataclass
class FakeRay:
    """Replaces the module ``ray``."""

    puts: list[Any] = field(default_factory=list)
    """Objects that were put into the store."""
    calls: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    """Names of the methods of actors that were called, with their arguments."""
    actors: list[Any] = field(default_factory=list)
    watch: ClusterWatch = field(default_factory=lambda: ClusterWatch(()))

    def put(self, value: Any) -> Ref:
        self.puts.append(value)
        return Ref(transferred(value))

    def get(self, ref: Ref) -> Any:
        if ref.error is not None:
            raise ref.error
        return transferred(ref.value)

    def wait(self, refs: Sequence[Ref], num_returns: int, timeout: float) -> tuple[list[Ref], list[Ref]]:
        assert 1 <= num_returns <= len(refs)
        return list(refs[:num_returns]), list(refs[num_returns:])

    def kill(self, actor: Any) -> None:
        assert actor in self.actors

    def remote(self, cls: type) -> Any:
        return FakeActorClass(self, cls)

    def call(self, name: str, method: Callable[..., Any], args: tuple[Any, ...]) -> Ref:
        self.calls.append((name, args))
        values = [arg.value if isinstance(arg, Ref) else transferred(arg) for arg in args]
        try:
            return Ref(method(*values))
        except Exception as error:
            return Ref(error=RayTaskError(name, "Traceback of the worker", error).as_instanceof_cause())


@dataclass
class FakeActorClass:
    """Replaces the result of ``ray.remote(cls)``."""

    ray: FakeRay
    cls: type

    def options(self, **options: Any) -> FakeActorClass:
        assert set(options) == {"num_cpus", "num_gpus", "scheduling_strategy"}
        return self

    def remote(self, *args: Any) -> Any:
        actor = FakeActor(self.ray, self.cls(*args))
        self.ray.actors.append(actor)
        return actor


class FakeActor:
    """Replaces the result of ``ray.remote(cls).remote()``; ``real`` is the object itself."""

    def __init__(self, ray: FakeRay, real: Any) -> None:
        self.ray = ray
        self.real = real

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.real, name)

        class Method:
            remote = staticmethod(lambda *args: self.ray.call(name, method, args))

        return Method


@pytest.fixture
def fake_ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeRay]:
    """Replace Ray by a cluster that has room for any number of workers, which ignore Ctrl-C in this process."""
    fake = FakeRay()
    monkeypatch.setattr(ray_pool, "ray", fake)
    monkeypatch.setattr(ray_actors, "ray", fake)
    monkeypatch.setattr(ray_pool, "join", lambda config: Cluster(lambda: None, None, fake.watch))
    monkeypatch.setattr(ray_pool, "free_places", lambda workers: 99)
    before = signal.getsignal(signal.SIGINT)
    yield fake
    signal.signal(signal.SIGINT, before)
    for actor in fake.actors:
        actor.real._threads.close()
