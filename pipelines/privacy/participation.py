"""Participation under tree aggregation: users take turns, and there is no sampling."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import GuaranteeError
from pipelines.privacy.sampling import SamplerVerdict


class TurnSampler:
    """Gives each user at most one turn per tree: the cohorts of a tree are parts of one permutation of the users."""

    def __init__(self, units: int, *, size: int, restart_every: int, rng: np.random.Generator) -> None:
        """Starts before the first round.

        Args:
          units: number of users present; if a tree has more turns than that, its last cohorts have fewer users.
          size: users of a full cohort, >= 1.
          restart_every: rounds of a tree, >= 1.
          rng: the run's private stream.
        """
        self._units = units
        self._size = size
        self._restart_every = restart_every
        self._rng = rng
        self._round = 0
        self._order = np.zeros(0, np.int64)

    def draw(self) -> NDArray[np.int64]:
        """Returns the next round's cohort: sorted indices, int64, of length 0 to `size`."""
        place = self._round % self._restart_every * self._size
        if place == 0:
            self._order = self._rng.permutation(self._units)
        self._round += 1
        return np.sort(self._order[place : place + self._size])


class TurnRecord:
    """Checks the cohorts that a run trains on, independently of the sampler: no user may join a tree twice.

    It holds which users have joined. No epsilon covers that, so none of it is logged.
    """

    def __init__(self, units: int, *, size: int, restart_every: int) -> None:
        """Starts before the first round.

        Args:
          units: number of users present.
          size: users of a full cohort.
          restart_every: rounds of a tree.
        """
        self._joined = np.zeros(units, np.int64)
        self.latest = np.zeros(units, np.bool_)
        self._size = size
        self._restart_every = restart_every
        self._round = 0

    def observe(self, cohort: NDArray[np.int64]) -> None:
        """Adds a cohort before it trains.

        Raises:
          GuaranteeError: the cohort breaks the assumption of the epsilon.
        """
        if self._round % self._restart_every == 0:
            self._joined[:] = 0
        self._round += 1
        np.add.at(self._joined, cohort, 1)
        self.latest = np.isin(np.arange(len(self._joined)), cohort)
        if len(cohort) > self._size or self._joined.max(initial=0) > 1:
            raise GuaranteeError(
                f"round {self._round} contradicts its plan: a tree of {self._restart_every} rounds has each user at "
                f"most once, in cohorts of at most {self._size}. The epsilon would be false, so the run ends before "
                "this round; report this bug"
            )

    def verdict(self) -> SamplerVerdict:
        """Always holds, because `observe` refuses a cohort that breaks the plan."""
        return SamplerVerdict(p_value=1.0, test="each user at most once a tree", law="turns")


def turn_faults(joined: NDArray[np.bool_], *, trees: Sequence[int], size: int, unit: str) -> list[str]:
    """Differences between observed turns and a schedule.

    Args:
      joined: whether each unit joined, (rounds, units).
      trees: rounds of each tree, in order.
      size: users of a full cohort; every cohort must be full.
      unit: word for one unit.
    """
    found, cohorts = [], joined.sum(axis=1)
    if any(tree.sum(axis=0).max() > 1 for tree in np.split(joined, np.cumsum(trees)[:-1])):
        found.append(f"a {unit} joins a tree more than once")
    if (cohorts != size).any():
        found.append(f"rounds have {cohorts.min()} to {cohorts.max()} {unit}s, not {size}")
    return found
