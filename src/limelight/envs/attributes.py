"""Attributes and methods of environments by name, below any wrappers: set and called from outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, NoReturn

from limelight.envs.faults import env_code
from limelight.errors import ConfigError, did_you_mean

_RESERVED = ("reset", "step", "close")


class Order(NamedTuple):
    """What every environment, or the learner of every process, is to do."""

    kind: Literal["set_env_attr", "call_env", "change_setting"]
    name: str
    """Of the attribute, of the method, or of the setting."""
    value: Any = None
    """Of the attribute or setting."""
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = {}


def follow(env: Any, order: Order, env_id: str) -> Any:
    """Set an attribute of an environment, or call a method; return the result of the method.

    Raises: ConfigError if there is none of that name; EnvError if the environment raises.
    """
    owner = _owner(env, order, env_id)
    with env_code(env_id, f"{order.kind}({order.name!r})"):
        if order.kind == "set_env_attr":
            return setattr(owner, order.name, order.value)
        return getattr(owner, order.name)(*order.args, **order.kwargs)


def _owner(env: Any, order: Order, env_id: str) -> Any:
    """Return the outermost layer that has the attribute."""
    if order.name in _RESERVED:
        raise ConfigError(f"{order.kind} = {order.name}: training itself calls it; name another method")
    names: dict[str, None] = {}
    for layer in _layers(env):
        if hasattr(layer, order.name):
            if order.kind == "call_env" and not callable(getattr(layer, order.name)):
                kind = type(getattr(layer, order.name)).__name__
                raise ConfigError(f"call_env = {order.name}: of {env_id} is a {kind}, not a method; use set_env_attr")
            return layer
        names |= dict.fromkeys(name for name in dir(layer) if not name.startswith("_"))
    raise ConfigError(f"{order.kind} = {order.name}: {env_id} has no such attribute{did_you_mean(order.name, names)}")


def _layers(env: Any) -> Iterator[Any]:
    """Yield an environment, vectorised or not, and those it wraps, from the outside in."""
    yield env
    while env is not env.unwrapped:
        env = env.env
        yield env


def refuse_orders(order: Order, backend: str) -> NoReturn:
    """Refuse an order for environments that are no Python objects.

    Raises: ConfigError.
    """
    raise ConfigError(
        f"{order.kind} = {order.name}: the environments of backend {backend} have no attributes; use sync"
    )
