"""Plain data: what a checkpoint can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from limelight.errors import ConfigError


def require_plain(where: str, value: Any) -> None:
    """Refuse a value that a checkpoint cannot hold.

    Raises: ConfigError.
    """
    if value is None or isinstance(value, bool | int | float | str | np.generic | np.ndarray):
        return
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        for item in value.values():
            require_plain(where, item)
    elif isinstance(value, list | tuple):
        for item in value:
            require_plain(where, item)
    else:
        kind = type(value).__name__
        raise ConfigError(f"{where}: holds a {kind}; must be numbers, texts, arrays, lists and dicts by text")
