"""Files of strangers: no code of theirs runs, nothing is written, and time and memory are bounded."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import resource
import shutil
import signal
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rich.console
import safetensors.numpy
import yaml

import limelight
from helpers.commands import refusal
from helpers.saved_runs import checkpoint_of, copy_of_run, rewrite
from limelight.cli import main as cli
from limelight.errors import CheckpointError, LimelightError
from limelight.runs.array_file import array_file
from limelight.runs.reader import read_run
from limelight.settings.io import load_yaml
from limelight.viewing.console import ConsoleLogger

MEMORY = 600 << 20
"""Bytes that reading may add."""
PAGE = os.sysconf("SC_PAGE_SIZE")


class Evil:
    def __reduce__(self) -> Any:
        return (os.system, ("touch /tmp/limelight-was-here",))


class NotBoundedError(BaseException):
    """A test took more time or memory than it may; no handler of the library takes it for a damaged file."""


def watch_memory(most: int, done: threading.Event) -> None:
    """Interrupt the main thread by a signal where the process has more memory than it may."""
    while not done.wait(0.02):
        if memory()[1] > most:
            os.kill(os.getpid(), signal.SIGALRM)
            return


def memory() -> tuple[int, int]:
    """Bytes of the address space and of the memory of this process; 0 where /proc does not say."""
    statm = Path("/proc/self/statm")
    pages = statm.read_text().split() if statm.exists() else "00"
    return int(pages[0]) * PAGE, int(pages[1]) * PAGE


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """Fail where a test takes long, leaves a mark or takes much memory, and end it then."""
    mark = Path("/tmp/limelight-was-here")
    mark.unlink(missing_ok=True)

    def end(*_: Any) -> None:
        raise NotBoundedError

    before, done = signal.signal(signal.SIGALRM, end), threading.Event()
    limits, (space, own) = resource.getrlimit(resource.RLIMIT_AS), memory()
    if space:  # one call of C that reads without an end hears no signal
        resource.setrlimit(resource.RLIMIT_AS, (space + 4 * MEMORY, limits[1]))
    watch = threading.Thread(target=watch_memory, args=(own + MEMORY, done))
    began = time.process_time()
    signal.alarm(30)
    watch.start()
    try:
        yield
    finally:
        done.set()
        watch.join()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert not mark.exists()
    assert time.process_time() - began < 5.0


def zip_bomb() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data", bytes(20 << 20))
    return file.getvalue()


def npz() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.array([Evil()], object))
    return file.getvalue()


CONTENTS: dict[str, Callable[[], bytes]] = {
    "a pickle": lambda: pickle.dumps(Evil()),
    "a pickle of NumPy": npz,
    "a zip bomb": zip_bomb,
    "a huge header": lambda: (1 << 40).to_bytes(8, "little") + b"{}",
    "deep lists": lambda: b"[" * 200_000,
    "deep objects": lambda: b'{"a":' * 200_000,
    "a deep format": lambda: b'{"format":2,"sha256":"","content":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "a large number": lambda: b'{"format":2,"sha256":"","content":' + b"9" * 100_000 + b"}",
    "an empty file": lambda: b"",
    "zeros": lambda: bytes(100_000),
    "a list": lambda: b"[]",
    "null": lambda: b"null",
}


@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
@pytest.mark.parametrize("kind", CONTENTS)
def test_another_content_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    run = copy_of_run(tmp_path)
    for folder in (run / "best", checkpoint_of(run)):
        (folder / name).write_bytes(CONTENTS[kind]())
    for which in ("best", "last"):
        with pytest.raises(CheckpointError, match=name):
            limelight.load(run, which)


@pytest.mark.parametrize("kind", CONTENTS)
def test_arrays_of_another_content_with_the_right_digest_are_refused(kind: str, tmp_path: Path) -> None:
    run, data = copy_of_run(tmp_path), CONTENTS[kind]()
    (run / "best" / "tensors.safetensors").write_bytes(data)
    rewrite(run / "best", lambda content: content.update(tensors_sha256=sha256(data).hexdigest()))
    with pytest.raises(CheckpointError, match="best"):
        limelight.load(run)


@pytest.mark.parametrize(
    "name", ["../../outside", "/etc/passwd", "array_../x.safetensors", "/dev/zero", "array_" + "0" * 64 + "/../../x"]
)
def test_names_that_lead_elsewhere_are_not_opened(name: str, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    run = copy_of_run(tmp_path)
    rewrite(run / "best", lambda content: content.update(arrays={"x": name}))
    with pytest.raises(CheckpointError, match="is no name of a file of arrays") as error:
        limelight.load(run)
    assert "secret" not in str(error.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
@pytest.mark.parametrize("name", ["state.json", "tensors.safetensors"])
@pytest.mark.parametrize("kind", ["pipe", "device", "kernel", "sparse"])
def test_files_without_an_end_are_refused(kind: str, name: str, tmp_path: Path) -> None:
    run = copy_of_run(tmp_path)
    endless(run / "best" / name, kind)
    with pytest.raises(CheckpointError, match=name):
        limelight.load(run)


def grow(place: str) -> Callable[[dict[str, Any]], Any]:
    def change(content: dict[str, Any]) -> None:
        state = content["state"]
        if place == "hidden":
            state["config"]["model"]["hidden_sizes"] = [3_000, 3_000, 3_000]
        elif place == "many":
            state["config"]["model"]["hidden_sizes"] = [1] * 100_000
        elif place == "wide":
            state["config"]["model"]["hidden_sizes"] = [2_000]
            state["observation_space"].update(shape=[40_000], low=0.0, high=1.0)
        elif place == "slow":  # its initial weights are drawn unit by unit
            state["config"]["model"].update(sparse_init=0.5, orthogonal_init=False)
            state["action_space"]["n"] = 200_000
        elif place == "long":
            state["observation_space"].update(dtype="S1000000000")
        elif place == "negative":
            box = {**state["observation_space"], "low": 0.0, "high": 1.0}
            boxes = [{**box, "shape": [n]} for n in (3 * 10**8, -3 * 10**8)]
            packed = {"space": "Packed", "original": {"space": "Tuple", "spaces": boxes}, "mask": None}
            state["observation_space"] = packed
        elif place == "box":
            state["observation_space"].update(shape=[3_000, 3_000], low=0.0, high=1.0)
        else:
            state["action_space"]["n"] = 10**7

    return change


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("hidden", "hidden layers of .* weights in a network of 35 "),
        ("many", r"hidden_sizes = \[1, 1, .*: must be one or more widths, at most 100"),
        ("wide", "a network of 80,008,003 weights for 35 saved parameters"),
        ("slow", "a network of 1,000,025 weights for 35 saved parameters"),
        ("long", r"dtype = \|S1000000000: must be one of numbers"),
        ("negative", "observation_space of 600,000,00. numbers for a network of 35 "),
        ("box", "observation_space of 9,000,000 numbers for a network of 35 "),
        ("actions", "action_space of 10,000,00. numbers for a network of 35 "),
    ],
)
def test_a_small_file_makes_no_large_network(place: str, reason: str, tmp_path: Path) -> None:
    """The sizes are just beyond the bounds, so that this test takes little memory without them."""
    run = copy_of_run(tmp_path)
    rewrite(run / "best", grow(place))
    with pytest.raises(LimelightError, match=f"best: {reason}"):
        limelight.load(run)


def arrays_of(folder: Path, **arrays: np.ndarray[Any, Any]) -> str:
    """Add to the file of arrays, and return its digest."""
    data = safetensors.numpy.save({**safetensors.numpy.load_file(folder / "tensors.safetensors"), **arrays})
    (folder / "tensors.safetensors").write_bytes(data)
    return sha256(data).hexdigest()


@pytest.mark.parametrize("place", ["junk", "params", "callbacks"])
def test_a_small_file_names_no_array_many_times(place: str, tmp_path: Path) -> None:
    """Each reference is a copy: these would take 1.2 GB."""
    run = copy_of_run(tmp_path)
    digest = arrays_of(run / "best", x=np.zeros(1 << 17))
    many = [{"$tensor": "x"}] * 1_200

    def change(content: dict[str, Any]) -> None:
        content.update(tensors_sha256=digest)
        content["state"][place] = {"envs": many} if place == "callbacks" else many

    rewrite(run / "best", change)
    assert (run / "best" / "state.json").stat().st_size < 30_000
    with pytest.raises(CheckpointError, match="best: names its arrays so often that copies"):
        limelight.load(run)


@pytest.mark.parametrize("key", ["junk", "envs"])
def test_a_small_file_names_no_file_of_an_array_many_times(key: str, tmp_path: Path) -> None:
    """Each name would be read, and each reference be a copy."""
    run = copy_of_run(tmp_path)
    blob = b"".join(array_file(np.zeros(1 << 17)))
    name = f"array_{sha256(blob).hexdigest()}.safetensors"
    (run / "best" / name).write_bytes(blob)

    def change(content: dict[str, Any]) -> None:
        content["arrays"] = {f"x{i}": name for i in range(8_000)}
        content["state"][key] = [{"$tensor": f"x{i}"} for i in range(8_000)]

    rewrite(run / "best", change)
    if key == "envs":  # which share the array
        assert limelight.load(run) is not None
        return
    with pytest.raises(CheckpointError, match="best: names its arrays so often that copies"):
        limelight.load(run)


def test_nested_settings_take_no_longer_than_flat_ones(tmp_path: Path) -> None:
    run, nested = copy_of_run(tmp_path), [0] * 100_000
    for _ in range(60):
        nested = [{"a": nested}]  # type: ignore[list-item]
    rewrite(run / "best", lambda content: content["state"]["config"]["env"].update(env_kwargs={"x": nested}))
    assert limelight.load(run).config.env.env_kwargs["x"] == nested


@pytest.mark.parametrize("encoder", ["os:abort", "builtins:exec", "webbrowser:open", "antigravity:x"])
def test_a_network_by_name_is_not_one_of_python(encoder: str, tmp_path: Path) -> None:
    run = copy_of_run(tmp_path)
    rewrite(run / "best", lambda content: content["state"]["config"]["model"].update(encoder=encoder))
    with pytest.raises(CheckpointError, match="Python's own modules have no network"):
        limelight.load(run)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "encoder", ["numpy:load", "numpy:memmap", "torch.hub:load", "limelight:train", "faults.test_hostile_files:touch"]
)
def test_a_network_by_name_is_nothing_else_that_can_be_called(
    encoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = copy_of_run(tmp_path)
    monkeypatch.setitem(sys.modules, "faults.test_hostile_files", sys.modules[__name__])
    rewrite(run / "best", lambda content: content["state"]["config"]["model"].update(encoder=encoder))
    with pytest.raises(LimelightError, match=r"must be a class that is an nn\.Module"):
        limelight.load(run)


def touch(*_: Any) -> None:
    Path("/tmp/limelight-was-here").touch()


def test_a_network_by_name_is_no_program_of_a_package(tmp_path: Path) -> None:
    """Importing it would run it, on the arguments of this process."""
    run = copy_of_run(tmp_path)
    encoder = "numpy.f2py.__main__:main"
    rewrite(run / "best", lambda content: content["state"]["config"]["model"].update(encoder=encoder))
    with pytest.raises(CheckpointError, match="is a program, and has no network"):
        limelight.load(run)


def test_code_in_the_folder_of_a_checkpoint_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = copy_of_run(tmp_path)
    (run / "evil_network.py").write_text("open('/tmp/limelight-was-here', 'w')")
    monkeypatch.chdir(run)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    rewrite(run / "best", lambda content: content["state"]["config"]["model"].update(encoder="evil_network:Net"))
    with pytest.raises(CheckpointError, match="its code lies in"):
        limelight.load(".")
    assert "evil_network" not in sys.modules


# --------------------------------------------------------------------------- settings


def laughs() -> str:
    """Lists of lists of one list, which a message on the setting would write out in full."""
    lines = ["seed: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 6)]
    return "\n".join([*lines, "num_envs: *a5"])


SETTINGS: dict[str, tuple[Callable[[], str], str]] = {
    "an object of Python": (
        lambda: "seed: !!python/object/apply:os.system ['touch /tmp/limelight-was-here']",
        "could not determine a constructor",
    ),
    "a name of Python": (lambda: "seed: !!python/name:os.system", "could not determine a constructor"),
    "aliases that multiply": (laughs, "more than 20 aliases"),
    "deep lists": (lambda: "seed: " + "[" * 50_000, "more than 50 levels"),
    "deep objects": (lambda: "seed: " + "{a: " * 20_000, "more than 50 levels"),
    "a large file": (lambda: "# x\n" * 200_000, "at most 262,144 bytes"),
    "a large number": (lambda: "seed: " + "9" * 10_000, "not readable as YAML"),
    "a tag": (lambda: "!!binary x", "not readable as YAML"),
    "a date": (lambda: "seed: 2001-99-99", "not readable as YAML"),
    "keys that are lists": (lambda: "? [a, b]\n: 1", "not readable as YAML"),
    "a null byte": (lambda: "seed: \0", "not readable as YAML"),
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_other_settings_are_refused(kind: str, tmp_path: Path) -> None:
    text, reason = SETTINGS[kind]
    path = tmp_path / "config.yaml"
    path.write_text(text())
    with pytest.raises(LimelightError, match=rf"config\.yaml: .*{reason}"):
        load_yaml(path)


def test_settings_without_an_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="no regular file"):
        load_yaml(tmp_path / "config.yaml")


def test_the_command_line_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copy_of_run(tmp_path)
    (run / "best" / "state.json").write_bytes(pickle.dumps(Evil()))
    assert "state.json: damaged" in refusal(capsys, "evaluate", str(run), "--episodes", "1")
    (run / "config.yaml").write_text(SETTINGS["an object of Python"][0]())
    for command in ("report", "explain", "replay"):
        assert "config.yaml" in refusal(capsys, command, str(run))


# --------------------------------------------------------------------------- files without an end

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")


def endless(path: Path, kind: str) -> None:
    """Replace a file by one that has no end, or terabytes."""
    path.unlink(missing_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "kernel":  # its size is 0, and it waits for the next message
        path.symlink_to("/proc/kmsg")
    else:
        with path.open("wb") as file:
            file.truncate(1 << 40)


@needs_pipes
@pytest.mark.parametrize("kind", ["pipe", "device", "sparse"])
@pytest.mark.parametrize(
    ("name", "refusing"),
    [
        ("config.yaml", "explain report"),
        ("summary.json", "explain report clean"),
        ("metrics.jsonl", "explain report"),
        ("monitor.csv", "explain report"),
        ("system.json", "explain report"),
        ("parent.json", "explain report"),
        ("command.txt", ""),
        ("crash.txt", ""),
    ],
)
def test_files_of_a_run_without_an_end_are_not_read(
    name: str, refusing: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of_run(tmp_path)
    endless(run / name, kind)
    assert cli.main(["list", "runs", str(tmp_path)]) == 0
    capsys.readouterr()
    for command in refusing.split():
        line = refusal(capsys, command, str(run))
        assert f"{name}: no regular file" in line or f"{name}: has 1,099,511,627,776 bytes" in line
    if not refusing and kind != "sparse":
        assert cli.main(["explain", str(run)]) == 0
        (run / "summary.json").unlink()
        assert cli.main(["explain", str(run)]) == 0  # which looks for a crash


@needs_pipes
def test_a_run_whose_lock_is_a_pipe_is_not_cleaned(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copy_of_run(tmp_path)
    (run / "summary.json").unlink()
    endless(run / "lock", "pipe")
    assert "lock: no regular file" in refusal(capsys, "clean", str(run))
    assert "lock: no regular file" in refusal(capsys, "explain", str(run))
    assert cli.main(["list", "runs", str(tmp_path)]) == 0


@needs_pipes
@pytest.mark.parametrize("kind", ["pipe", "device", "sparse"])
@pytest.mark.parametrize("flag", ["--config", "--preset"])
def test_settings_of_a_command_without_an_end_are_refused(
    flag: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "settings.yaml"
    endless(path, kind)
    line = refusal(capsys, "train", "CartPole-v1", flag, str(path))
    assert "settings.yaml: no regular file; give a file" in line or "files of at most 262,144 bytes are read" in line


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="needs descriptors as files")
def test_settings_from_a_command_of_the_shell_are_refused_for_what_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """``--config <(command)``."""
    end, start = os.pipe()
    try:
        line = refusal(capsys, "train", "CartPole-v1", "--config", f"/dev/fd/{end}")
    finally:
        os.close(end)
        os.close(start)
    assert "no regular file; give a file, as pipes and devices are not read" in line


def test_a_report_shows_no_file_from_elsewhere(tmp_path: Path) -> None:
    run = copy_of_run(tmp_path)
    (tmp_path / "secret").write_bytes(b"secret" * 10)
    (run / "videos").mkdir(exist_ok=True)
    (run / "videos" / "a.mp4").symlink_to(tmp_path / "secret")
    (run / "videos" / "b.mp4").symlink_to("/dev/zero")
    (run / "videos" / "c.mp4").write_bytes(b"own")
    (run / "videos" / "d.mp4").symlink_to("c.mp4")
    assert [video.path.stem for video in read_run(run).videos] == ["c", "d"]


# --------------------------------------------------------------------------- nothing is written outside


def test_a_report_writes_through_no_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, outside = copy_of_run(tmp_path), tmp_path / "outside"
    outside.mkdir()
    for name in ("report.html", "learning_curve.svg"):
        (outside / name).write_text("precious")
    (run / ".report.html.tmp").symlink_to(outside / "report.html")
    (run / "plots").symlink_to(outside)
    assert f"{run / 'plots'}: is a link" in refusal(capsys, "report", str(run))
    (run / "plots").unlink()
    assert cli.main(["report", str(run)]) == 0
    assert {path.read_text() for path in outside.iterdir()} == {"precious"}


# --------------------------------------------------------------------------- texts on a terminal

ESCAPES = "\x1b[2J\x1b]0;title\x07\x9b\r\u202e"


def is_plain(text: str) -> bool:
    return not any(character in text for character in ESCAPES if not character.isprintable())


def with_texts(run: Path, text: str) -> None:
    """Put a text wherever a file of a run has one that is shown."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["env"]["env_id"] += text
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    summary = json.loads((run / "summary.json").read_text())
    summary.update(env_id=text, algorithm=text, status=f"failed{text}", error=text)
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "command.txt").write_text(f"limelight train {text}")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (run / "metrics.jsonl").write_text("".join(json.dumps({**row, text: 1.0}) + "\n" for row in rows))
    parent = {"from": text, "step": 1, "changed": {text: [text, text]}}
    (run / "parent.json").write_text(json.dumps(parent))


