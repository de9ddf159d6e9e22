"""How well a model does: every metric of a run."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.engines.interface import Labels, Logits


@dataclass(frozen=True)
class Evaluation:
    """How a model does on the test split.

    Each field is logged as the metric `test/<field>`. A new field needs a default, for results written before it.

    Attributes:
      accuracy: share of correct predictions, in [0, 1].
      loss: mean cross-entropy in nats; not finite when logits are not.
    """

    accuracy: float
    loss: float


def cross_entropies(logits: NDArray[np.floating], labels: Labels) -> NDArray[np.float64]:
    """Cross-entropy of each example in nats, shape (n,), from logits, shape (n, classes), and labels, shape (n,)."""
    logits = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # a model that diverged has the loss NaN, and the caller checks for that
        shifted = logits - logits.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(labels)), labels])


def score(logits: Logits, labels: Labels) -> Evaluation:
    """Accuracy and cross-entropy of logits, shape (n, classes), for labels, shape (n,)."""
    return Evaluation(
        accuracy=float(np.mean(logits.argmax(axis=1) == labels)),
        loss=float(cross_entropies(logits, labels).mean()),
    )
