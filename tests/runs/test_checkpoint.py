"""Saved state: exact, checksummed, and loadable at every moment, wherever the writer is killed."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import limelight
from limelight.errors import CheckpointError, ConfigError, FirstNonFiniteError, NonFiniteError
from limelight.runs import checkpoint
from limelight.runs.checkpoint import (
    NUMBERS,
    checkpoints,
    describe_skipped,
    fitting,
    has_state,
    latest_checkpoint,
    read_state,
    save_checkpoint,
    write_state,
)

DTYPES = ["bool", "int8", "uint8", "int16", "int32", "int64", "uint64", "float16", "float32", "float64"]


def assert_same(a: Any, b: Any) -> None:
    """Equal in type, dtype, shape, order of keys and every bit (any nan counts as the same)."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert a.tobytes() == b.tobytes()
    elif isinstance(a, float):
        assert (math.isnan(a) and math.isnan(b)) or (a == b and math.copysign(1, a) == math.copysign(1, b))
    else:
        assert a == b


arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
leaves = st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats() | st.text(max_size=8) | arrays
keys = st.text(max_size=6) | st.sampled_from(["$tensor", "$float", "$", "$$x", "__metadata__", "a.b", "a"])
states = st.dictionaries(
    keys,
    st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
        max_leaves=8,
    ),
    max_size=4,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(state=states)
def test_everything_comes_back_exactly(state: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / "state"
    write_state(folder, state)
    assert_same(read_state(folder), state)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (2, 3)])
def test_every_dtype_and_shape_comes_back(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(math.prod(shape)).reshape(shape).astype(dtype)
    write_state(tmp_path / "s", {"a": array})
    loaded = read_state(tmp_path / "s")["a"]
    assert_same(loaded, array)
    assert loaded.flags.writeable


def test_arrays_of_any_layout_and_scalars_come_back(tmp_path: Path) -> None:
    array = np.arange(12.0).reshape(3, 4)
    state = {
        "transposed": array.T,
        "strided": array[::2, ::-1],
        "fortran": np.asfortranarray(array),
        "big_endian": array.astype(">f8"),
        "scalar": np.float64(0.5),
    }
    write_state(tmp_path / "s", state)
    loaded = read_state(tmp_path / "s")
    for name, value in state.items():
        np.testing.assert_array_equal(loaded[name], value)
    assert loaded["big_endian"].dtype == np.float64
    assert loaded["scalar"].shape == ()


def test_values_that_look_like_the_encoding_are_kept(tmp_path: Path) -> None:
    a, b = np.zeros(2), np.ones(2)
    state = {
        "a.b": a, "a": {"b": b}, "$tensor": "a", "x": {"$float": "nan", "$$": 1}, "é": b, "\ud800": a,
        "y": [math.nan, math.inf, -math.inf],
    }  # fmt: skip
    write_state(tmp_path / "s", state)
    assert_same(read_state(tmp_path / "s"), state)


def test_tensors_tuples_and_generator_states_come_back(tmp_path: Path) -> None:
    weights = torch.nn.Linear(3, 2).weight
    generator = np.random.default_rng(5)
    state = {
        "w": weights,
        "rng": generator.bit_generator.state,
        "torch": torch.get_rng_state(),
        "sizes": (1, (2.5,)),
    }
    write_state(tmp_path / "s", state)
    loaded = read_state(tmp_path / "s")
    assert isinstance(loaded["w"], np.ndarray)
    np.testing.assert_array_equal(loaded["w"], weights.detach().numpy())
    np.testing.assert_array_equal(loaded["torch"], torch.get_rng_state().numpy())
    assert loaded["sizes"] == [1, [2.5]]
    other = np.random.default_rng(0)
    other.bit_generator.state = loaded["rng"]
    assert other.random() == generator.random()


@pytest.mark.parametrize(
    ("state", "place"),
    [
        ({"a": {"b": [1, {2, 3}]}}, r"state\.a\.b\[1\]: a set"),
        ({"a": np.array(["x"])}, r"state\.a: an array of <U1"),
        ({"a": np.array([None])}, r"state\.a: an array of object"),
        ({"a": {1: 2}}, r"state\.a: the key 1 is a int"),
    ],
)
def test_a_value_that_cannot_be_saved_is_named(tmp_path: Path, state: dict[str, Any], place: str) -> None:
    with pytest.raises(TypeError, match=place):
        write_state(tmp_path / "s", state)
    assert not (tmp_path / "s").exists()


def test_there_is_no_pickle_on_disk(tmp_path: Path) -> None:
    write_state(tmp_path / "s", {"a": np.ones(3), "b": 1})
    assert {p.name for p in (tmp_path / "s").iterdir()} == {"state.json", "tensors.safetensors"}
    assert json.loads((tmp_path / "s" / "state.json").read_text())["content"]["state"]["b"] == 1


# --------------------------------------------------------------------------- damage

STATE = {"step": 12, "nan": math.nan, "nested": {"rng": 2**127 + 1, "a": np.arange(4.0)}}


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
def test_any_flipped_byte_is_noticed(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "s"
    write_state(folder, STATE)
    original = (folder / name).read_bytes()
    for position in range(0, len(original), 3):
        damaged = bytearray(original)
        damaged[position] ^= 1 << (position % 8)
        (folder / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=name):
            read_state(folder)


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
@pytest.mark.parametrize("size", [0, 1, 0.5, -1])
def test_a_file_that_was_cut_short_is_named(tmp_path: Path, name: str, size: float) -> None:
    folder = tmp_path / "s"
    write_state(folder, STATE)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: int(len(data) * size) if isinstance(size, float) else size])
    with pytest.raises(CheckpointError, match=f"{name}: damaged"):
        read_state(folder)


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    write_state(tmp_path / "s", STATE)
    (tmp_path / "s" / name).unlink()
    with pytest.raises(CheckpointError, match=f"{name}: no such file"):
        read_state(tmp_path / "s")


