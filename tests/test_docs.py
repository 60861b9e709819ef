"""The documentation holds: its commands parse, its Python runs, its links lead somewhere, its tables are complete."""

from __future__ import annotations

import doctest
import importlib
import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import limelight
from limelight.cli.arguments import SYNTAXES, train_request
from limelight.cli.flags import parse
from limelight.cli.main import COMMANDS, main
from limelight.envs import minigrid
from limelight.envs.games import game_of
from limelight.settings.io import ALIASES, SWITCHES
from limelight.training.algorithms import ALGORITHMS

ROOT = Path(__file__).parents[1]
FOLDERS = ("agents", "benchmarks")
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(page for name in FOLDERS for page in (ROOT / name).glob("*.md")),
    ]
)
OURS = [page for page in PAGES if page.name != "ARCHITECTURE.md"]
SHELL = ("sh", "bash", "console")
# Flags that are mentioned and belong to other programs.
OTHERS_FLAGS = {"--index-url", "--logdir", "--no-cov", "--check", "--strict", "--record"}
TINY = {"total_timesteps": 400, "eval_every": 200, "eval_episodes": 2, "final_episodes": 2, "quiet": True}


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    """What stands behind the fence; ``python no-run`` is only compiled."""
    text: str


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@cache
def blocks(page: Path) -> list[Block]:
    return [Block(*found) for found in re.findall(r"^```([\w -]*)\n(.*?)^```$", text_of(page), re.M | re.S)]


@cache
def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", text_of(page), flags=re.M | re.S)


def inline_code(page: Path) -> list[str]:
    return code_in(prose(page))


def code_in(text: str) -> list[str]:
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def our_code(page: Path) -> list[str]:
    """Inline code that names things of ours: on a page on another program the first column of tables is of that one."""
    if not page.name.startswith("coming-from-"):
        return inline_code(page)
    return code_in(re.sub(r"^\|[^|\n]*\|(?= )", "|", prose(page), flags=re.M))


def shell_lines(page: Path) -> Iterator[list[str]]:
    """The words of every line of the shell blocks, comments left out."""
    for block in blocks(page):
        if block.language in SHELL:
            for line in block.text.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield words


def commands(page: Path) -> Iterator[list[str]]:
    """The words after every ``limelight``: in shell blocks, and in running text where they are a whole command."""
    yield from (words[1:] for words in shell_lines(page) if words[0] == "limelight")
    for code in inline_code(page):
        words = code.split()
        if words[0] == "limelight" and len(words) > 1:
            yield [word for word in words[1:] if word != "..."]


def per_page(pages: list[Path] = PAGES) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.relative_to(ROOT).as_posix())


# --------------------------------------------------------------------------- commands


def refuse_notice(text: str) -> None:
    pytest.fail(f"the documentation uses a foreign spelling: {text}")


def check_command(words: list[str]) -> None:
    """Parses; a training that needs nothing but itself resolves to a valid configuration too."""
    name, argv = words[0], [word for word in words[1:] if word != "--help"]
    assert name in COMMANDS or words in (["--help"], ["--version"])
    if not argv:
        return
    parsed = parse(SYNTAXES[name], argv, refuse_notice)
    needs_more = {"ENV_ID", "--env-module"} & {*argv} or argv[0].startswith(("my_package.", *minigrid.PREFIXES))
    needs_more = needs_more or {"--from", "--init-agent", "--config"} & {*argv}
    if name == "train" and not needs_more and parsed.arguments.resume is None:
        train_request(argv, refuse_notice)


@per_page()
def test_commands_parse(page: Path) -> None:
    for words in commands(page):
        check_command(words)


def test_commands_are_found() -> None:
    """Guards the guard: a change of the patterns must not leave nothing to check."""
    assert len(list(commands(ROOT / "README.md"))) >= 6
    assert len(list(commands(ROOT / "docs" / "environments.md"))) >= 4
    with pytest.raises(limelight.errors.ConfigError):
        check_command(["train", "CartPole-v1", "--gama", "1"])


@per_page()
def test_environments_exist(page: Path) -> None:
    import gymnasium

    for words in commands(page):
        if words[0] in ("train", "check") and len(words) > 1 and not words[1].startswith("-"):
            env_id = words[1]
            own = ":" in env_id or "--env-module" in words or env_id == "ENV_ID" or env_id.startswith(minigrid.PREFIXES)
            assert own or env_id in gymnasium.registry or game_of(env_id) is not None


@per_page(OURS)
def test_mentioned_flags_exist(page: Path) -> None:
    known = {name.rstrip("_") for syntax in SYNTAXES.values() for name in syntax.flags()} | {
        *ALIASES,
        *SWITCHES,
        "help",
        "help_all",
        "version",
    }
    scripts = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py"))
    benchmarks = set(re.findall(r'"(--[a-z-]+)"', scripts))
    mentioned = {flag for code in our_code(page) for flag in re.findall(r"--[a-z][a-z-]*(?:\.[a-z-]+)?", code)}
    for flag in mentioned - OTHERS_FLAGS - benchmarks:
        name = flag.removeprefix("--").rpartition(".")[2].replace("-", "_")
        assert name in known or name.removeprefix("no_") in known, flag


