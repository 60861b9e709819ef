"""The package as others get it: versions, extras and recipes that agree with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import limelight

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~ ;]", requirement, maxsplit=1)[0]


def test_the_citation_has_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == limelight.__version__
    assert citation["license"] == PROJECT["license"]


def test_the_changelog_has_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert limelight.__version__ in re.findall(r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", text, re.M)


def test_the_conda_recipe_asks_for_what_the_package_asks_for() -> None:
    recipe = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text(encoding="utf-8"))
    assert recipe["context"]["version"] == limelight.__version__
    ours = {name_of(line): line for line in recipe["requirements"]["run"]}
    for requirement in PROJECT["dependencies"]:
        name = name_of(requirement)
        floor = re.search(r">=([\d.]+)", requirement)
        assert floor is not None
        assert f">={floor[1]}" in ours[CONDA_NAMES.get(name, name)]


def test_all_names_extras_that_exist() -> None:
    extras = PROJECT["optional-dependencies"]
    (line,) = extras["all"]
    assert set(re.findall(r"\[(.*)\]", line)[0].split(",")) < set(extras)


@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore", "src/limelight/py.typed", "LICENSE"])
def test_files_of_the_package_exist(name: str) -> None:
    assert (ROOT / name).is_file()


def test_the_docker_image_installs_extras_that_exist() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    (extras,) = re.findall(r'pip install "\.\[(.*)\]"', text)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_workflows_and_forms_are_yaml(path: Path) -> None:
    assert yaml.safe_load(path.read_text(encoding="utf-8"))