def test_a_missing_folder_and_an_unreadable_file_are_named(tmp_path: Path) -> None:
    assert not has_state(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="nowhere"):
        read_state(tmp_path / "nowhere")
    (tmp_path / "s" / "state.json").mkdir(parents=True)
    with pytest.raises(CheckpointError, match=r"state\.json: cannot be read"):
        read_state(tmp_path / "s")


def test_a_later_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FORMAT", 3)
    write_state(tmp_path / "s", STATE)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format = 3"):
        read_state(tmp_path / "s")


# --------------------------------------------------------------------------- a writer that is killed


class Killed(BaseException):
    """Simulates a power cut: nothing of the writer runs after it."""


KILLABLE = [(os, "fsync"), (os, "rename"), (os, "mkdir"), (shutil, "rmtree")]


def fail_from(
    patch: pytest.MonkeyPatch, call: int, error: BaseException, functions: list[tuple[Any, str]]
) -> list[str]:
    """Record the calls that change names or durability; from number ``call`` on, each raises ``error``."""
    calls: list[str] = []

    def failing(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            calls.append(original.__name__)
            if len(calls) > call:
                raise error
            return original(*args, **kwargs)

        return wrapped

    for module, name in functions:
        patch.setattr(module, name, failing(getattr(module, name)))
    return calls


def number_of_calls(tmp_path: Path, functions: list[tuple[Any, str]]) -> int:
    with pytest.MonkeyPatch.context() as patch:
        write_state(tmp_path / "count", {"v": 1})
        calls = fail_from(patch, 10**9, Killed(), functions)
        write_state(tmp_path / "count", {"v": 2})
        return len(calls)


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    seen = set()
    total = number_of_calls(tmp_path, KILLABLE)
    for call in range(total):
        folder = tmp_path / str(call) / "best"
        write_state(folder, {"v": 1})
        with pytest.MonkeyPatch.context() as patch:
            fail_from(patch, call, Killed(), KILLABLE)
            with pytest.raises(Killed):
                write_state(folder, {"v": 2})
        assert has_state(folder)
        seen.add((folder.exists(), read_state(folder)["v"]))
        write_state(folder, {"v": 3})  # the next writer succeeds, and cleans up
        assert read_state(folder)["v"] == 3
        assert [p.name for p in folder.parent.iterdir()] == ["best"]
    assert total >= 8
    assert seen == {(True, 1), (False, 1), (True, 2)}  # (False, 1): found under its temporary name


def test_a_failing_disk_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    seen = []
    functions = [(os, "fsync"), (os, "rename"), (os, "mkdir")]
    for call in range(number_of_calls(tmp_path, functions)):
        folder = tmp_path / str(call) / "best"
        write_state(folder, {"v": 1})
        with pytest.MonkeyPatch.context() as patch:
            fail_from(patch, call, OSError(28, "No space left on device"), functions)
            with pytest.raises(OSError, match="No space left"):
                write_state(folder, {"v": 2})
        seen.append(read_state(folder)["v"])
    assert seen == [1] * (len(seen) - 1) + [2]  # the last call only makes the finished swap durable


def test_a_failed_swap_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "best"
    write_state(folder, {"v": 1})
    rename = os.rename

    def fails_to_rename_in(source: Path, target: Path) -> None:
        if source.name == ".best.tmp":
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails_to_rename_in)
    with pytest.raises(OSError, match="Input/output"):
        write_state(folder, {"v": 2})
    assert [p.name for p in tmp_path.iterdir()] == ["best"]
    assert read_state(folder)["v"] == 1


