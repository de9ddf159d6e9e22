"""Epsilon of tree aggregation: Renyi differential privacy, the one accountant that knows the mechanism."""

from functools import lru_cache
from typing import Any

from pipelines.core.errors import UserError
from pipelines.privacy.mechanisms.tree import TreeMechanism


def tree_event(plan: TreeMechanism) -> Any:
    """The plan as a dp_accounting DpEvent: its trees, composed, since a user joins each of them once."""
    from dp_accounting import dp_event as events

    trees = plan.trees
    return events.ComposedDpEvent(
        [
            events.SelfComposedDpEvent(
                events.SingleEpochTreeAggregationDpEvent(plan.noise_multiplier, length), trees.count(length)
            )
            for length in sorted(set(trees))
        ]
    )


def tree_epsilon(plan: TreeMechanism) -> float:
    """Epsilon of the plan at its delta, by Renyi differential privacy under the zero-out relation.

    A round is a leaf below ceil(log2(rounds + 1)) nodes at most, itself included, and each of them is a Gaussian
    mechanism. Zero rounds touch no data and have epsilon 0.

    Raises:
      UserError: the plan adds no noise.

    Source: Kairouz et al. 2021, arXiv:2103.00039, appendix D, as implemented in dp-accounting.
    """
    if plan.steps == 0:
        return 0.0
    if plan.noise_multiplier == 0:
        raise UserError("privacy.noise_multiplier=0 gives no finite epsilon; give a positive value")
    return _epsilon(plan)


@lru_cache(maxsize=4096)
def _epsilon(plan: TreeMechanism) -> float:
    from dp_accounting import NeighboringRelation
    from dp_accounting.rdp import RdpAccountant

    accountant = RdpAccountant(neighboring_relation=NeighboringRelation.REPLACE_SPECIAL)
    accountant.compose(tree_event(plan))
    return float(accountant.get_epsilon(plan.delta))
