"""Orders to workers: the lasting ones are part of the state, and of what the next worker of a slot receives."""

from __future__ import annotations

from helpers.manual_workers import quick_config
from limelight.envs.attributes import Order
from limelight.runners.base import lasting, loaded_orders, saved_orders
from limelight.runners.processes.runner import ProcessRunner
from limelight.training.run import build


def test_the_last_value_of_each_attribute_lasts_and_calls_do_not() -> None:
    orders: dict[tuple[str, str], Order] = {}
    for order in (
        Order("set_env_attr", "level", 1), Order("call_env", "raise_level"), Order("set_env_attr", "level", 2),
        Order("change_setting", "ent_coef", 0.0),
    ):  # fmt: skip
        orders = lasting(orders, order)
    assert saved_orders(orders) == [["set_env_attr", "level", 2], ["change_setting", "ent_coef", 0.0]]
    assert loaded_orders(saved_orders(orders)) == orders


def test_a_worker_that_is_started_anew_carries_them_out_first() -> None:
    runner, _ = build(quick_config("a3c", env_id="helpers.informing_envs:Informs", total_timesteps=30), None)
    assert isinstance(runner, ProcessRunner)
    try:
        order = Order("set_env_attr", "level", 5.0)
        assert runner.follow(order) == [None, None]
        slot = runner.supervisor.workers[0].slot
        slot.restarts = 1
        assert runner._make_spec(slot).orders == (order,)
        assert runner.num_steps == 0, "workers wait for the first rollout"
        runner.advance(30, 60.0)
        assert {episode.episode_return for episode in runner.pop_episodes()} == {15.0}
    finally:
        runner.close()