def test_folders_are_not_opened_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint.os, "open", lambda *_: pytest.fail("opened a folder"))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.os, "name", "nt")
        checkpoint._fsync_folder(tmp_path)


# --------------------------------------------------------------------------- the checkpoints of a run


def names(run_dir: Path) -> list[str]:
    return sorted(p.name for p in (run_dir / "checkpoints").iterdir())


def test_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (5, 40, 300, 2000):
        folder = save_checkpoint(tmp_path, step, {"step": step}, keep_last=2)
        assert folder == tmp_path / "checkpoints" / f"step_{step:012d}"
    assert names(tmp_path) == ["step_000000000300", "step_000000002000"]
    assert latest_checkpoint(tmp_path) == folder
    assert read_state(folder) == {"step": 2000}
    save_checkpoint(tmp_path, 2001, {}, keep_last=1)
    assert names(tmp_path) == ["step_000000002001"]


def test_saving_the_same_step_again_replaces_it(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"v": 1}, keep_last=2)
    folder = save_checkpoint(tmp_path, 1, {"v": 2}, keep_last=2)
    assert read_state(folder) == {"v": 2}
    assert names(tmp_path) == ["step_000000000001"]


def test_nothing_is_removed_before_the_new_one_is_durable(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"v": 1}, keep_last=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_fsync_folder", lambda folder: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(OSError, match="full"):
            save_checkpoint(tmp_path, 2, {"v": 2}, keep_last=1)
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert read_state(latest) == {"v": 1}


def test_damaged_checkpoints_are_skipped_and_a_resumed_run_removes_them(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, step, {"step": step, "a": np.ones(3)}, keep_last=9)
    folders = checkpoints(tmp_path)
    assert [f.name[-1] for f in folders] == ["1", "2", "3", "4"]
    (folders[3] / "state.json").unlink()
    (folders[2] / "tensors.safetensors").write_bytes(b"short")
    assert latest_checkpoint(tmp_path) == folders[1]
    (tmp_path / "checkpoints" / "mine").mkdir()
    save_checkpoint(tmp_path, 3, {}, keep_last=2)
    assert names(tmp_path) == ["mine", "step_000000000002", "step_000000000003"]


def test_loading_names_what_is_wrong_with_the_only_checkpoint(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, 1, {"a": np.ones(3)}, keep_last=1)
    (folder / "tensors.safetensors").write_bytes(b"short")
    for which in ("best", "last"):
        with pytest.raises(CheckpointError, match=r"step_000000000001.* damaged"):
            limelight.load(tmp_path, which)


def test_remains_of_a_killed_writer_are_read_and_removed(tmp_path: Path) -> None:
    first = save_checkpoint(tmp_path, 1, {"v": 1}, keep_last=3)
    first.rename(first.with_name(f".{first.name}.old"))  # killed between the two renames
    (first.parent / ".step_000000000002.tmp").mkdir()
    assert latest_checkpoint(tmp_path) == first
    assert read_state(first) == {"v": 1}
    save_checkpoint(tmp_path, 3, {"v": 3}, keep_last=3)
    assert names(tmp_path) == [".step_000000000001.old", "step_000000000003"]


def test_a_run_without_checkpoints_has_no_latest_one(tmp_path: Path) -> None:
    assert checkpoints(tmp_path) == []
    assert latest_checkpoint(tmp_path) is None


def test_large_arrays_that_are_equal_are_written_once(tmp_path: Path) -> None:
    prices = np.random.default_rng(0).random(50_000)
    other = prices + 1.0
    write_state(tmp_path / "a", {"own": [prices, prices.copy(), other]})
    assert (tmp_path / "a" / "tensors.safetensors").stat().st_size < 2.1 * prices.nbytes
    first, second, third = read_state(tmp_path / "a")["own"]
    np.testing.assert_array_equal(first, prices)
    np.testing.assert_array_equal(second, prices)
    np.testing.assert_array_equal(third, other)
    first[0] = -1.0
    assert second[0] == prices[0]


