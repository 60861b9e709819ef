"""State on disk: arrays as safetensors, the rest as JSON, sha256 over both, no pickle.

A folder appears whole or not at all, and a replacement leaves a loadable one at every moment: the old folder is renamed
(``.best.old``), the new one renamed in, then the old one removed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from limelight.errors import CheckpointError, LimelightError
from limelight.files import open_regular, read_regular
from limelight.runs.array_file import Buffer, array_file
from limelight.spaces.same_bytes import same_bytes

if TYPE_CHECKING:
    from limelight.typing import State

FORMAT = 2
_LARGE = 1 << 16
"""Bytes from which an array that is saved twice is written once."""
_SHARED = 1 << 20
"""Bytes from which an array of the environments is a file of its own, which the next checkpoints link."""
_OF_ENVS = ".envs"
"""Part of the places of such arrays."""
TENSORS, STATE = "tensors.safetensors", "state.json"
_MOST_STATE, _MOST_TENSORS = 256 << 20, 16 << 30
"""Bytes of state.json and of a file of arrays above which it is not read."""
_SHARED_IN = {"envs": True, "train_states": True, "callbacks": False}
"""Whether references to one array share a copy of it below a key, the first of these on the way to them.

They do where a state is copied as it is restored, and otherwise each has a copy of its own.
"""
_COPIES, _MOST_COPIES = 64, 256 << 20
"""Copies of references elsewhere may take so many times the bytes of the arrays, or so many bytes."""
_ARRAY_FILE = re.compile(r"array_[0-9a-f]{64}\.safetensors")
NUMBERS = (ArithmeticError, MemoryError, ValueError)
"""What numbers that are too large, or too many, may raise where they are drawn or compared."""
_MALFORMED = (*NUMBERS, LookupError, RecursionError, RuntimeError, TypeError, safetensors.SafetensorError)
"""What reading data of another form than expected may raise, beside an AttributeError of plain data."""
_DTYPES = {np.dtype(name) for name in ("bool", "float16", "float32", "float64")} | {
    np.dtype(f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_STEP_FOLDER = re.compile(r"\.?(?P<step>step_\d{12,})(?P<left>|\.old|\.tmp)")  # the last two remain of a killed writer


def write_state(folder: Path, state: State, earlier: Sequence[Path] = ()) -> None:
    """Save ``state`` as ``folder``, atomically and durably; an existing folder is replaced.

    Large arrays of environments, such as prices that are only read, are files named by their sha256. A file that one of
    the ``earlier`` folders has too is linked, so that it is on the disk once; without hard links it is written again.

    Args:
        folder: the folder to make; its parents are made too.
        state: nested dicts and lists of str, int (any size), float (nan and ±inf too), bool, None, numpy
            arrays and torch tensors.
        earlier: folders of states saved before.

    Raises: TypeError naming the place of a value that cannot be saved; OSError when the disk fails: the previous state
        in ``folder`` is then still loadable.
    """
    tensors: dict[str, NDArray[Any]] = {}
    encoded = _encode(state, "state", tensors)
    large = [name for name, array in tensors.items() if array.nbytes >= _SHARED and _OF_ENVS in name]
    blobs = {name: array_file(tensors.pop(name)) for name in large}
    arrays = {name: f"array_{_sha256(*blob)}.safetensors" for name, blob in blobs.items()}
    blob = safetensors.numpy.save(tensors)
    content = {"tensors_sha256": _sha256(blob), "state": encoded, **({"arrays": arrays} if arrays else {})}
    document = {"format": FORMAT, "sha256": _sha256(_dumps(content)), "content": content}
    own = {arrays[name]: blob for name, blob in blobs.items()}
    _replace_folder(Path(folder), {**own, TENSORS: (blob,), STATE: (_dumps(document),)}, earlier)


def read_state(folder: Path) -> dict[str, Any]:
    """Return the state that :func:`write_state` saved; arrays and tensors as NumPy arrays, tuples as lists.

    Large arrays that were equal may be one array within ``envs`` and ``train_states``, and are several elsewhere.

    Raises: CheckpointError naming the file that is missing, damaged or of another format.
    """
    folder = Path(folder)
    try:
        return _read(folder)
    except CheckpointError:
        # A writer may have been killed between its two renames, or be replacing the folder at this moment
        for candidate in (_old(folder), folder):
            with contextlib.suppress(CheckpointError):
                return _read(candidate)
        raise


def has_state(folder: Path) -> bool:
    """Return whether there is a folder for :func:`read_state` to try, under its own or its temporary name."""
    return Path(folder).is_dir() or _old(Path(folder)).is_dir()


def is_intact(folder: Path) -> bool:
    """Return whether :func:`read_state` can read a folder."""
    try:
        read_state(folder)
    except CheckpointError:
        return False
    return True


def save_checkpoint(run_dir: Path, step: int, state: State, keep_last: int) -> Path:
    """Save ``run_dir/checkpoints/step_<step>``; once it is durable, remove all but the ``keep_last`` newest.

    Checkpoints beyond ``step`` (damaged ones, before which a run was resumed) are removed too.

    Returns: the new folder.
    Raises: TypeError or OSError as :func:`write_state`.
    """
    folder = Path(run_dir) / "checkpoints" / f"step_{step:012d}"
    write_state(folder, state, checkpoints(run_dir)[::-1])
    earlier = [path for path in checkpoints(run_dir) if path.name < folder.name]
    keep = {folder.name, *(path.name for path in earlier[max(0, len(earlier) - keep_last + 1) :])}
    for path in checkpoint_folders(run_dir):
        match = _STEP_FOLDER.fullmatch(path.name)
        if match and (match["step"] not in keep or match["left"] == ".tmp"):
            shutil.rmtree(path, ignore_errors=True)
    return folder


def checkpoint_folders(run_dir: Path) -> list[Path]:
    """Return the folders of a run's checkpoints and of what killed writers have left of them; no links to others."""
    parent = Path(run_dir) / "checkpoints"
    found = parent.iterdir() if parent.is_dir() else ()
    return [path for path in found if _STEP_FOLDER.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]


