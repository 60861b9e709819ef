"""The invariants of ARCHITECTURE.md, read off the source: who imports and calls what, how large things grow."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import limelight
from limelight.settings.io import all_settings, sections_of
from limelight.settings.schema import AlgorithmConfig, TrainConfig

SRC = Path(limelight.__file__).parent
LONGEST_FUNCTION = 50
LONGEST_CLASS = 200


def name_of(path: Path) -> str:
    """Dotted name of a module below the package: ``envs.make``; ``""`` is the package itself."""
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {name_of(path): ast.parse(path.read_text(encoding="utf-8"), str(path)) for path in SRC.rglob("*.py")}
FOLDERS = {name_of(path) for path in SRC.rglob("__init__.py")}


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def walk(node: ast.AST, into_functions: bool = True) -> Iterator[ast.AST]:
    """All nodes that run; blocks under ``TYPE_CHECKING`` do not."""
    for child in ast.iter_child_nodes(node):
        function = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if not is_type_checking(child) and (into_functions or not function):
            yield child
            yield from walk(child, into_functions)


def imports(module: str, lazy: bool = True) -> set[str]:
    """Full dotted names that a module imports, its own package's included; ``lazy``: inside functions too."""
    found: set[str] = set()
    for node in walk(TREES[module], lazy):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module is not None
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            submodules = {name for name in inner if name.removeprefix("limelight.") in TREES}
            found |= submodules or {node.module}
    return found


def roots(module: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(module)}


def own_imports(module: str) -> set[str]:
    """Modules of this package that a module imports, by their short names."""
    return {
        name.removeprefix("limelight").removeprefix(".")
        for name in imports(module)
        if name.split(".")[0] == "limelight"
    }


def called_names(module: str) -> set[str]:
    """What a module calls, as written: ``print``, ``envs.step``, ``np.random.seed``."""
    return {ast.unparse(node.func) for node in walk(TREES[module]) if isinstance(node, ast.Call)}


def callers_of_method(method: str) -> set[str]:
    return {module for module in TREES if any(name.endswith(f".{method}") for name in called_names(module))}


def inside(module: str, folder: str) -> bool:
    return module == folder or module.startswith(f"{folder}.")


def outside(modules: set[str], *folders: str) -> set[str]:
    return {module for module in modules if not any(inside(module, folder) for folder in folders)}


def test_the_tree_is_seen() -> None:
    assert {"", "algo.returns", "algo.learner", "nn.model", "envs.make", "runners.sync"} <= set(TREES)
    assert own_imports("algo.learner") >= {"algo.returns", "algo.losses", "algo.optim"}
    assert "algo.collector" in callers_of_method("step")


# --------------------------------------------------------------------------- the layout


ORDER = ("cli", "training", "viewing", "runs", "runners", "algo", "envs", "nn", "spaces", "settings", "")
"""Packages from the top to the root; each imports only from those after it."""


def package(module: str) -> str:
    """The package of a module: ``algo`` of ``algo.returns``, ``""`` of a module at the root."""
    return module.split(".")[0] if module.split(".")[0] in ORDER else ""


def test_ten_packages_and_few_modules_at_the_root() -> None:
    assert {name.split(".")[0] for name in FOLDERS} == set(ORDER)
    at_the_root = {module for module in TREES if package(module) == "" and module not in FOLDERS}
    assert len(at_the_root | {""}) <= 8, at_the_root


def test_imports_run_downwards_only() -> None:
    for module in TREES.keys() - {"", "__main__"}:
        here = ORDER.index(package(module))
        for below in own_imports(module) - {""}:
            assert ORDER.index(package(below)) >= here, f"{module} imports {below}"
        if package(module) == "envs":
            assert "nn" not in {package(below) for below in own_imports(module)}, f"{module} imports a network"
            assert "torch" not in roots(module), module


def test_the_tests_mirror_the_packages() -> None:
    """A test lies in the folder of the module it is named after; the other folders test what spans several."""
    spanning = {"equivalence", "faults", "helpers", "learning", "properties"}
    for path in (SRC.parents[1] / "tests").rglob("test_*.py"):
        *folders, file = path.relative_to(SRC.parents[1] / "tests").with_suffix("").parts
        if not folders or folders[0] in spanning:
            continue
        name = ".".join(folders)
        assert name in FOLDERS, f"{path} mirrors no package"
        modules = {m.rpartition(".")[2] for m in TREES if m.rpartition(".")[0] == name}
        assert any(module.strip("_") in file for module in modules), f"{path} is named after no module of {name}"


# --------------------------------------------------------------------------- 1: pure estimators and losses


