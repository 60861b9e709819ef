"""One large array as a safetensors file, without a copy of its numbers in memory."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

Buffer = bytes | memoryview
"""Bytes to write; of both, the length is in bytes."""


def array_file(array: NDArray[Any]) -> tuple[Buffer, Buffer]:
    """Return the header of a safetensors file that holds one array under the name ``array``, and its numbers.

    The numbers are a view: the array must not change until they are written.

    Args:
        array: contiguous in C order, of a dtype of NumPy's numbers and truth values, in the machine's byte order.
    """
    kind = {"b": "BOOL", "f": f"F{array.itemsize * 8}", "i": f"I{array.itemsize * 8}", "u": f"U{array.itemsize * 8}"}
    entry = {"dtype": kind[array.dtype.kind], "shape": list(array.shape), "data_offsets": [0, array.nbytes]}
    text = json.dumps({"array": entry}, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
    numbers: Any = array.reshape(-1).view(np.uint8)
    return len(text).to_bytes(8, "little") + text, memoryview(numbers)