@pytest.mark.parametrize(
    "command",
    [
        "list runs FOLDER",
        "list runs FOLDER --json",
        "explain RUN",
        "explain FOLDER",
        "compare RUN RUN2",
        "evaluate RUN --episodes 1",
    ],
)
def test_control_characters_of_files_are_written_out(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of_run(tmp_path).rename(tmp_path / "run\x1b[2J")
    with_texts(run, ESCAPES)
    second = shutil.copytree(run, tmp_path / "second")
    (second / "config.yaml").write_text((second / "config.yaml").read_text().replace("gamma: 0.99", "gamma: 0.98"))
    places = {"RUN2": str(second), "RUN": str(run), "FOLDER": str(tmp_path)}
    assert cli.main([places.get(word, word) for word in command.split()]) == 0
    printed = capsys.readouterr()
    assert "\\u001b" in printed.out
    assert is_plain(printed.out)
    assert is_plain(printed.err)


@pytest.mark.parametrize("command", ["evaluate", "export", "report", "explain", "clean", "replay", "train --resume"])
def test_control_characters_of_files_are_written_out_in_errors(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of_run(tmp_path).rename(tmp_path / "run\x1b[2J")
    rewrite(run / "best", lambda content: content["state"]["config"]["model"].update(encoder=ESCAPES))
    (run / "config.yaml").write_text(f'seed: "{ESCAPES.encode("unicode_escape").decode()}"')
    (run / "summary.json").write_text("[]")
    assert is_plain(refusal(capsys, *command.split(), str(run)))


def test_notes_on_a_terminal_are_written_out() -> None:
    file = io.StringIO()
    ConsoleLogger(100, console=rich.console.Console(file=file, force_terminal=True)).message(f"from {ESCAPES}")
    assert "from \\u001b[2J" in file.getvalue()
    assert "\x1b[2J" not in file.getvalue()


def test_a_report_escapes_html(tmp_path: Path) -> None:
    run, text = copy_of_run(tmp_path), "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
    with_texts(run, text)
    (run / "videos").mkdir(exist_ok=True)
    (run / "videos" / '"><script>alert(3)<.mp4').write_bytes(b"x")
    assert cli.main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert "alert(1)" in page
    assert not re.search(r"<script>alert|<img src=x", page)


# --------------------------------------------------------------------------- no pickle


def test_loading_unpickles_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of file that a run leaves, while unpickling is forbidden."""
    run = copy_of_run(tmp_path)

    def forbidden(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("unpickled")

    import torch

    from limelight.runs.listing import list_runs
    from limelight.runs.origin import read_origin

    for module, name in ((pickle, "load"), (pickle, "loads"), (pickle, "Unpickler"), (torch, "load")):
        monkeypatch.setattr(module, name, forbidden)
    assert limelight.load(run) is not None
    assert limelight.load(run, "last") is not None
    assert read_origin(f"{run}:last").step == 202
    assert len(read_run(run).metrics) > 0
    assert list_runs(tmp_path)[0].steps == 202
    assert json.loads((run / "summary.json").read_text())["status"] == "completed"
    assert threading.active_count() >= 1
