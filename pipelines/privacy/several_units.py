"""What a guarantee for one unit says of several, of copies of one, and of units that were invented: in words."""

from pipelines.privacy.accounting.group import group_epsilon
from pipelines.privacy.mechanisms.base import Mechanism, PrivacyUnit
from pipelines.privacy.rounding import rounded_up

GROUPS = (2, 5)


def groups(plan: Mechanism, copies: int | None = None) -> str:
    """The statement's section on several units at once.

    Args:
      plan: what ran.
      copies: how many training examples are equal to each other, in the largest such group; None keeps it secret.
    """
    sizes = sorted({*GROUPS, *([copies] if copies is not None and copies > 1 else [])})
    rows = "\n".join(f"| {members:,} | {_or_nothing(group_epsilon(plan, members))} |" for members in sizes)
    return (
        f"## Several {plan.unit}s at once\n\n"
        f"A conversion, not what this run was planned for: what its guarantee for one {plan.unit} says of several that "
        f"belong together, at the same delta {rounded_up(plan.delta, 6)} (Vadhan 2017, lemma 2.2, along the privacy "
        "curve).\n\n"
        f"| {plan.unit}s | epsilon at most |\n|---|---|\n{rows}" + _copies(plan, copies)
    )


def _copies(plan: Mechanism, copies: int | None) -> str:
    """What equal rows mean where examples are protected."""
    if plan.unit is not PrivacyUnit.EXAMPLE:
        return ""
    told = (
        "How often they are here is not told, since it follows from private data (`privacy.release_copies=true` tells "
        "it)."
        if copies is None
        else f"The most frequent training example is here {copies:,} time{'s' * (copies != 1)}: a count without noise, "
        "released by `privacy.release_copies=true`, which no epsilon covers."
    )
    return (
        "\n\nEqual rows count as so many examples: the guarantee for one example is about one copy, and whoever is "
        f"behind k copies has the row of k. {told}"
    )


def _or_nothing(epsilon: float | None) -> str:
    return "no bound" if epsilon is None else rounded_up(epsilon)


def simulated_users(scheme: str, clients: int, *, own: bool) -> str:
    """One sentence on users that a partition invents.

    Args:
      scheme: of the partition.
      clients: how many there are.
      own: whether the data names users of its own.
    """
    although = ", although the data names users of its own (`client_ids`)" if own else ""
    return (
        f"`partition={scheme}` dealt the examples to {clients:,} invented users{although}. The epsilon is about these "
        "and says nothing of the people behind the data."
    )