@pytest.mark.parametrize("module", ["algo.returns", "algo.losses"])
def test_estimators_and_losses_are_pure(module: str) -> None:
    assert imports(module) <= {"__future__", "typing", "numpy", "numpy.typing", "torch", "limelight.typing"}
    assert not any(name.endswith((".item", ".tolist")) for name in called_names(module))
    classes = [node for node in TREES[module].body if isinstance(node, ast.ClassDef)]
    assert all(ast.unparse(base) == "NamedTuple" for node in classes for base in node.bases)
    assert not [node for node in walk(TREES[module]) if isinstance(node, ast.Global | ast.Nonlocal)]


# --------------------------------------------------------------------------- 2: who does what


def test_who_steps_environments() -> None:
    def steps(module: str) -> bool:
        others = ("optimizer.step", "self.step")  # of parameters, and of a recurrent core
        return any(n.endswith(".step") and not n.endswith(others) for n in called_names(module))

    steppers = {module for module in TREES if steps(module)}
    assert {"algo.collector", "runs.evaluation"} <= steppers
    assert outside(steppers, "envs") <= {
        "algo.collector",
        "runs.evaluation",
        "cli.env_check.check",
        "cli.env_check.known_values",
    }


ENGINES = {"nn.torch_engine", "nn.numpy_engine.network", "nn.numpy_engine.layers", "nn.activation_cache"}


def test_who_calls_backward_and_the_optimizer() -> None:
    assert callers_of_method("backward") <= ENGINES | {"algo.learner", "nn.checked_network"}
    assert callers_of_method("autograd.backward") <= {"nn.torch_engine"}
    optimizer_steps = {m for m in TREES if any(name.endswith("optimizer.step") for name in called_names(m))}
    assert optimizer_steps == {"algo.learner"}
    assert callers_of_method("zero_grad") == set()


def test_who_starts_processes() -> None:
    users = {module for module in TREES if roots(module) & {"multiprocessing", "ray", "concurrent", "threading"}}
    # envs.spawn asks whether this process may start others, training.loop whether it is in the main thread. envs.stalls
    # has a thread that watches steps, envs.renewed replaces the processes of backend async; threads counts contexts of
    # each thread.
    assert outside(users, "runners") <= {"envs.spawn", "training.loop", "envs.stalls", "envs.renewed", "threads"}
    assert roots("training.loop") & {"multiprocessing", "ray", "concurrent"} == set()
    assert {m for m in TREES if "ray" in roots(m)} <= {m for m in TREES if inside(m, "runners.ray")}
    assert outside({m for m in TREES if "torch.multiprocessing" in imports(m)}, "runners") == set()


def test_who_prints() -> None:
    assert outside({m for m in TREES if "print" in called_names(m)}, "cli", "viewing") == set()
    writers = {m for m in TREES if any("sys.stdout" in name or "sys.stderr" in name for name in called_names(m))}
    assert outside(writers, "cli", "viewing") == set()


# --------------------------------------------------------------------------- names


def docstrings(tree: ast.AST) -> set[int]:
    """Ids of string expressions that stand alone: docstrings of modules, classes, functions and fields."""
    return {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def defaults_of_algo(tree: ast.AST) -> set[int]:
    """Ids of the values that fields or parameters called ``algo`` begin with."""
    ids = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "algo"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.arguments):
            positional = node.posonlyargs + node.args
            pairs = [*zip(positional[len(positional) - len(node.defaults) :], node.defaults, strict=True)]
            pairs += zip(node.kwonlyargs, node.kw_defaults, strict=True)
            ids |= {id(default) for arg, default in pairs if arg.arg == "algo"}
    return ids


def test_algorithm_names_live_in_their_table() -> None:
    """Elsewhere only as the default of ``algo``, the same everywhere."""
    from limelight.training.algorithms import ALGORITHMS

    default = AlgorithmConfig().algo
    assert default in ALGORITHMS
    for module in TREES.keys() - {
        "training.algorithms",
        "training.presets",
        "training.structure",
        "nn.images",
    }:  # a3c is the name of a network, too
        tree = TREES[module]
        words, defaults = docstrings(tree), defaults_of_algo(tree)
        named = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and node.value in ALGORITHMS and id(node) not in words
        ]
        assert {id(node) for node in named} <= defaults, f"{module} names an algorithm"
        assert {node.value for node in named} <= {default}, f"{module} has another default"
        identifiers = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef | ast.FunctionDef)}
        assert not {name for name in identifiers if name.lower() in ALGORITHMS}, f"{module}: a subclass?"


def sections() -> dict[str, type]:
    """Class name → dataclass, of TrainConfig and all its sections."""
    return {kind.__name__: kind for kind in sections_of(TrainConfig).values()}


