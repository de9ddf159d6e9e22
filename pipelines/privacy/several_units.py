"""In words: what a guarantee for one unit says about groups, about copies of a unit, and about simulated users."""

from pipelines.privacy.accounting.group import group_epsilon
from pipelines.privacy.mechanisms.base import Mechanism, PrivacyUnit
from pipelines.privacy.rounding import rounded_up

GROUPS = (2, 5)


def groups(plan: Mechanism, copies: int | None = None) -> str:
    """The section of the statement on groups of units.

    Args:
      plan: what ran.
      copies: size of the largest group of equal training examples; None keeps it secret.
    """
    sizes = sorted({*GROUPS, *([copies] if copies is not None and copies > 1 else [])})
    rows = "\n".join(f"| {members:,} | {_or_nothing(group_epsilon(plan, members))} |" for members in sizes)
    return (
        f"## Several {plan.unit}s at once\n\n"
        f"This run was planned to protect single {plan.unit}s. The table converts its guarantee to groups of "
        f"{plan.unit}s that belong together, at the same delta {rounded_up(plan.delta, 6)} (Vadhan 2017, lemma 2.2, "
        "with the (epsilon, delta) of one unit that gives the group this delta).\n\n"
        f"| {plan.unit}s | epsilon at most |\n|---|---|\n{rows}" + _copies(plan, copies)
    )


def _copies(plan: Mechanism, copies: int | None) -> str:
    """What equal rows mean if examples are protected."""
    if plan.unit is not PrivacyUnit.EXAMPLE:
        return ""
    told = (
        "The number of equal rows is not stated here, because it follows from private data "
        "(`privacy.release_copies=true` states it)."
        if copies is None
        else f"The most frequent training example occurs {copies:,} time{'s' * (copies != 1)}. This count is released "
        "by `privacy.release_copies=true`; it has no noise, and no epsilon covers it."
    )
    return (
        "\n\nEqual rows count as separate examples. The guarantee for one example is about one copy. A person behind "
        f"k copies is protected as a group of k examples. {told}"
    )


def _or_nothing(epsilon: float | None) -> str:
    return "no bound" if epsilon is None else rounded_up(epsilon)


def simulated_users(scheme: str, clients: int, *, own: bool) -> str:
    """Sentences on users that a partition simulates.

    Args:
      scheme: of the partition.
      clients: number of simulated users.
      own: whether the data names users of its own.
    """
    although = ", although the data names users of its own (`client_ids`)" if own else ""
    return (
        f"**Simulated users:** `partition={scheme}` divided the examples among {clients:,} simulated users{although}. "
        "The epsilon is about these users and says nothing about the people behind the data."
    )


OWN_USERS = "The users are those that the data names (`client_ids`)."