@per_page()
def test_other_commands_exist(page: Path) -> None:
    """Scripts that are run are there, and make knows its targets."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    lines = [*shell_lines(page), *(code.split() for code in inline_code(page))]
    for words in lines:
        if words[0] == "make" and len(words) > 1:
            assert words[1] in targets
        if words[0] == "python" and len(words) > 1 and words[1].endswith(".py"):
            assert (ROOT / words[1]).is_file()


@per_page()
def test_benchmark_commands_parse(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for words in [*shell_lines(page), *(code.split() for code in inline_code(page))]:
        if words[0] == "python" and words[1].startswith("benchmarks/"):
            importlib.import_module(Path(words[1]).stem).parse(words[2:])


# --------------------------------------------------------------------------- Python


def python_blocks(page: Path) -> list[str]:
    return [block.text for block in blocks(page) if block.language == "python"]


WITH_PYTHON = [page for page in PAGES if python_blocks(page)]


@per_page(WITH_PYTHON)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run one after the other in an empty folder, with tiny budgets.

    A block that starts with a comment that names a file is that file; the commands of the page may then use it.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("train", "resume"):
        monkeypatch.setattr(limelight, name, tiny(getattr(limelight, name)))
    train_module = importlib.import_module("limelight.training.run")
    monkeypatch.setattr(train_module, "draw_report", lambda run_dir: None)  # as slow as the training is here
    namespace: dict[str, Any] = {"__name__": "documentation"}
    runner = doctest.DocTestRunner(verbose=False)
    for text in python_blocks(page):
        file = re.match(r"# ([\w/]+\.py)\n", text)
        if file:
            path = tmp_path / file[1]
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif ">>>" in text:
            test = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
            test.globs = namespace  # not a copy of it: what one block defines, the next one has
            runner.run(test, clear_globs=False)
        else:
            importlib.invalidate_caches()
            exec(compile(text, str(page), "exec"), namespace)
    assert runner.summarize(verbose=False).failed == 0
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        monkeypatch.delitem(sys.modules, name)


@per_page([page for page in PAGES if any(block.language == "python no-run" for block in blocks(page))])
def test_python_that_is_not_run_compiles(page: Path) -> None:
    for block in blocks(page):
        if block.language == "python no-run":
            compile(block.text, str(page), "exec")


def tiny(function: Any) -> Any:
    """``function`` with budgets that a test can afford."""

    def limited(*args: Any, **settings: Any) -> Any:
        return function(*args, **{**settings, **TINY})

    return limited


@pytest.mark.slow
def test_the_package_of_extending_works_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/extending.md: its files, then its commands, as a reader would."""
    page = ROOT / "docs" / "extending.md"
    monkeypatch.chdir(tmp_path)
    for text in python_blocks(page):
        file = re.match(r"# ([\w/]+\.py)\n", text)
        if file:
            (tmp_path / file[1]).parent.mkdir(exist_ok=True)
            (tmp_path / file[1]).write_text(text, encoding="utf-8")
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setattr(importlib.import_module("limelight.training.run"), "draw_report", lambda run_dir: None)
    budget = ["--total-timesteps", "300", "--eval-every", "0", "--final-episodes", "2", "--quiet"]
    lines = [words[1:] for words in shell_lines(page)]
    assert len(lines) >= 5
    try:
        for number, words in enumerate(lines):
            own = ["--run-dir", f"run-{number}", *budget] if words[0] == "train" else []
            kept = words[: words.index("--total-timesteps")] if "--total-timesteps" in words else words
            assert main([*kept, *own]) == 0, capsys.readouterr().err
    finally:
        import gymnasium

        gymnasium.registry.pop("my_package/Heater-v0", None)
        for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
            del sys.modules[name]


# --------------------------------------------------------------------------- tables, links, names


def test_the_settings_page_is_what_the_script_gives() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "make_settings.py"))
    assert text_of(ROOT / "docs" / "settings.md") == script["page"](), "run python docs/make_settings.py"


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_logged_metric_is_explained(algo: str, tmp_path: Path) -> None:
    settings = {**TINY, "log_every": 100, "final_episodes": 0, **({"num_workers": 2} if algo == "a3c" else {})}
    run_dir = limelight.train("CartPole-v1", algo=algo, run_dir=str(tmp_path / "run"), **settings).run_dir
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    logged = {re.sub(r"worker_\d+", "worker_0", name) for row in rows for name in row} - {"step", "seconds"}
    assert {"train/entropy", "eval/mean_reward", "rollout/ep_rew_mean"} <= logged
    assert logged - explained(METRICS_PAGE) == set()


