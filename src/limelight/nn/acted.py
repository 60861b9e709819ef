"""Which rows of a rollout acting has already run through a network, so that learning need not run them again.

Parameters do not change between acting and learning: what acting computes is what learning needs. Used by
numpy_mlp.py and kept.py, which hold the activations of these rows.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray


class Acted:
    """Counts the rows of one rollout as they are acted on; a rollout is known by the array that holds it.

    Rows are acted on from the first to the last. Whoever fills that array by another policy in between must forget.

    Args: ``num_steps``: T of the rollouts that are learnt from; 0 keeps no rows.
    """

    def __init__(self, num_steps: int) -> None:
        self.num_steps = num_steps
        self._rows = 0
        self._obs: NDArray[Any] | None = None

    def forget(self) -> None:
        """What acting computed is of no use any more: the parameters are about to change."""
        self._rows = 0

    def next_rows(self, obs: NDArray[Any]) -> slice | None:
        """Which rows of a rollout [T B] these observations [B, ...] are, if they are of a rollout."""
        if not self.num_steps or obs.base is None:
            return None
        B = len(obs)
        if obs.base is not self._obs or self._rows == self.num_steps * B:
            self._obs, self._rows = obs.base, 0
        self._rows += B
        return slice(self._rows - B, self._rows)

    def known_rows(self, obs: NDArray[Any]) -> int:
        """How many of the first of these observations [(T+1) B, ...] have all been acted on: T B, or none.

        If none, all is forgotten: what the caller computes now takes the place of what acting has left.
        """
        rows = len(obs) // (self.num_steps + 1) * self.num_steps
        if not rows or obs.base is not self._obs or self._rows != rows:
            self.forget()
        return self._rows
