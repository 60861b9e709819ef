"""A network that stops at the first number that is not finite: in a layer, a loss, a gradient or a parameter."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from limelight.errors import FirstNonFiniteError
from limelight.nn.layer_check import LayerCheck
from limelight.nn.network import Network
from limelight.nn.noise import Noise
from limelight.spaces.images import PixelScale
from limelight.typing import FloatArray

if TYPE_CHECKING:
    from limelight.algo.rollout import Rollout


class CheckedNetwork:
    """See :class:`limelight.nn.network.Network`; passes everything on to ``inner``, and checks what it returns.

    Raises :class:`limelight.errors.FirstNonFiniteError`, whose row is of the rollout. ``grads``: of all parameters.
    """

    def __init__(self, inner: Network, grads: Tensor) -> None:
        self.inner = inner
        self.model = inner.model
        self.target_critic = inner.target_critic
        self._grads = grads
        self._check = LayerCheck(inner.model)
        # Of the present rollout: the rows that were acted on, [B, *obs_shape], states and starts before them
        self._acted: list[tuple[NDArray[Any], FloatArray | None, FloatArray]] = []
        self._whole: Rollout | None = None
        self._rollout: Rollout | None = None  # the one last given to values, which may be a minibatch

    # ------------------------------------------------------------------ acting

    def begin_rollout(self) -> None:
        """Forget the rollout before."""
        self._acted, self._whole = [], None
        self.require_parameters()
        self.inner.begin_rollout()

    def act(
        self, obs: NDArray[Any], state: FloatArray | None, episode_start: FloatArray, noise: Noise | None
    ) -> tuple[NDArray[Any], FloatArray | None]:
        """Act, and keep the inputs."""
        self._acted.append((obs.copy(), None if state is None else state.copy(), episode_start.copy()))
        return self.inner.act(obs, state, episode_start, noise)

    def require_acted(self) -> None:
        """Check the layers over the rows that were acted on since the rollout began."""
        for row, (obs, state, start) in enumerate(self._acted):
            self._require_layers(obs[None], state, start[None], first_row=row)

    # ------------------------------------------------------------------ learning

    def values(self, rollout: Rollout, next_noise: FloatArray | None = None) -> tuple[FloatArray, FloatArray]:
        """Check parameters and layers, then the values."""
        self.require_parameters()
        self._rollout = rollout
        self._whole = rollout if self._whole is None else self._whole
        self._require_layers(rollout.obs, rollout.recurrent_state, rollout.episode_start)
        values, next_values = self.inner.values(rollout, next_noise)
        self._require_rows("V(s), the critic's value", values)
        self._require_rows("V(s'), the value of the next observation", next_values)
        return values, next_values

    def expected_values(self) -> FloatArray:
        """Pass on."""
        return self.inner.expected_values()

    def log_probs(self) -> FloatArray:
        """Check log π."""
        log_probs = self.inner.log_probs()
        self._require_rows("log π(a|s), of the policy", log_probs)
        return log_probs

    def backward(
        self, d_log_probs: FloatArray, d_entropies: FloatArray, d_values: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Check the derivatives of the loss, then log π, the entropies and the gradients."""
        self._require_rows("the loss: ∂L/∂V(s), from the return to learn from", d_values, latest=True)
        self._require_rows("the loss: ∂L/∂log π(a|s), from the advantage", d_log_probs, latest=True)
        self._require_rows("the loss: ∂L/∂H", d_entropies)
        log_probs, entropies = self.inner.backward(d_log_probs, d_entropies, d_values)
        self._require_rows("the loss: log π(a|s), of the policy", log_probs)
        self._require_rows("the loss: the entropy of the policy", entropies)
        if not torch.isfinite(self._grads).all():
            name, value = self._odd_parameter(lambda p: p.grad)
            at = self._odd_row(d_log_probs, d_entropies, d_values)
            self._refuse(f"the gradient of parameter {name}", value, at)
        return log_probs, entropies

    def parameters_changed(self) -> None:
        """Pass on."""
        self.inner.parameters_changed()

    def set_image_scale(self, scale: PixelScale) -> None:
        """Pass on."""
        self.inner.set_image_scale(scale)

    def dead_filters(self) -> float | None:
        """Pass on."""
        return self.inner.dead_filters()

    # ------------------------------------------------------------------ the checks

    def require_parameters(self) -> None:
        """Check the parameters."""
        if not all(torch.isfinite(p).all() for p in self.model.parameters()):
            name, value = self._odd_parameter(lambda p: p.detach())
            self._refuse(f"parameter {name}", value, None)

    def _odd_parameter(self, of: Callable[[Any], Tensor | None]) -> tuple[str, float]:
        """Return the name and index of the first number that is not finite in what ``of`` gives of each parameter."""
        for name, parameter in self.model.named_parameters():
            tensor = of(parameter)
            if tensor is not None and not torch.isfinite(tensor).all():
                index = torch.nonzero(~torch.isfinite(tensor))[0].tolist()
                return f"{name}{index}", float(tensor[tuple(index)])
        raise AssertionError("all are finite")

    def _require_layers(
        self, obs: NDArray[Any], state: FloatArray | None, starts: FloatArray, first_row: int = 0
    ) -> None:
        obs = obs.astype(np.float32) if obs.dtype == np.float64 else obs
        if obs.dtype.kind == "f" and not np.isfinite(obs).all():
            row, env, *index = (int(i) for i in np.argwhere(~np.isfinite(obs))[0])
            self._refuse(
                f"the observation{index} that the network reads", obs[(row, env, *index)], (row, env), first_row
            )
        fault = self._check(obs, state, starts)
        if fault is not None:
            at = None if fault.env is None else (fault.row, fault.env)
            self._refuse(fault.place, fault.value, at, first_row)

    def _require_rows(self, place: str, values: FloatArray, latest: bool = False) -> None:
        """Check numbers [T, B] of the rollout last given to :meth:`values`.

        ``latest``: name the latest row instead of the first, as returns are computed from the last row to the first.
        """
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            row, env = (int(i) for i in bad[-1 if latest else 0][:2])
            self._refuse(place, float(values[row, env]), (row, env))

    def _odd_row(self, *derivatives: FloatArray) -> tuple[int, int] | None:
        """Return a row whose own gradient is not finite, by halving the rows; None if only the sum is not."""
        assert self._rollout is not None
        T, B = self._rollout.rewards.shape
        rows = np.arange(T * B)
        while len(rows) > 1:
            half = rows[: len(rows) // 2]
            if self._is_odd(half, *derivatives):
                rows = half
            elif self._is_odd(rest := rows[len(rows) // 2 :], *derivatives):
                rows = rest
            else:
                return None
        row, env = divmod(int(rows[0]), B)
        return row, env

    def _is_odd(self, rows: NDArray[Any], *derivatives: FloatArray) -> bool:
        """Return whether the gradient of these rows alone is not finite."""
        assert self._rollout is not None
        mask = np.zeros(derivatives[0].size, np.float32)
        mask[rows] = 1.0
        self.inner.values(self._rollout)
        self.inner.backward(*(d * mask.reshape(d.shape) for d in derivatives))
        return not bool(torch.isfinite(self._grads).all())

    def _refuse(self, place: str, value: float, at: tuple[int, int] | None, first_row: int = 0) -> None:
        """Raise for a number at a row and an environment of the present rollout, or of a minibatch of it."""
        row, env = (None, None) if at is None else (first_row + at[0], at[1])
        if self._rollout is not None and self._whole is not None and self._rollout is not self._whole:
            row, env = (None, None) if at is None else _same_row(self._rollout, self._whole, *at)
        raise FirstNonFiniteError(place, float(value), row, env)


def _same_row(part: Rollout, whole: Rollout, row: int, env: int) -> tuple[int | None, int | None]:
    """Return where a row of a minibatch is in its rollout."""
    obs = whole.obs.reshape(*whole.obs.shape[:2], -1)
    same = (obs == part.obs[row, env].reshape(-1)).all(-1)
    found = np.argwhere(same)
    return (int(found[0][0]), int(found[0][1])) if len(found) else (None, None)