@pytest.mark.parametrize("package", ["limelight", "limelight.algo", "limelight.nn", "limelight.settings"])
def test_the_reference_has_every_public_name(package: str) -> None:
    reference = re.findall(r"^::: (\S+)$", text_of(ROOT / "docs" / "api.md"), re.M)
    public = {name for name in importlib.import_module(package).__all__ if not name.startswith("_")}
    if package == "limelight.settings":
        public -= {"TrainConfig"}  # the same as limelight.TrainConfig
    assert {f"{package}.{name}" for name in public} - {*reference} == set()
    for dotted in reference:
        module, _, name = dotted.rpartition(".")
        assert hasattr(importlib.import_module(module), name), dotted


def test_both_glossaries_have_the_same_terms() -> None:
    def rows(page: Path) -> list[list[str]]:
        lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text_of(page).splitlines() if line.startswith("| ")]
        return [[cell.strip() for cell in line] for line in lines if line[0].strip() not in ("English", "中文")]

    english, chinese = rows(ROOT / "docs" / "glossary.md"), rows(ROOT / "docs" / "zh" / "glossary.md")
    assert len(english) >= 60
    assert english == [[line[1], line[0], line[3]] for line in chinese]


METRICS_PAGE = ROOT / "docs" / "metrics.md"


def test_every_metric_that_is_explained_is_logged_somewhere() -> None:
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    assert [name for name in explained(METRICS_PAGE) if name.rpartition("/")[2] not in source] == []
    assert len(explained(METRICS_PAGE)) > 40


def explained(page: Path) -> set[str]:
    """Metrics in the first column of a page's tables."""
    rows = [line.split("|")[1] for line in text_of(page).splitlines() if line.startswith("| ")]
    return {name for cell in rows for name in re.findall(r"`(\w+(?:/\w+)+)`", cell)}


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@per_page()
def test_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in {slug(h) for h in re.findall(r"^#+ (.*)$", prose(file), re.M)}, target


@per_page()
def test_named_code_exists(page: Path) -> None:
    """`` `Learner.targets` in `learner.py` `` names something that is there."""
    for dotted, file in re.findall(r"`([A-Za-z_][\w.]*)` in\s+`([\w/]+\.py)`", prose(page)):
        thing: Any = importlib.import_module("limelight." + file.removesuffix(".py").replace("/", "."))
        for name in dotted.split("."):
            thing = getattr(thing, name)


# First folders of paths that are a run's or a reader's own, not this repository's.
FOREIGN_FOLDERS = {"agents", "best", "checkpoints", "my_package", "plots", "runs", "videos"}
BASES = (ROOT, ROOT / "src" / "limelight", ROOT / "docs", ROOT / "tests")


def expand_braces(path: str) -> list[str]:
    """``a/{b,c}.py`` as ``a/b.py`` and ``a/c.py``."""
    braces = re.search(r"\{([^{}]*)\}", path)
    if not braces:
        return [path]
    start, end = path[: braces.start()], path[braces.end() :]
    return [each for part in braces[1].split(",") for each in expand_braces(f"{start}{part.strip()}{end}")]


def named_paths(page: Path) -> list[str]:
    """Return inline code that is a path of this repository: a Python file, or a file or folder with a slash."""
    paths = [path for code in our_code(page) for path in expand_braces(code)]
    looks_like_path = re.compile(r"[\w.-]+\.py|[\w.-]+(?:/[\w.*-]+)*/(?:[\w.*-]+\.(?:py|md|json|yaml|png|gif|toml))?")
    return [p for p in paths if looks_like_path.fullmatch(p) and p.partition("/")[0] not in FOREIGN_FOLDERS]


@per_page()
def test_named_paths_exist(page: Path) -> None:
    files = {
        path.name for base in ("src", "tests", "benchmarks", "examples", "docs") for path in (ROOT / base).rglob("*.py")
    }
    for path in named_paths(page):
        if "/" in path:
            assert any(next(base.glob(path.rstrip("/")), None) for base in (*BASES, page.parent)), path
        else:
            assert path in files, path


def test_named_paths_are_found(tmp_path: Path) -> None:
    """Guards the guard: paths are recognised, and metrics, spaces and files of a run are not."""
    page = tmp_path / "page.md"
    page.write_text(
        "`algo/learner.py`, `nn/{model,noise}.py`, `tests/`, `train/entropy`, `best/`, `Box`", encoding="utf-8"
    )
    assert named_paths(page) == ["algo/learner.py", "nn/model.py", "nn/noise.py", "tests/"]
    assert len(named_paths(ROOT / "docs" / "algorithms" / "a2c.md")) >= 6


@per_page(OURS)
def test_named_settings_exist(page: Path) -> None:
    """A name with an underscore in code is a setting, a name of ours, or one of a known few."""
    known = {name for syntax in SYNTAXES.values() for name in syntax.flags()}
    sources = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    others = " ".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py"))
    for code in our_code(page):
        if re.fullmatch(r"[a-z]+(?:_[a-z]+)+", code):
            assert code in known or re.search(rf"\b{code}\b", sources + others), code
