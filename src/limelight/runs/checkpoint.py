"""State on disk: arrays as safetensors, the rest as JSON, sha256 over both, no pickle.

A folder appears whole or not at all, and replacing one never leaves a moment without a loadable one:
the old folder is set aside (``.best.old``), the new one renamed in, then the old one removed.
Called by train.py and agent.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from limelight.errors import ConfigError

if TYPE_CHECKING:
    from limelight.typing import State

FORMAT = 1
TENSORS, STATE = "tensors.safetensors", "state.json"
_DTYPES = {np.dtype(name) for name in ("bool", "float16", "float32", "float64")} | {
    np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_STEP_FOLDER = re.compile(r"\.?(?P<step>step_\d{12,})(?P<left>|\.old|\.tmp)")  # the last two: left by a killed writer


def write_state(folder: Path, state: State) -> None:
    """Save ``state`` as ``folder``, atomically and durably; an existing folder is replaced.

    Args:
        folder: where to; its parents are made.
        state: nested dicts and lists of str, int (any size), float (nan and ±inf too), bool, None, numpy
            arrays and torch tensors.

    Raises: TypeError naming the place of a value that cannot be saved; OSError when the disk fails, after
    which what ``folder`` held before is still loadable.
    """
    tensors: dict[str, NDArray[Any]] = {}
    encoded = _encode(state, "state", tensors)
    blob = safetensors.numpy.save(tensors)
    content = {"tensors_sha256": _sha256(blob), "state": encoded}
    document = {"format": FORMAT, "sha256": _sha256(_dumps(content)), "content": content}
    _replace_folder(Path(folder), {TENSORS: blob, STATE: _dumps(document)})


def read_state(folder: Path) -> dict[str, Any]:
    """What :func:`write_state` saved; arrays and tensors come back as numpy arrays, tuples as lists.

    Raises: ConfigError naming the file that is missing, damaged or of another format.
    """
    folder = Path(folder)
    try:
        return _read(folder)
    except ConfigError:
        # A writer may have died between its two renames, or swapped the folder under our hands.
        for candidate in (_aside(folder), folder):
            with contextlib.suppress(ConfigError):
                return _read(candidate)
        raise


def has_state(folder: Path) -> bool:
    """Whether there is something at ``folder`` for :func:`read_state` to try, be it only set aside."""
    return Path(folder).is_dir() or _aside(Path(folder)).is_dir()


def save_checkpoint(run_dir: Path, step: int, state: State, keep_last: int) -> Path:
    """Save ``run_dir/checkpoints/step_<step>``; once that is durable, drop all but the ``keep_last`` newest.

    Checkpoints beyond ``step`` (damaged ones that a resumed run has stepped back from) are dropped too.

    Returns: the new folder.
    Raises: as :func:`write_state`.
    """
    folder = Path(run_dir) / "checkpoints" / f"step_{step:012d}"
    write_state(folder, state)
    earlier = [path for path in checkpoints(run_dir) if path.name < folder.name]
    keep = {folder.name, *(path.name for path in earlier[max(0, len(earlier) - keep_last + 1) :])}
    for path in folder.parent.iterdir():
        match = _STEP_FOLDER.fullmatch(path.name)
        if match and (match["step"] not in keep or match["left"] == ".tmp"):
            shutil.rmtree(path, ignore_errors=True)
    return folder


def checkpoints(run_dir: Path) -> list[Path]:
    """Folders of all checkpoints of a run, oldest first, whole or not."""
    parent = Path(run_dir) / "checkpoints"
    if not parent.is_dir():
        return []
    matches = [_STEP_FOLDER.fullmatch(path.name) for path in parent.iterdir()]
    return [parent / name for name in sorted({m["step"] for m in matches if m and m["left"] != ".tmp"})]


def latest_checkpoint(run_dir: Path) -> Path | None:
    """The newest checkpoint that :func:`read_state` can read, or None; damaged ones are skipped."""
    for folder in reversed(checkpoints(run_dir)):
        with contextlib.suppress(ConfigError):
            read_state(folder)
            return folder
    return None


# --------------------------------------------------------------------------- state ↔ JSON and tensors
# Arrays become {"$tensor": name}, non-finite floats {"$float": "nan"}; a $ that starts a key is doubled.


def _encode(value: Any, where: str, tensors: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, np.ndarray | np.generic) or hasattr(value, "detach"):
        return {"$tensor": _add_tensor(value, where, tensors)}
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": repr(value)}
    if isinstance(value, list | tuple):
        return [_encode(item, f"{where}[{i}]", tensors) for i, item in enumerate(value)]
    if not isinstance(value, Mapping):
        raise TypeError(f"{where}: a {type(value).__name__} cannot be saved in a checkpoint")
    encoded = {}
    for key, item in value.items():
        if not isinstance(key, str):
            raise TypeError(f"{where}: the key {key!r} is a {type(key).__name__}, not text")
        encoded["$" + key if key.startswith("$") else key] = _encode(item, f"{where}.{key}", tensors)
    return encoded


def _add_tensor(value: Any, where: str, tensors: dict[str, NDArray[Any]]) -> str:
    """Put an array or tensor among ``tensors`` under a readable name that is new; the name."""
    array = np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
    native = array.dtype.newbyteorder("=")
    if native not in _DTYPES:
        raise TypeError(f"{where}: an array of {array.dtype} cannot be saved in a checkpoint")
    name = where.encode("ascii", "backslashreplace").decode("ascii")
    while name in tensors:
        name += "'"
    tensors[name] = np.asarray(array, dtype=native, order="C")
    return name


def _decode(value: Any, tensors: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]].copy()  # a copy of its own, because safetensors gives read-only views
    if "$float" in value:
        return float(value["$float"])
    return {key.removeprefix("$"): _decode(item, tensors) for key, item in value.items()}


def _dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --------------------------------------------------------------------------- files


def _read(folder: Path) -> dict[str, Any]:
    content = _read_content(folder / STATE)
    path = folder / TENSORS
    blob = _read_bytes(path)
    if _sha256(blob) != content["tensors_sha256"]:
        raise ConfigError(f"{path}: damaged (its sha256 is not the recorded one); use another checkpoint")
    decoded = _decode(content["state"], safetensors.numpy.load(blob))
    assert isinstance(decoded, dict)
    return decoded


def _read_content(path: Path) -> dict[str, Any]:
    """What state.json vouches for, once its digest has been checked."""
    data = _read_bytes(path)
    try:
        document = json.loads(data.decode("ascii"))
        version, content = document["format"], document["content"]
        intact = document["sha256"] == _sha256(_dumps(content))
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise ConfigError(f"{path}: damaged (cut short or altered); use another checkpoint")
    if version != FORMAT:
        raise ConfigError(f"{path}: format = {version!r}: this version of limelight reads {FORMAT}")
    assert isinstance(content, dict)
    return content


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file, so {path.parent} is not a saved state") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None


def _aside(folder: Path) -> Path:
    """Where the old folder waits while the new one is renamed in."""
    return folder.with_name(f".{folder.name}.old")


def _replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Make ``folder`` hold exactly ``files``, durably, by way of a temporary sibling."""
    temporary, aside = folder.with_name(f".{folder.name}.tmp"), _aside(folder)
    _make_folders(folder.parent)
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, data in files.items():
            with (temporary / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        _fsync_folder(temporary)
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(folder, aside)
        os.rename(temporary, folder)
        _fsync_folder(folder.parent)
    except BaseException:
        if aside.exists() and not folder.exists():
            with contextlib.suppress(OSError):
                os.rename(aside, folder)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _make_folders(folder: Path) -> None:
    """``mkdir -p`` whose new names survive a power cut."""
    if not folder.exists():
        _make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        _fsync_folder(folder.parent)


def _fsync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    if os.name == "nt":  # cannot open folders, and keeps names in its journal anyway
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