def checkpoints(run_dir: Path) -> list[Path]:
    """Return the folders of all checkpoints of a run, oldest first, intact or not."""
    parent = Path(run_dir) / "checkpoints"
    if not parent.is_dir():
        return []
    matches = [_STEP_FOLDER.fullmatch(path.name) for path in parent.iterdir()]
    return [parent / name for name in sorted({m["step"] for m in matches if m and m["left"] != ".tmp"})]


def latest_checkpoint(run_dir: Path) -> Path | None:
    """Return the newest checkpoint that :func:`read_state` can read, or None; damaged ones are skipped."""
    return next((folder for folder in reversed(checkpoints(run_dir)) if is_intact(folder)), None)


def newest_state(run_dir: Path, fallback: bool) -> tuple[Path, dict[str, Any], str | None]:
    """Return the newest checkpoint of a run, its content, and a line about damaged ones that were passed over.

    ``fallback``: where the newest is damaged, return the newest that is intact instead.
    Raises: CheckpointError if there is none, or naming the damaged file, the reason, and what there is instead.
    """
    found = checkpoints(run_dir)
    if not found:
        raise CheckpointError(f"{run_dir}: no checkpoint in {Path(run_dir) / 'checkpoints'}")
    try:
        return found[-1], read_state(found[-1]), None
    except CheckpointError as error:
        intact = latest_checkpoint(run_dir)
        if intact is None:
            raise
        if not fallback:
            reason = str(error).partition("; use another")[0]
            raise CheckpointError(f"{reason}; with fallback it goes on from {intact.name}, which is intact") from None
    return intact, read_state(intact), describe_skipped(run_dir, intact)


@contextlib.contextmanager
def fitting(place: Path | str, kinds: tuple[type[Exception], ...] = _MALFORMED) -> Iterator[None]:
    """Turn errors of a state that has another form than expected, inside this context, into one that names ``place``.

    ``kinds``: the exceptions that such data may raise; all others pass, with their traceback.
    Raises: CheckpointError.
    """
    try:
        yield
    except LimelightError as error:
        if not (isinstance(error, CheckpointError) and str(place) in str(error)):
            error.args = (f"{place}: {error}",)  # what else the error holds stays as it is
        raise
    except kinds as error:
        raise _misfit(place, error) from error
    except AttributeError as error:
        if kinds is not _MALFORMED or not _is_plain(error.obj):
            raise  # a fault of the code
        raise _misfit(place, error) from error


