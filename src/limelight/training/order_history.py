"""What callbacks have ordered during a run, and at which step: a replay, which calls no callback, repeats it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, final

from limelight.envs.attributes import Order
from limelight.errors import ConfigError
from limelight.runners.base import lasting, loaded_orders, saved_orders
from limelight.runs.plain import require_plain
from limelight.typing import State

MOST = 10_000
"""Orders that a checkpoint keeps; of a run with more, none."""


class Ordered(NamedTuple):
    """An order and when it was given."""

    number: int
    """From 0, over the whole run."""
    step: int
    order: Order


@final
class OrderHistory:
    """The orders of a run, oldest first."""

    def __init__(self) -> None:
        self.count = 0
        """Orders so far."""
        self._entries: list[list[Any]] = []

    def add(self, step: int, order: Order) -> None:
        """Note an order that was carried out at ``step``; arguments that no checkpoint can hold are left out."""
        args: list[Any] | None = [list(order.args), dict(order.kwargs)]
        try:
            require_plain(f"call_env = {order.name}", args)
        except ConfigError:
            args = None
        self.count += 1
        if self.count <= MOST:
            self._entries.append([step, order.kind, order.name, order.value, args])
        else:
            self._entries = []

    def since(self, count: int) -> list[Ordered] | None:
        """Return the orders after the first ``count``; None where they are not known in full."""
        new = self._entries[count:]
        if len(self._entries) < self.count or any(entry[4] is None for entry in new):
            return None
        return [
            Ordered(number, int(step), Order(kind, name, value, *args))
            for number, (step, kind, name, value, args) in enumerate(new, count)
        ]

    def get_state(self) -> State:
        """Return all orders as plain data."""
        return {"count": self.count, "entries": self._entries}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from :meth:`get_state`."""
        self.count, self._entries = int(state["count"]), [list(entry) for entry in state["entries"]]


def with_orders(runner: State, new: Sequence[Ordered] | None) -> State:
    """Return the state of a runner after further orders."""
    if not new:
        return runner
    held = functools.reduce(lasting, (ordered.order for ordered in new), loaded_orders(runner["orders"]))
    return {**runner, "orders": saved_orders(held)}
