"""Tree aggregation without sampling (DP-FTRL): users take turns, and the nodes of a tree over rounds get noise."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, sqrt
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.privacy.accounting.epsilon import rdp_epsilon
from pipelines.privacy.accounting.gaussian_pair import gaussian_pair_epsilon
from pipelines.privacy.mechanisms.base import (
    AdaptiveClipping,
    Composition,
    Floats,
    NeighboringRelation,
    PrivacyUnit,
    ProblemSize,
    require_delta,
    require_noise,
    require_planned,
    require_sizes,
    resized_delta,
)
from pipelines.privacy.mechanisms.tree_nodes import leaf_distance, whitened
from pipelines.privacy.participation import TurnRecord, TurnSampler, turn_faults
from pipelines.privacy.rounding import rounded_down

WORTHWHILE = 8
"""Rounds of the trees that a remedy proposes: a path to the root has 4 nodes, well below 8."""


@dataclass(frozen=True, kw_only=True)
class TreeMechanism:
    """Tree aggregation with restarts, in which each user joins each tree at most once; a `Mechanism`.

    In each round, `clients_per_round` users take their turn. The order does not depend on their data. Their
    contributions are clipped to `clip_norm` in L2 and summed. A binary tree has the sums of `restart_every` rounds as
    its leaves. Each node gets N(0, (noise_multiplier * clip_norm)^2) per coordinate. What a round releases follows from
    noised nodes, divided by the public constant `expected_batch_size`. Then a new tree begins. A round with fewer
    users, or none, adds noise and counts like any other. Nothing else is assumed about who joins when.

    Attributes:
      unit: who is protected: a user.
      relation: a user's contributions are replaced by zeros; the user's turns stay.
      population: public number of users; never derived from the users that are really in the data.
      clients_per_round: users of a full round.
      steps: rounds, >= 0; 0 only in an executed plan.
      restart_every: rounds of a full tree; the last one may be cut short.
      noise_multiplier: sigma of each node, >= 0. Zero means no noise: such a plan has no finite epsilon.
      clip_norm: > 0.
      delta: in (0, 1/population).

    Raises:
      UserError: a value is out of range, or a tree has more turns than users.

    Source: Kairouz et al. 2021, arXiv:2103.00039, algorithm 1 and appendix D; definition 1.1 for the relation.
    """

    name: ClassVar[str] = "tree"
    SCHEDULE: ClassVar[Mapping[str, str]] = {"clients_per_round": "a whole number", "restart_every": "a whole number"}
    label: ClassVar[str] = "tree"
    adaptive: ClassVar[AdaptiveClipping | None] = None
    composition: ClassVar[Composition | None] = None
    coefficients: ClassVar[tuple[float, ...]] = (1.0,)

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
        require_sizes(self.noise_multiplier, self.clip_norm)
        require_delta(self.delta, self.population, self.unit)

    @property
    def expected_batch_size(self) -> float:
        """The public constant by which sums are divided: the users of a full round."""
        return float(self.clients_per_round)

    @property
    def update_noise_multiplier(self) -> float:
        """Noise multiplier of a node."""
        return self.noise_multiplier

    @property
    def effective_noise_multiplier(self) -> float:
        """Noise multiplier of a node."""
        return self.noise_multiplier

    @property
    def trees(self) -> tuple[int, ...]:
        """Rounds of each tree, in order; the last one may be short."""
        full, rest = divmod(self.steps, self.restart_every)
        return (self.restart_every,) * full + ((rest,) if rest else ())

    def executed(self, steps: int) -> "TreeMechanism":
        """Returns this plan with the rounds that really ran."""
        require_planned(steps, self.steps)
        return replace(self, steps=steps)

    def with_noise(self, sigma: float) -> "TreeMechanism":
        """Returns this plan with another noise multiplier of each node."""
        return replace(self, noise_multiplier=sigma)

    def with_update_noise(self, sigma: float, adaptive: AdaptiveClipping | None = None) -> "TreeMechanism":
        """Returns this plan with another noise multiplier of each node."""
        return replace(self, noise_multiplier=sigma)

    def dp_event(self) -> Any:
        """The composition of its trees, because a user joins each of them once."""
        from dp_accounting import dp_event as events

        trees = self.trees
        return events.ComposedDpEvent(
            [
                events.SelfComposedDpEvent(
                    events.SingleEpochTreeAggregationDpEvent(self.noise_multiplier, length), trees.count(length)
                )
                for length in sorted(set(trees))
            ]
        )

    def epsilon(self) -> float:
        """Epsilon by Renyi differential privacy under the zero-out relation; no other accountant knows the mechanism.

        A round is a leaf. Its path to the root has at most ceil(log2(rounds + 1)) nodes, the leaf included. Each node
        is a Gaussian mechanism.

        Source: Kairouz et al. 2021, arXiv:2103.00039, appendix D, as implemented in dp-accounting.
        """
        if self.steps == 0:
            return 0.0
        require_noise(self.noise_multiplier)
        return _epsilon(self)

    def quick_epsilon(self) -> float:
        """The same epsilon, which is fast to compute."""
        return self.epsilon()

    def lower_bound(self, mu: float) -> float:
        """Exact for an adversary who sees what the rounds release.

        The accountant assumes an adversary who sees every node, so its epsilon for the same noise is larger.
        """
        if mu <= 0:
            return 0.0
        distance = mu * sqrt(sum(leaf_distance(rounds) ** 2 for rounds in self.trees))
        return gaussian_pair_epsilon((0.0, 1.0), (distance, 1.0), self.delta)

    def cohort_size(self, units: int) -> float:
        """Users of a full round."""
        return float(self.clients_per_round)

    def sampler(self, units: int, rng: np.random.Generator) -> TurnSampler:
        """Turns in a random order, drawn again for each tree."""
        return TurnSampler(units, size=self.clients_per_round, restart_every=self.restart_every, rng=rng)

    def participation(self, units: int) -> TurnRecord:
        """A record that ends a run before a user joins a tree twice."""
        return TurnRecord(units, size=self.clients_per_round, restart_every=self.restart_every)

    def participation_faults(self, joined: NDArray[np.bool_], level: float) -> list[str]:
        """Users that joined a tree more than once, and cohorts of another size."""
        return turn_faults(joined, trees=self.executed(len(joined)).trees, size=self.clients_per_round, unit=self.unit)

    def whitened(self, noise: Floats) -> Floats:
        """Turns the noise of the rounds into as many independent draws with the noise multiplier of a node."""
        return whitened(noise, self.executed(len(noise)).trees)

    def resized(self, size: ProblemSize) -> "TreeMechanism":
        """Chooses trees and cohorts that are no larger than the problem."""
        rounds = min(self.restart_every, size.longest)
        cohort = min(self.clients_per_round, size.most_units // rounds, size.sample)
        units = max(size.least_units, rounds * cohort)
        return replace(
            self,
            population=units,
            clients_per_round=cohort,
            restart_every=rounds,
            steps=min(max(size.least_steps, ceil(size.observations / cohort)), size.most_steps),
            delta=resized_delta(self.delta, units),
        )

    def among(self, units: int, steps: int, *, join: float, longest: int) -> "TreeMechanism":
        """Trees of at most `longest` rounds, with turns for a share of at most `join` of the users."""
        rounds = min(self.restart_every, longest)
        return replace(
            self,
            population=units,
            clients_per_round=max(1, min(self.clients_per_round, int(units * join) // rounds)),
            restart_every=min(rounds, units),
            steps=steps,
            delta=resized_delta(self.delta, units),
        )

    @property
    def law(self) -> str:
        """No user joins a tree twice."""
        return f"no {self.unit} joins a tree twice"

    @property
    def schedule_in_words(self) -> str:
        """Users of a round, and rounds of a tree."""
        return f"{self.clients_per_round} users a round, trees of {self.restart_every} rounds"

    def how(self) -> str:
        """The paragraph on turns, clipping, noise of the trees and division."""
        count = len(self.trees)
        return (
            f"DP-FTRL: in each of the {self.steps:,} rounds that ran, up to {self.clients_per_round:,} {self.unit}s "
            f"took their turn. The order does not depend on their data. The rounds form {count:,} "
            f"tree{'s' * (count != 1)} of up to {self.restart_every:,}, and {self.law}. Nothing else is assumed about "
            f"participation; there is no sampling. Each contribution was clipped to L2 norm {self.clip_norm:g}. "
            f"Gaussian noise of {rounded_down(self.noise_multiplier, 6)} times the clip norm was added to every node "
            "of a binary tree over the sums of the rounds. The sums were divided by the public constant "
            f"{self.expected_batch_size:g}. The model follows from noised nodes alone. Rounds with fewer {self.unit}s, "
            "or none, also added noise, and the accounting includes them. Two neighbouring datasets differ by one "
            f"{self.unit} whose contributions are replaced by zeros (zero-out). The population of {self.population:,} "
            "is a public number."
        )

    def participation_assumption(self, *, judged: bool) -> str:
        """The assumption on turns; every round is checked before it trains, so `judged` changes nothing."""
        return (
            f"The order of turns: it does not depend on the data, and {self.law}. Every round is checked before it "
            "trains. A run that breaks this law fails (tag `privacy.sampler`)."
        )

    def require_worthwhile(self) -> None:
        """Refuses trees of one round, which lose the amplification by sampling and save no noise.

        Raises:
          UserError: trees of one round, and several rounds.
        """
        if self.restart_every == 1 < self.steps:
            raise UserError(
                f"{self._short_trees()}, which is plain noise in every round without amplification by sampling; "
                f"{self._longer_trees()}, or use privacy=fixed"
            )

    def remark(self) -> str | None:
        """Advice against short trees, which hardly save noise."""
        if self.restart_every == 2 < self.steps:
            return (
                f"{self._short_trees()}, which hardly saves noise over privacy=fixed without its amplification by "
                f"sampling; {self._longer_trees()}"
            )
        return None

    def _short_trees(self) -> str:
        rounds = "one round" if self.restart_every == 1 else "two rounds"
        return (
            f"privacy=tree with pipeline.clients_per_round={self.clients_per_round} of {self.population} users and "
            f"privacy.restart_every={self.restart_every} has trees of {rounds}"
        )

    def _longer_trees(self) -> str:
        """Names a schedule with longer trees."""
        longest = self.population // self.clients_per_round
        if longest > 2:
            return f"raise privacy.restart_every, up to {longest}"
        few = max(1, self.population // WORTHWHILE)
        return (
            f"lower pipeline.clients_per_round ({few} gives trees of {self.population // few} rounds) or take more "
            "users (partition.clients)"
        )

    def schedule(self) -> dict[str, Any]:
        """The turns: users of a round, and rounds of a tree."""
        return {
            "mechanism": self.name,
            "sampler": "none: each user at most once a tree",
            "clients_per_round": self.clients_per_round,
            "restart_every": self.restart_every,
        }

    @classmethod
    def from_schedule(cls, values: Mapping[str, Any], common: Mapping[str, Any]) -> "TreeMechanism":
        """Reads what `schedule` wrote."""
        return cls(**common, clients_per_round=values["clients_per_round"], restart_every=values["restart_every"])

    @classmethod
    def logged_schedule(cls, sample: float, population: float, params: Mapping[str, str]) -> dict[str, float]:
        """Users of a round."""
        return {"clients_per_round": sample}


@lru_cache(maxsize=4096)
def _epsilon(mechanism: TreeMechanism) -> float:
    return rdp_epsilon(mechanism)
