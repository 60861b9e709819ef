"""Plain data, which a checkpoint can hold, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from limelight.errors import ConfigError
from limelight.runs.plain import require_plain


@pytest.mark.parametrize(
    "value", [None, True, 3, 0.5, "text", np.float32(1), np.zeros(2), [1, ("a", {"b": [None]})]], ids=str
)
def test_plain_data_passes(value: Any) -> None:
    require_plain("here", value)


@pytest.mark.parametrize(
    ("value", "kind"), [({1}, "set"), ([{"a": object()}], "object"), ({1: 2}, "dict"), ((len,), "builtin_function")]
)
def test_anything_else_is_refused_by_its_type(value: Any, kind: str) -> None:
    with pytest.raises(ConfigError, match=f"here: holds a {kind}"):
        require_plain("here", value)
