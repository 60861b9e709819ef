"""No code path reads a file by pickle or by anything else that runs what the file says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "limelight"
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle"}
"""Modules whose reading runs code."""
CALLS = {"eval", "exec", "compile"}
ALLOWED = {("runs/agent.py", "pickle")}
"""A copy of an agent in the same process (``copy.deepcopy``): the bytes never leave it."""


def findings(tree: ast.AST) -> Iterator[str]:
    """Yield the modules and calls of a syntax tree that may run what they read."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.partition(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in MODULES:
            yield node.module or ""
        elif isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            loader = next((ast.unparse(k.value) for k in node.keywords if k.arg == "Loader"), "")
            if name in CALLS or name in ("torch.load", "torch.hub.load", "torch.jit.load", "np.load", "numpy.load"):
                yield name
            if name.endswith(".set_pickle_module") or any(k.arg == "allow_pickle" for k in node.keywords):
                yield name
            if name in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "yaml.load_all") and loader != "_Loader":
                yield name


def test_no_module_reads_by_anything_that_runs_code() -> None:
    found = {
        (path.relative_to(SOURCE).as_posix(), name)
        for path in SOURCE.rglob("*.py")
        for name in findings(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == ALLOWED


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from pickle import loads", "import torch\ntorch.load(x)", "np.load(x, allow_pickle=True)",
        "yaml.load(x, Loader=yaml.Loader)", "yaml.load(x)", "yaml.unsafe_load(x)", "import shelve", "import joblib",
        "import marshal", "eval(x)", "exec(x)", "import dill.source",
    ],
)  # fmt: skip
def test_the_search_finds_each_of_them(code: str) -> None:
    assert list(findings(ast.parse(code)))


def test_the_loader_of_settings_is_a_safe_one() -> None:
    import yaml

    from limelight.settings.io import _Loader

    assert issubclass(_Loader, yaml.SafeLoader)
    with pytest.raises(yaml.YAMLError):
        yaml.load("!!python/object/apply:os.getcwd []", Loader=_Loader)
