"""Bugs of the banded factorisation: how noise is correlated, and who joins on which turn."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from pipelines.engines.federated.engine import tf
from pipelines.engines.federated.tff_noise import KeyedBandedSum
from pipelines.privacy.mechanisms import banded, planning
from pipelines.privacy.mechanisms.banded import CyclicSampler
from pipelines.privacy.mechanisms.banded_noise import CorrelatedNoise
from pipelines.privacy.sampling import poisson_sample

Plant = Callable[[pytest.MonkeyPatch], None]


def noise_with(change: Callable[..., list[Any]]) -> Plant:
    """Replaces a step of PyTorch's noise by `change(self, right, draws)`."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = CorrelatedNoise.next
        patch.setattr(CorrelatedNoise, "next", lambda self, draws: change(self, real, draws))

    return plant


def _independent(self: CorrelatedNoise, right: Any, draws: Sequence[Any]) -> list[Any]:
    return list(draws)


def _forgetful(self: CorrelatedNoise, right: Any, draws: Sequence[Any]) -> list[Any]:
    self._past.clear()
    return right(self, draws)


def _half(self: CorrelatedNoise, right: Any, draws: Sequence[Any]) -> list[Any]:
    """As with coefficients of length 2."""
    return [values / 2 for values in right(self, draws)]


def _without_the_last_band(self: CorrelatedNoise, right: Any, draws: Sequence[Any]) -> list[Any]:
    last, self._others[-1] = self._others[-1], 0.0
    found = right(self, draws)
    self._others[-1] = last
    return found


def _overwritten(self: CorrelatedNoise, right: Any, draws: Sequence[Any]) -> list[Any]:
    """What is released is what is remembered, and the optimizer adds sums to it."""
    right(self, draws)
    return self._past[0]


def _backwards(self: CorrelatedNoise, right: Any, draws: Sequence[Any]) -> list[Any]:
    """The oldest noise in the place of the latest."""
    self._past.reverse()
    found = right(self, draws)
    self._past.rotate(-1)
    self._past.reverse()
    self._past.appendleft(self._past.pop())
    return found


independent, forgetful, long_columns, without_the_last_band, overwritten, backwards = map(
    noise_with, (_independent, _forgetful, _half, _without_the_last_band, _overwritten, _backwards)
)


def rounds_with(change: Callable[..., Any]) -> Plant:
    """Replaces a round of TensorFlow's noise by `change(self, right, sums, state)`."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        real = KeyedBandedSum.get_noised_result
        patch.setattr(KeyedBandedSum, "get_noised_result", lambda self, sums, state: change(self, real, sums, state))

    return plant


def _forgetful_rounds(self: KeyedBandedSum, right: Any, sums: Any, state: Any) -> Any:
    return right(self, sums, state._replace(past=tuple(tf.zeros_like(rows) for rows in state.past)))


def _independent_rounds(self: KeyedBandedSum, right: Any, sums: Any, state: Any) -> Any:
    coefficients = self._coefficients
    self._coefficients = np.eye(1, len(coefficients))[0]
    found = right(self, sums, state)
    self._coefficients = coefficients
    return found


def _rounds_without_the_last_band(self: KeyedBandedSum, right: Any, sums: Any, state: Any) -> Any:
    blank = tuple(tf.concat([rows[:-1], tf.zeros_like(rows[-1:])], axis=0) for rows in state.past)
    return right(self, sums, state._replace(past=blank))


forgetful_rounds, independent_rounds, rounds_without_the_last_band = map(
    rounds_with, (_forgetful_rounds, _independent_rounds, _rounds_without_the_last_band)
)


def unscaled_coefficients(patch: pytest.MonkeyPatch) -> None:
    """C starts with 1, as the square root does."""
    real = planning.optimal_coefficients

    def unscaled(bands: int, steps: int) -> tuple[float, ...]:
        found = real(bands, steps)
        return tuple(value / found[0] for value in found)

    patch.setattr(planning, "optimal_coefficients", unscaled)


def samples_with(draw: Callable[[CyclicSampler, int], Any]) -> Plant:
    """Replaces the samples by `draw(sampler, step)`, steps counted from 0."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        def drawn(self: CyclicSampler) -> Any:
            self._step += 1
            return draw(self, self._step - 1)

        patch.setattr(CyclicSampler, "draw", drawn)

    return plant


def _of(sampler: CyclicSampler, group: int) -> Any:
    members = sampler._members[group % len(sampler._members)]
    return members[poisson_sample(len(members), sampler._q, sampler._rng)]


def _of_everybody(sampler: CyclicSampler, step: int) -> Any:
    return poisson_sample(len(sampler.groups), sampler._q / len(sampler._members), sampler._rng)


def _shifted(sampler: CyclicSampler, step: int) -> Any:
    """Each cycle starts one group later than the one before."""
    return _of(sampler, step + step // len(sampler._members))


def _back_and_forth(sampler: CyclicSampler, step: int) -> Any:
    """Every second cycle runs backwards, so that a unit may join two steps in a row."""
    bands = len(sampler._members)
    return _of(sampler, step if step // bands % 2 == 0 else bands - 1 - step % bands)


def _in_two_groups(sampler: CyclicSampler, step: int) -> Any:
    both = [_of(sampler, step), _of(sampler, step + 1)[:1]]
    return np.unique(np.concatenate(both))


def _of_one_size(sampler: CyclicSampler, step: int) -> Any:
    members = sampler._members[step % len(sampler._members)]
    return np.sort(sampler._rng.permutation(members)[: round(len(members) * sampler._q)])


groups_ignored, shifted_turns, back_and_forth, in_two_groups, samples_of_one_size = map(
    samples_with, (_of_everybody, _shifted, _back_and_forth, _in_two_groups, _of_one_size)
)


def twice_the_probability(patch: pytest.MonkeyPatch) -> None:
    """The plan forgets a factor in how large groups are; the sampler does not."""
    patch.setattr(banded, "poisson_sample", lambda units, q, rng: poisson_sample(units, min(1.0, 2 * q), rng))
