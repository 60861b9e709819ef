"""The file formats of an exported policy, written and read again: ONNX, and the archive of ``torch.export``."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from limelight.errors import ConfigError
from limelight.runs.export.parity import Run
from limelight.runs.export.ports import Arrays, Ports
from limelight.runs.folder import as_json

METADATA = "metadata.json"
"""The file inside a torch archive that holds the metadata."""
INSTALL = 'pip install "limelight-rl[export]"'
_NEEDS = ("onnx", "onnxscript", "onnxruntime")
_OLDEST_TORCH = (2, 8)
_OPSET = 18
"""Of ONNX operators: old enough for runtimes of 2023."""


class Format(NamedTuple):
    """A file format."""

    suffix: str
    write: Callable[[Any, Ports, Path, dict[str, Any]], None]
    """Writes a traced policy and its metadata."""
    open: Callable[[Path, Ports], Run]
    """Returns the function that the file computes, by the program that others would load it with."""


def require(name: str) -> None:
    """Refuse a format whose packages are not installed.

    Raises: ConfigError.
    """
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _OLDEST_TORCH:
        raise ConfigError(f"format = {name}: needs PyTorch 2.8 or newer, and this is {torch.__version__}; {INSTALL}")
    missing = [package for package in _NEEDS if find_spec(package) is None] if name == "onnx" else []
    if missing:
        raise ConfigError(
            f"format = onnx: needs {', '.join(missing)}, not installed here; {INSTALL}, or format torch needs no more"
        )


def trace(module: nn.Module, ports: Ports) -> Any:
    """Return the operations of ``module`` as torch.export's program; every axis of ``ports`` stays of any length.

    Raises: ConfigError where they cannot be traced.
    """
    sizes = {"time": 3, "batch": 2}
    dims = {axis: torch.export.Dim(axis) for axis in ports.axes}
    inputs = tuple(
        torch.from_numpy(np.zeros((*(sizes[axis] for axis in port.axes), *port.shape), port.dtype))
        for port in ports.inputs
    )
    shapes = tuple({i: dims[axis] for i, axis in enumerate(port.axes)} for port in ports.inputs)
    with _quiet():
        try:
            return torch.export.export(module, inputs, dynamic_shapes=(shapes,), strict=False)
        except Exception as error:  # an encoder of the user may do anything
            raise ConfigError(f"export: torch.export cannot trace this network ({first_line(error)})") from error


def first_line(error: Exception) -> str:
    """Return the kind of an error and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the warnings of PyTorch's exporters about themselves."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _write_onnx(program: Any, ports: Ports, path: Path, metadata: dict[str, Any]) -> None:
    import onnx

    with _quiet():
        try:
            exported = torch.onnx.export(
                program, dynamo=True, opset_version=_OPSET, verbose=False,
                input_names=[port.name for port in ports.inputs], output_names=[port.name for port in ports.outputs],
            )  # fmt: skip
        except Exception as error:  # an operation that ONNX lacks
            raise ConfigError(
                f"format = onnx: this network cannot be written ({first_line(error)}); try format torch"
            ) from error
    assert exported is not None
    model = exported.model_proto
    for values, described in ((model.graph.input, ports.inputs), (model.graph.output, ports.outputs)):
        for value, port in zip(values, described, strict=True):
            for dimension, axis in zip(value.type.tensor_type.shape.dim, port.axes, strict=False):
                dimension.dim_param = axis
    texts = {key: value if isinstance(value, str) else json.dumps(as_json(value)) for key, value in metadata.items()}
    onnx.helper.set_model_props(model, texts)
    path.write_bytes(model.SerializeToString())


def _open_onnx(path: Path, ports: Ports) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return run


def _write_torch(program: Any, ports: Ports, path: Path, metadata: dict[str, Any]) -> None:
    with _quiet(), path.open("wb") as file:
        torch.export.save(program, file, extra_files={METADATA: json.dumps(as_json(metadata))})


def _open_torch(path: Path, ports: Ports) -> Run:
    with _quiet(), path.open("rb") as file:
        module = torch.export.load(file).module()

    def run(inputs: Arrays) -> Arrays:
        with _quiet(), torch.inference_mode():
            outputs: tuple[Tensor, ...] = module(*(torch.from_numpy(inputs[port.name]) for port in ports.inputs))
        return {port.name: output.numpy() for port, output in zip(ports.outputs, outputs, strict=True)}

    return run


FORMATS = {"onnx": Format(".onnx", _write_onnx, _open_onnx), "torch": Format(".pt2", _write_torch, _open_torch)}