def test_equal_arrays_are_one_where_restoring_copies_them_and_several_elsewhere(tmp_path: Path) -> None:
    """As many as this would not be read if each were a copy."""
    prices = np.random.default_rng(0).random(1 << 17)
    write_state(tmp_path / "a", {"envs": [prices] * 400, "train_states": [{"params": prices}] * 400,
                                 "callbacks": {"envs": [prices, prices]}})  # fmt: skip
    state = read_state(tmp_path / "a")
    assert {id(array) for array in state["envs"]} == {id(each["params"]) for each in state["train_states"]}
    state["envs"][0][0] = -1.0
    first, second = state["callbacks"]["envs"]
    second[0] = -2.0
    np.testing.assert_array_equal(first, prices)


@pytest.mark.parametrize("links", [True, False])
def test_what_does_not_change_in_environments_is_on_the_disk_once(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints link one file; without hard links each has its own."""
    if not links:

        def refuse(*args: Any) -> None:
            raise OSError("not on this disk")

        monkeypatch.setattr(os, "link", refuse)
    prices, weights = np.random.default_rng(0).random(200_000), np.zeros(200_000)
    for step in (1, 2, 3):
        envs = [{"prices": prices}, {"prices": prices.copy(), "t": step}]
        save_checkpoint(tmp_path, step, {"weights": weights + step, "actor": {"envs": envs}}, keep_last=2)
    kept = checkpoints(tmp_path)
    files = [next(folder.glob("array_*")) for folder in kept]
    assert [file.stat().st_nlink for file in files] == ([2, 2] if links else [1, 1])
    assert (kept[0] / checkpoint.TENSORS).stat().st_nlink == 1
    shutil.rmtree(kept[0])
    state = read_state(kept[1])
    for env in state["actor"]["envs"]:
        np.testing.assert_array_equal(env["prices"], prices)
    np.testing.assert_array_equal(state["weights"], weights + 3)
    data = bytearray(files[1].read_bytes())
    data[-1] ^= 1
    files[1].write_bytes(data)
    with pytest.raises(CheckpointError, match=r"array_.*damaged"):
        read_state(kept[1])
    newest = save_checkpoint(tmp_path, 4, {"actor": {"envs": [{"prices": prices}]}}, keep_last=2)
    np.testing.assert_array_equal(read_state(newest)["actor"]["envs"][0]["prices"], prices)  # not the damaged file


def test_the_file_of_a_damaged_checkpoint_and_the_one_used_instead_are_named(tmp_path: Path) -> None:
    older, newer = (save_checkpoint(tmp_path, step, {"a": np.arange(step)}, keep_last=5) for step in (10, 20))
    assert describe_skipped(tmp_path, newer) is None
    (newer / "tensors.safetensors").write_bytes(b"")
    line = describe_skipped(tmp_path, older)
    assert line is not None
    assert f"{newer / 'tensors.safetensors'}: damaged" in line
    assert line.endswith(f"goes on from {older.name}, the newest that is intact")


# --------------------------------------------------------------------------- data of another form


@pytest.mark.parametrize(
    "read", [lambda state: state["a"], lambda state: state["n"].shape, lambda state: int(state["text"])]
)
def test_data_of_another_form_become_one_line_with_the_place_in_the_code(read: Callable[[Any], Any]) -> None:
    line = r"^run: not what .* saves \(.*; test_checkpoint.py, line \d+\)$"
    with pytest.raises(CheckpointError, match=line), fitting("run"):
        read({"n": 1, "text": "x"})


def test_a_fault_of_the_code_keeps_its_traceback() -> None:
    class Own:
        """Has no attributes."""

    with pytest.raises(AttributeError), fitting("run"):
        Own().missing  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(KeyError), fitting("run", NUMBERS):
        {}["missing"]


def test_an_error_of_the_library_keeps_its_kind_and_what_it_holds() -> None:
    error = ConfigError("gamma = 2: too large")
    error.from_callback = True
    with pytest.raises(ConfigError, match=r"^run: gamma = 2: too large$") as raised, fitting("run"):
        raise error
    assert raised.value.from_callback
    with pytest.raises(NonFiniteError, match=r"^run: loss = nan$"), fitting("run"):
        raise FirstNonFiniteError("loss", float("nan"))
