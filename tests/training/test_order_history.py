"""What callbacks have ordered, for a replay."""

from __future__ import annotations

from typing import Any

from limelight.envs.attributes import Order
from limelight.training import order_history
from limelight.training.order_history import OrderHistory


def filled(*orders: Order) -> OrderHistory:
    history = OrderHistory()
    for step, order in enumerate(orders):
        history.add(10 * step, order)
    return history


def test_orders_come_back_with_their_steps_from_a_saved_state() -> None:
    first, second = Order("set_env_attr", "level", 2.0), Order("call_env", "raise_level", None, [1.0], {"by": 2})
    history = OrderHistory()
    history.set_state(filled(first, second).get_state())
    assert history.since(0) == [(0, 0, first._replace(args=[])), (1, 10, second)]
    assert history.since(1) == [(1, 10, second)]
    assert history.since(2) == []


def test_orders_that_cannot_be_kept_are_not_known_in_full(monkeypatch: Any) -> None:
    odd = filled(Order("call_env", "take", None, [object()]), Order("set_env_attr", "level", 1))
    assert odd.since(0) is None
    assert odd.since(1) is not None
    monkeypatch.setattr(order_history, "MOST", 2)
    many = filled(*[Order("change_setting", "ent_coef", 0.1)] * 3)
    assert many.since(2) is None
    assert many.get_state() == {"count": 3, "entries": []}