def _misfit(place: Path | str, error: Exception) -> CheckpointError:
    """Return the error of data of another form, with the line of code that could not read it."""
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    frame = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(frame.filename).name}, line {frame.lineno}"
    return CheckpointError(f"{place}: not what this version of limelight saves ({reason}; {where})")


def _is_plain(value: Any) -> bool:
    """Return whether a value is one that :func:`read_state` returns."""
    return value is None or isinstance(value, bool | int | float | str | list | dict | np.ndarray)


def describe_skipped(run_dir: Path, newest: Path) -> str | None:
    """Return a line about the checkpoints after ``newest``, the newest intact one; None if there are none.

    It names the file of each that is damaged, and the checkpoint that is used instead.
    """
    faults = []
    for folder in checkpoints(run_dir):
        if folder.name > newest.name:
            try:
                read_state(folder)
            except CheckpointError as error:
                faults.append(str(error).partition("; use another")[0])
    return f"{'; '.join(faults)}; goes on from {newest.name}, the newest that is intact" if faults else None


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
    """Add an array or tensor to ``tensors`` under a readable, new name, and return the name."""
    array = np.asarray(value.detach().cpu().numpy() if hasattr(value, "detach") else value)
    native = array.dtype.newbyteorder("=")
    if native not in _DTYPES:
        raise TypeError(f"{where}: an array of {array.dtype} cannot be saved in a checkpoint")
    array = np.asarray(array, dtype=native, order="C")
    if array.nbytes >= _LARGE:  # copies of an environment often hold the same data
        for other, saved in tensors.items():
            alike = saved.dtype == native and saved.shape == array.shape
            if alike and same_bytes(saved, array):
                return other
    name = where.encode("ascii", "backslashreplace").decode("ascii")
    while name in tensors:
        name += "'"
    tensors[name] = array
    return name


