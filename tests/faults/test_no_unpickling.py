"""No code path reads a file by pickle or by anything else that runs what the file says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "limelight"
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
"""Modules whose reading runs code, under any package: ``ray.cloudpickle``."""
READERS = {
    "torch.load", "torch.hub", "torch.jit.load", "torch.export.load", "torch.serialization", "torch.package",
    "numpy.load", "numpy.lib.npyio", "numpy.lib.format", "pandas.read_pickle", "multiprocessing.reduction",
    "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.full_load_all",
    "yaml.Loader", "yaml.UnsafeLoader", "yaml.FullLoader", "yaml.CLoader", "yaml.CUnsafeLoader", "yaml.CFullLoader",
    "eval", "exec", "compile", "__import__", "builtins.eval", "builtins.exec", "builtins.compile",
    "builtins.__import__", "importlib.import_module", "importlib.__import__", "importlib.machinery",
    "importlib.util.spec_from_file_location", "importlib.util.module_from_spec", "runpy",
}  # fmt: skip
"""Functions that run what they read, and modules with such functions."""
METHODS = {"set_pickle_module", "read_pickle", "to_pickle", "Unpickler", "recv"}
"""Names of such functions of any object."""
KEYWORDS = {"allow_pickle", "weights_only"}
ALLOWED = {
    "pickle": {"runs/agent.py"},  # copy.deepcopy of an agent: the bytes never leave the process
    # descriptors for workers of this run
    "multiprocessing.reduction": {"runners/processes/crash_file.py", "runners/processes/portable.py"},
    "recv": {  # messages of processes of this run; of Ray's sockets, bytes that are not read
        "envs/renewed.py", "runners/processes/channel.py", "runners/processes/supervisor.py",
        "runners/processes/worker.py", "runners/ray/cluster_watch.py",
    },
    "yaml.load": {"settings/io.py"},  # with a safe loader: the last test here
    "importlib.import_module": {
        "__init__.py", "envs/minigrid.py", "runners/processes/portable.py",  # names that are written there
        "nn/encoders.py", "settings/named.py", "envs/source.py",  # names of settings: SECURITY.md
    },
    "torch.export.load": {"runs/export/formats.py"},  # the file that was written just before, to compare it
}  # fmt: skip
"""What there is, and where."""


def origins(tree: ast.AST) -> dict[str, str]:
    """The full name of what each imported name stands for."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                found[name] = alias.name if alias.asname else name
        elif isinstance(node, ast.ImportFrom):
            found |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return found


def names_in(tree: ast.AST) -> Iterator[str]:
    """Yield the full names of all that is imported or used."""
    known = origins(tree)
    yield from known.values()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            first, dot, rest = ast.unparse(node).partition(".")
            yield known.get(first, first) + dot + rest
        elif isinstance(node, ast.keyword) and node.arg in KEYWORDS:
            yield node.arg
        elif isinstance(node, ast.Constant) and node.value in MODULES:
            yield str(node.value)  # the name of a module that is imported by its name


def findings(tree: ast.AST) -> Iterator[str]:
    """Yield what of a syntax tree may run what it reads."""
    for name in names_in(tree):
        parts = name.split(".")
        yield from MODULES & {*parts}
        yield from METHODS & {parts[-1]}
        yield from KEYWORDS & {name}
        yield from (reader for reader in READERS if name == reader or name.startswith(f"{reader}."))


def test_no_module_reads_by_anything_that_runs_code() -> None:
    found: dict[str, set[str]] = {}
    for path in SOURCE.rglob("*.py"):
        for name in findings(ast.parse(path.read_text(encoding="utf-8"))):
            found.setdefault(name, set()).add(path.relative_to(SOURCE).as_posix())
    assert found == ALLOWED


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "import torch\ntorch.load(x)", "import torch as t\nt.load(x)",
        "from torch import load", "np.load(x, allow_pickle=True)", "import numpy as np\nnp.load(x)",
        "import yaml\nyaml.load(x, Loader=yaml.Loader)", "from yaml import unsafe_load", "import yaml as y\ny.load(x)",
        "import shelve", "import joblib", "import marshal", "from marshal import loads as f", "eval(x)", "exec(x)",
        "import builtins\nbuiltins.eval(x)", "import dill.source", "import ray\nray.cloudpickle.loads(x)",
        "from ray import cloudpickle", "import pandas as pd\npd.read_pickle(x)", "frame.read_pickle(x)",
        "from multiprocessing.reduction import ForkingPickler", "import importlib\nimportlib.import_module(x)",
        "from importlib import import_module as get", "f = __import__", "import runpy", "find('pickle')",
        "from importlib.util import spec_from_file_location", "import torch.package", "from torch.jit import load",
    ],
)  # fmt: skip
def test_the_search_finds_each_of_them(code: str) -> None:
    assert list(findings(ast.parse(code)))


@pytest.mark.parametrize("code", ["import json\njson.load(x)", "import re\nre.compile(x)", "module.eval()", "x.load()"])
def test_the_search_lets_others_be(code: str) -> None:
    assert not list(findings(ast.parse(code)))


def test_the_loader_of_settings_is_a_safe_one() -> None:
    import yaml

    from limelight.settings.io import _Loader

    assert issubclass(_Loader, yaml.SafeLoader)
    with pytest.raises(yaml.YAMLError):
        yaml.load("!!python/object/apply:os.getcwd []", Loader=_Loader)
