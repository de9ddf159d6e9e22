"""Private steps over users: each user contributes one clipped update, made from all of their examples.

Sampling, noise, expected batch size and accounting are those of private steps over examples. A user's update is the
mean gradient over their examples, or the decrease of the weights in local steps of plain SGD. With local steps, a step
is a round of federated averaging; SGD at rate r and momentum m is then the server's optimizer.

Source: McMahan et al. 2018, arXiv:1710.06963, algorithm 1 (UserUpdateFedSGD and UserUpdateFedAvg).
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipelines.config.pipeline_settings import DpSgdUsersConfig
from pipelines.data.partition.client_batches import ClientBatches
from pipelines.data.partition.division import Partition
from pipelines.engines.central.gradients import SumOptimizer
from pipelines.engines.central.torch_model import to_tensors
from pipelines.engines.central.training import TrainState, build_optimizer
from pipelines.engines.interface import TrainingData
from pipelines.privacy.clipping import PRIVATE_REACH
from pipelines.privacy.mechanisms.base import Mechanism


def canary_updates(data: TrainingData, device: torch.device) -> dict[int, list[Tensor]]:
    """Returns the updates that an audit's users send, by user; empty without an audit."""
    if data.canaries is None:
        return {}
    shape, updates = data.spec.shaped, data.canaries.updates
    return {
        user: [part.to(device) for part in to_tensors(shape(updates[row]))] for user, row in data.canaries.rows.items()
    }


class UserUpdates:
    """A `PrivateGradients` over users: sums of clipped updates, one user after the other."""

    def __init__(
        self,
        state: TrainState,
        partition: Partition,
        settings: DpSgdUsersConfig,
        plan: Mechanism,
        *,
        noise: np.random.Generator,
        order: np.random.Generator,
        canaries: dict[int, list[Tensor]] | None = None,
    ) -> None:
        """Keeps references, not copies.

        Args:
          state: model and data.
          partition: which examples belong to which user.
          settings: the optimizer, and how a user's update is computed.
          plan: clip norm, noise and expected batch size.
          noise: the run's private stream of noise.
          order: stream for the order of each user's examples, and for the choice of those that are taken.
          canaries: updates of users that an audit planted, in the shapes of the parameters; from `canary_updates`.
        """
        self.optimizer = SumOptimizer(build_optimizer(state.module, settings), plan=plan, rng=noise)
        self._state, self._settings = state, settings
        self.facts: dict[str, str] = {"user_update": settings.user_update}
        self._parameters: list[Tensor] = list(state.module.parameters())
        local = settings.user_update == "delta"
        self._canaries = canaries or {}
        self._update = self._local_change if local else self._mean_gradient
        self._orders = ClientBatches(
            partition,
            local_batch_size=settings.local_batch_size if local else int(partition.sizes.max()),
            order=order,
            most=settings.user_examples,
        )

    def step(self, sample: Tensor) -> None:
        """Updates the weights from one Poisson sample of users, indices (n,) with n >= 0; noise is added once."""
        sums = [torch.zeros_like(parameter) for parameter in self._parameters]
        clipped = torch.zeros((), dtype=torch.int64, device=self._state.device)
        for user, order in zip(users := sample.tolist(), self._orders.of(users), strict=True):
            raw = self._canaries[user] if user in self._canaries else self._update(self._indices(order))
            update, norm = clipped_update(raw, self.optimizer.max_grad_norm)
            torch._foreach_add_(sums, update)
            clipped += norm > self.optimizer.max_grad_norm
        self.optimizer.release(sums, units=len(sample), clipped=int(clipped))

    def close(self) -> None:
        """There are no hooks."""

    def _indices(self, order: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(order).to(self._state.device)

    def _mean_gradient(self, examples: Tensor) -> list[Tensor]:
        """Returns the mean gradient of the cross-entropy over these examples; computes it part by part."""
        state, totals = self._state, [torch.zeros_like(parameter) for parameter in self._parameters]
        for part in examples.split(self._settings.max_physical_batch):
            loss = cross_entropy(state.module(state.inputs[part]), state.labels[part], reduction="sum")
            torch._foreach_add_(totals, torch.autograd.grad(loss / len(examples), self._parameters))
        return totals

    def _local_change(self, examples: Tensor) -> list[Tensor]:
        """Returns the decrease of the weights in local steps over these examples, and then restores the weights."""
        settings, start = self._settings, [parameter.detach().clone() for parameter in self._parameters]
        for _ in range(settings.local_epochs):
            for batch in examples.split(settings.local_batch_size):
                slopes = self._mean_gradient(batch)
                with torch.no_grad():
                    torch._foreach_add_(self._parameters, slopes, alpha=-settings.local_learning_rate)
        with torch.no_grad():
            change = torch._foreach_sub(start, self._parameters)
            torch._foreach_copy_(self._parameters, start)
        return list(change)


def clipped_update(update: list[Tensor], clip_norm: float) -> tuple[list[Tensor], Tensor]:
    """Bounds the L2 norm over all tensors of one user's update, for all values of it.

    Coordinates are cut at `PRIVATE_REACH`, so that the norm does not overflow. An update that is still not finite
    becomes zero. The rest is TensorFlow's `clip_by_global_norm`, with which TFF clips.

    Args:
      update: float32.
      clip_norm: > 0.

    Returns:
      The bounded update, and the norm before the bound, shape ().
    """
    update = [value.clamp(-PRIVATE_REACH, PRIVATE_REACH) for value in update]  # NaN stays NaN
    finite = torch.stack([torch.isfinite(value).all() for value in update]).all()
    update = [torch.where(finite, value, 0.0) for value in update]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(value) for value in update]))
    scale = clip_norm / norm.clamp(min=clip_norm)
    return [value * scale for value in update], norm
