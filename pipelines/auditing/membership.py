"""The simplest membership inference: the loss decides which examples were in the training data.

Everything here is computed from the raw training examples, so no epsilon covers it.

Source: Yeom et al. 2018, arXiv:1709.01604, section 3 (the test); Carlini et al. 2022, arXiv:2112.03570, section 3 (why
true positives at low false positive rates); Kairouz et al. 2015, arXiv:1311.0776, theorem 2.1 (what a claim allows).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.auditing.finding import RATES
from pipelines.engines.evaluation import cross_entropies
from pipelines.engines.interface import FittedModel, Inputs, Labels

Floats = NDArray[np.float64]
POINTS = 300
CURVE_FILE = "membership.json"


@dataclass(frozen=True)
class Roc:
    """A receiver operating characteristic: rates float64, shape (thresholds,), both from 0 to 1, never falling."""

    false_positive: Floats
    true_positive: Floats

    def true_positive_at(self, rate: float) -> float:
        """Largest true positive rate of a threshold whose false positive rate is at most `rate`."""
        return float(self.true_positive[self.false_positive <= rate].max())

    def resolved(self, others: int) -> dict[str, float | None]:
        """True positive rates at `RATES`, by name; None if there are fewer than 1/rate examples outside of training.

        A false positive rate below the share of one example cannot be measured: it would allow no false positive.

        Args:
          others: number of examples outside of training.
        """
        return {
            name: self.true_positive_at(rate) if others >= round(1 / rate) else None for name, rate in RATES.items()
        }

    def thinned(self) -> "Roc":
        """The points of the curve that a figure can show, including the points at `RATES`."""
        rates = np.concatenate([[0.0], np.logspace(-5, 0, POINTS), list(RATES.values())])
        kept = np.unique(np.searchsorted(self.false_positive, rates, side="right") - 1)
        return Roc(self.false_positive[kept], self.true_positive[kept])

    def to_dict(self) -> dict[str, list[float]]:
        """Plain data."""
        return {"false_positive": self.false_positive.tolist(), "true_positive": self.true_positive.tolist()}

    @classmethod
    def from_dict(cls, values: dict[str, list[float]]) -> "Roc":
        """Reads what `to_dict` wrote."""
        return cls(np.array(values["false_positive"]), np.array(values["true_positive"]))


def roc(members: Floats, others: Floats) -> Roc:
    """The curve of the test "a member if the score is at least t", over all t.

    Args:
      members: scores of training examples, shape (n,); a higher score means more likely a member.
      others: scores of other examples, shape (m,).
    """
    thresholds = np.unique(np.concatenate([members, others]))[::-1]
    in_order, out_order = np.sort(members), np.sort(others)
    # Counts first, then divides: 1 - 99/100 is more than 0.01 in floating point and would exclude that threshold.
    true_positive = (len(members) - np.searchsorted(in_order, thresholds, side="left")) / len(members)
    false_positive = (len(others) - np.searchsorted(out_order, thresholds, side="left")) / len(others)
    return Roc(np.concatenate([[0.0], false_positive]), np.concatenate([[0.0], true_positive]))


def scores(model: FittedModel, inputs: Inputs, labels: Labels) -> Floats:
    """Minus the cross-entropy of each example, in nats, shape (n,)."""
    return -cross_entropies(model.logits(inputs), labels)


def allowed(false_positive: Floats, *, epsilon: float, delta: float) -> Floats:
    """Largest true positive rates of any test under (epsilon, delta)-privacy of an example."""
    by_factor = np.exp(min(epsilon, 700.0)) * false_positive + delta
    by_rest = 1 - np.exp(-epsilon) * (1 - delta - false_positive)
    return np.asarray(np.clip(np.minimum(by_factor, by_rest), 0, 1))