def test_every_setting_has_one_name() -> None:
    fields = [f for section in sections().values() for f in dataclasses.fields(section)]
    names = [f.name for f in fields]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert set(all_settings()) == set(names) - {f.name for f in fields if "Config" in str(f.type)}


def test_every_setting_has_a_docstring_and_is_frozen() -> None:
    bodies = {node.name: node.body for node in TREES["settings.schema"].body if isinstance(node, ast.ClassDef)}
    for name, section in sections().items():
        assert section.__doc__
        assert section.__dataclass_params__.frozen  # type: ignore[attr-defined]
        body = bodies[name]
        for statement, following in zip(body, [*body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and "Config" not in ast.unparse(statement.annotation):
                documented = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                assert documented, f"{name}.{ast.unparse(statement.target)} has no docstring"


# --------------------------------------------------------------------------- 7: shape of the code


def test_classes_are_abstract_or_final() -> None:
    """No class derives from another of this package, but from a Protocol; an error may be a kind of another."""
    bases = {
        node.name: [ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases]
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    assert len(bases) > 30
    for name, parents in bases.items():
        concrete = [parent for parent in parents if parent in bases and "Protocol" not in bases[parent]]
        assert not concrete or name.endswith("Error"), f"{name} derives from {concrete}"


def test_functions_fit_on_a_screen() -> None:
    too_long = {
        f"{module}.{node.name}": lines
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_FUNCTION
    }
    assert too_long == {}


def test_classes_fit_on_four_screens() -> None:
    too_long = {
        f"{module}.{node.name}": lines
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and (lines := (node.end_lineno or 0) - node.lineno + 1) > LONGEST_CLASS
    }
    assert too_long == {}


def test_modules_say_what_they_are() -> None:
    for module, tree in TREES.items():
        text = ast.get_docstring(tree)
        assert text, f"{module} has no docstring"


def test_no_import_cycles() -> None:
    """Not even through imports inside functions."""
    graph = {module: own_imports(module) - {module} for module in TREES}
    graph[""] = set()  # the package itself imports on first use, by name
    graph = {module: {m for m in below if m not in FOLDERS} for module, below in graph.items()}
    assert all(below <= TREES.keys() for below in graph.values()), "an import of a module that is not there"
    try:
        assert len([*TopologicalSorter(graph).static_order()]) >= len(TREES)
    except CycleError as error:
        pytest.fail(f"import cycle: {' → '.join(error.args[1])}")


# --------------------------------------------------------------------------- 8: no global state

GLOBAL_GENERATORS = (
    "np.random.seed", "np.random.rand", "np.random.randn", "np.random.randint", "np.random.random",
    "np.random.normal", "np.random.uniform", "np.random.choice", "np.random.shuffle", "np.random.permutation",
    "numpy.random.", "torch.seed", "torch.rand", "torch.randn", "torch.randint", "torch.randperm",
    "torch.normal", "torch.multinomial", "torch.bernoulli", "torch.set_rng_state", "torch.cuda.manual_seed",
)  # fmt: skip


def test_no_global_random_generator() -> None:
    for module in TREES:
        assert "random" not in roots(module), f"{module} imports random"
        used = [name for name in called_names(module) if name in GLOBAL_GENERATORS or name.startswith("numpy.random.")]
        assert used == [], module
    seeders = [
        (module, node.name)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and "manual_seed(" in ast.unparse(node)
    ]
    assert seeders == [("nn.model", "make_model")]
    assert {m for m in TREES if "torch.manual_seed" in called_names(m)} == {"nn.model"}
    assert "with torch.random.fork_rng(devices=[])" in ast.unparse(TREES["nn.model"])


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after ``statement``."""
    code = f"{statement}\nimport sys\nsys.stdout.write('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_importing_limelight_loads_nothing_heavy() -> None:
    loaded = loaded_by("import limelight; assert limelight.__version__")
    assert not loaded & {"torch", "gymnasium", "numpy", "yaml", "rich", "matplotlib"}


def test_the_settings_and_the_command_line_load_no_torch() -> None:
    """``limelight --help`` must answer at once."""
    loaded = loaded_by(
        "import limelight.settings.schema, limelight.training.algorithms, limelight.training.presets, "
        "limelight.cli.main"
    )
    assert not loaded & {"torch", "gymnasium", "matplotlib", "tensorboard"}


def test_importing_everything_changes_nothing_global() -> None:
    modules = ", ".join(f"limelight.{module}" for module in sorted(TREES) if module not in ("", "__main__"))
    code = (
        "import signal, threading, numpy, torch\n"
        "def state():\n"
        "    generators = numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()\n"
        "    return generators, signal.getsignal(signal.SIGINT), threading.active_count(), torch.get_num_threads()\n"
        "before = state()\n"
        f"import {modules}\n"
        "assert state() == before"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