@final
class _Arrays:
    """The arrays of a state, of which each reference gets a copy; a few bytes of text must not become many copies."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self._tensors = tensors
        self._shared: dict[int, NDArray[Any]] = {}  # by the identity of the array, which may have several names
        sizes = {id(array): array.nbytes for array in tensors.values()}
        self._left = max(_COPIES * sum(sizes.values()), _MOST_COPIES)

    def of(self, name: str, is_shared: bool) -> NDArray[Any]:
        """Return a copy, as safetensors gives read-only views; the same one each time if ``is_shared``.

        Raises: CheckpointError if all copies would take far more memory than the arrays.
        """
        array = self._tensors[name]
        if is_shared and id(array) in self._shared:
            return self._shared[id(array)]
        self._left -= array.nbytes
        if self._left < 0:
            raise CheckpointError("names its arrays so often that copies of them would fill the memory")
        copy = array.copy()
        if is_shared:
            self._shared[id(array)] = copy
        return copy


def _decode(value: Any, arrays: _Arrays, is_shared: bool | None = None) -> Any:
    """Return the value of :func:`_encode`; ``is_shared``: of :data:`_SHARED_IN`, None above those keys."""
    if isinstance(value, list):
        return [_decode(item, arrays, is_shared) for item in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return arrays.of(value["$tensor"], is_shared is True)
    if "$float" in value:
        return float(value["$float"])
    decoded = {}
    for key, item in value.items():
        below = _SHARED_IN.get(key) if is_shared is None else is_shared
        decoded[key.removeprefix("$")] = _decode(item, arrays, below)
    return decoded


def _dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii")


def _sha256(*parts: Buffer) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


# --------------------------------------------------------------------------- files


def _read(folder: Path) -> dict[str, Any]:
    content = _read_content(folder / STATE)
    with fitting(folder):
        path = folder / TENSORS
        blob = _read_bytes(path, _MOST_TENSORS)
        if _sha256(blob) != content["tensors_sha256"]:
            raise CheckpointError(f"{path}: damaged (its sha256 is not the recorded one); use another checkpoint")
        tensors = safetensors.numpy.load(blob)
        tensors |= _read_array_files(folder, content.get("arrays", {}))
        decoded = _decode(content["state"], _Arrays(tensors))
        if not isinstance(decoded, dict):
            raise TypeError(f"the state is a {type(decoded).__name__}")
    return decoded


def _read_array_files(folder: Path, names: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """Return the arrays that are files of their own by their places; a file with several places is read once."""
    read: dict[str, NDArray[Any]] = {}
    for name in names.values():
        if not _ARRAY_FILE.fullmatch(name):  # which keeps a name with .. in it inside the folder
            raise CheckpointError(f"{folder / STATE}: damaged ({name[:100]!r} is no name of a file of arrays)")
        if name not in read:
            blob = _read_bytes(folder / name, _MOST_TENSORS)
            if name != f"array_{_sha256(blob)}.safetensors":
                raise CheckpointError(f"{folder / name}: damaged (its sha256 is not that of its name)")
            read[name] = safetensors.numpy.load(blob)["array"]
    return {place: read[name] for place, name in names.items()}


def _read_content(path: Path) -> dict[str, Any]:
    """Return the content of state.json, after checking its format and its digest."""
    data = _read_bytes(path, _MOST_STATE)
    version: Any = FORMAT
    try:
        document = json.loads(data.decode("ascii"))
        version, content = document["format"], document["content"]
        intact = document["sha256"] == _sha256(_dumps(content)) and isinstance(content, dict)
    except _MALFORMED:
        intact = False
    if type(version) is int and version != FORMAT:  # of which the rest may have another form
        which = "a newer version of limelight saved it" if version > FORMAT else "no release has saved it; train anew"
        raise CheckpointError(f"{path}: format = {version}: this version of limelight reads {FORMAT}; {which}")
    if not intact or version != FORMAT:
        raise CheckpointError(f"{path}: damaged (cut short or altered); use another checkpoint")
    return dict(content)


def _read_bytes(path: Path, most: int) -> bytes:
    """Return the content of a regular file of at most so many bytes."""
    try:
        return read_regular(path, most)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file, so {path.parent} is not a saved state") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None


def _old(folder: Path) -> Path:
    """Return the name of the previous folder while the new one is renamed in."""
    return folder.with_name(f".{folder.name}.old")


def _replace_folder(folder: Path, files: Mapping[str, Sequence[Buffer]], earlier: Sequence[Path]) -> None:
    """Replace the content of ``folder`` by exactly ``files``, durably, through a temporary sibling."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    old = _old(folder)
    _make_folders(folder.parent)
    try:
        # Write the new folder
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        for name, parts in files.items():
            if name.startswith("array_") and _link(temporary / name, earlier):
                continue
            with (temporary / name).open("wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
        _fsync_folder(temporary)
        # Swap
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            os.rename(folder, old)
        os.rename(temporary, folder)
        _fsync_folder(folder.parent)
    except BaseException:
        if old.exists() and not folder.exists():
            with contextlib.suppress(OSError):
                os.rename(old, folder)
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _link(path: Path, earlier: Sequence[Path]) -> bool:
    """Make ``path`` a hard link to the file of its name in an earlier folder, if that is intact; return whether."""
    for folder in earlier:
        with contextlib.suppress(OSError, CheckpointError), open_regular(folder / path.name) as (file, _):
            if path.name == f"array_{hashlib.file_digest(file, 'sha256').hexdigest()}.safetensors":
                os.link(folder / path.name, path)
                return True
    return False


def _make_folders(folder: Path) -> None:
    """Make a folder and its parents, durably."""
    if not folder.exists():
        _make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        _fsync_folder(folder.parent)


def _fsync_folder(folder: Path) -> None:
    """Make the names of the files in ``folder`` durable."""
    if os.name == "nt":  # folders cannot be opened there, and its journal keeps names durable
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
