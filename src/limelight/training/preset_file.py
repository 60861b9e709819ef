"""Presets as files: the settings that ``limelight tune`` found, with the table that ranks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from limelight.errors import CheckpointError, ConfigError, did_you_mean
from limelight.files import write_text
from limelight.settings.io import all_settings, read_yaml
from limelight.settings.values import coerce, shown

SUFFIXES = (".yaml", ".yml")
NOT_OF_PRESETS = {"env_id", "env_module", "algo", "preset", "seed", "run_dir"}
"""Settings that are of a run and of no preset."""


@dataclass(frozen=True)
class PresetFile:
    """Settings for an environment, which go over those of a preset."""

    path: str
    env_id: str
    algo: str
    base: str
    """The preset, or the rules, that the settings go over."""
    settings: dict[str, Any]
    """Settings by their plain names."""
    found: dict[str, Any] = field(default_factory=dict)
    """How they were found: the command, the score, and the ranking."""

    def describe(self, env_id: str) -> str:
        """Return a line on the settings, for a run of an environment."""
        settings = ", ".join(self.settings) or "none but those of the preset below it"
        whose = "" if env_id == self.env_id else f", which is not this one ({env_id})"
        return f"preset {self.path}: found for {self.env_id}{whose}: {settings}; over preset {self.base}"


def is_preset_file(preset: str) -> bool:
    """Return whether a preset is given as the path of a file, and not by its name."""
    return preset.lower().endswith(SUFFIXES)


def write_preset(preset: PresetFile, header: str) -> None:
    """Write a preset as YAML, below ``header`` as a comment."""
    data = {
        "env_id": preset.env_id,
        "algo": preset.algo,
        "preset": preset.base,
        "settings": {name: list(v) if isinstance(v, tuple) else v for name, v in preset.settings.items()},
        "found": preset.found,
    }
    comment = "".join(f"# {line}\n" for line in header.splitlines())
    text = comment + yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    write_text(Path(preset.path), text)


def read_preset(path: str) -> PresetFile:
    """Read a preset.

    Raises: ConfigError with one line that names the file and what is wrong with it.
    """
    data = _mapping(path)
    settings = data.get("settings")
    texts = [data.get(name) for name in ("env_id", "algo", "preset")]
    if not isinstance(settings, Mapping) or not all(isinstance(text, str) for text in texts):
        raise ConfigError(
            f"preset = {path}: needs env_id, algo, preset and settings, as limelight tune writes them; "
            "a config.yaml is for --config"
        )
    env_id, algo, base = map(str, texts)
    if is_preset_file(base):
        raise ConfigError(f"preset = {path}: preset = {base}: must be the name of a preset, none or plain, not a file")
    found = data.get("found")
    return PresetFile(
        path, env_id, algo, base, {str(name): _checked(path, str(name), value) for name, value in settings.items()},
        dict(found) if isinstance(found, Mapping) else {},
    )  # fmt: skip


def _mapping(path: str) -> Mapping[str, Any]:
    try:
        data = read_yaml(Path(path))
    except FileNotFoundError:
        raise ConfigError(f"preset = {path}: no such file; limelight tune ENV_ID writes one") from None
    except CheckpointError as error:
        raise ConfigError(f"preset = {error}") from None
    if not isinstance(data, Mapping):
        raise ConfigError(f"preset = {path}: must be a mapping with env_id, algo, preset and settings")
    return data


def _checked(path: str, name: str, value: Any) -> Any:
    """Return the value of a setting in a preset, of its type and in its range."""
    setting = all_settings().get(name)
    if setting is None:
        raise ConfigError(f"preset = {path}: {name}: no such setting{did_you_mean(name, all_settings())}")
    if name in NOT_OF_PRESETS:
        raise ConfigError(f"preset = {path}: {name} = {shown(value)}: no setting of a preset; leave it out")
    try:
        value = coerce(name, value, setting.annotation)
        if setting.range is not None and value is not None:
            setting.range.check(name, value)
    except ConfigError as error:
        raise ConfigError(f"preset = {path}: {error}") from None
    return value
