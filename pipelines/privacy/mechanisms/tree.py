"""What a run of DP-FTRL does to its users: the plan of tree aggregation, which needs no sampling at all."""

from dataclasses import dataclass, replace

from pipelines.core.errors import UserError
from pipelines.privacy.mechanisms.poisson_gaussian import (
    NeighboringRelation,
    PoissonGaussianMechanism,
    PrivacyUnit,
    require_delta,
)


@dataclass(frozen=True, kw_only=True)
class TreeMechanism:
    """Tree aggregation with restarts, in which each user joins each tree at most once.

    Round after round, `clients_per_round` users take their turn, in an order that does not depend on what they hold.
    Their contributions are clipped to `clip_norm` in L2 and summed. A binary tree whose leaves are the sums of
    `restart_every` rounds gets N(0, (noise_multiplier * clip_norm)^2) per coordinate and node; what a round releases
    follows from noised nodes, divided by the public constant `expected_batch_size`. Then a new tree begins. A round
    with fewer users, or none, adds noise and counts as any other. Nothing is assumed of who joins when.

    Attributes:
      unit: who is protected: a user.
      relation: a user's contributions are replaced by zeros; their turns stay.
      population: public number of users; never derived from who really is in the data.
      clients_per_round: users of a full round.
      steps: rounds, >= 0; 0 only in an executed plan.
      restart_every: rounds of a full tree; the last one may be cut short.
      noise_multiplier: sigma of each node, >= 0. Zero means no noise: such a plan has no finite epsilon.
      clip_norm: > 0.
      delta: in (0, 1/population).

    Raises:
      UserError: a value out of range, or a tree with more turns than users.

    Source: Kairouz et al. 2021, arXiv:2103.00039, algorithm 1 and appendix D; definition 1.1 for the relation.
    """

    population: int
    clients_per_round: int
    steps: int
    restart_every: int
    noise_multiplier: float
    clip_norm: float
    delta: float
    unit: PrivacyUnit = PrivacyUnit.USER
    relation: NeighboringRelation = NeighboringRelation.REPLACE_SPECIAL

    def __post_init__(self) -> None:
        if self.unit is not PrivacyUnit.USER or self.relation is not NeighboringRelation.REPLACE_SPECIAL:
            raise UserError(f"tree plan: {self.unit} and {self.relation} must be {PrivacyUnit.USER} and zero_out_one")
        if min(self.population, self.clients_per_round, self.restart_every) < 1 or self.steps < 0:
            raise UserError(f"tree plan: {self} needs positive counts")
        if self.restart_every * self.clients_per_round > self.population:
            raise UserError(
                f"privacy.restart_every={self.restart_every} with pipeline.clients_per_round={self.clients_per_round} "
                f"gives a tree {self.restart_every * self.clients_per_round} turns, and each of the {self.population} "
                "users may join it once: lower pipeline.clients_per_round, or privacy.restart_every where it is above 1"
            )
        if self.noise_multiplier < 0 or self.clip_norm <= 0:
            raise UserError(
                f"tree plan: noise_multiplier={self.noise_multiplier:g} must be >= 0 and clip_norm="
                f"{self.clip_norm:g} > 0"
            )
        require_delta(self.delta, self.population, self.unit)

    @property
    def expected_batch_size(self) -> float:
        """The public constant that sums are divided by: the users of a full round."""
        return float(self.clients_per_round)

    @property
    def trees(self) -> tuple[int, ...]:
        """Rounds of each tree, in order; the last one may be short."""
        full, rest = divmod(self.steps, self.restart_every)
        return (self.restart_every,) * full + ((rest,) if rest else ())

    def executed(self, steps: int) -> "TreeMechanism":
        """Returns this plan with the rounds that really ran."""
        if not 0 <= steps <= self.steps:
            raise UserError(f"tree plan: {steps} executed steps do not fit the {self.steps} planned")
        return replace(self, steps=steps)


Mechanism = PoissonGaussianMechanism | TreeMechanism
