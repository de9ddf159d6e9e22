"""Separates what an engine did on a probe into participation, contributions and noise."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipelines.auditing.probe import Floats, Moves, Probe, secret_seed
from pipelines.config.schema import Config

JOINED = 0.01
"""Least contribution without noise, in clip norms, that counts as participation."""
EMPTY_STEPS = 8
UNLIKELY = 6.0
"""Least distance of the count from the ends of its allowed range, in standard deviations of its noise. A step with a
nearer count is left out, because the limit may hide the noise. This depends on the sample alone, so it adds no bias."""


def fresh_seeds() -> Iterator[int]:
    """Yields secret seeds."""
    while True:
        yield secret_seed()


@dataclass(frozen=True)
class Observation:
    """Three runs of the engine on one probe.

    Attributes:
      with_units: every unit is present.
      without_units: the same seed, with all inputs on a spare feature.
      alone: a single unit with its input on the spare feature, so that most samples are empty.
    """

    probe: Probe
    with_units: Moves
    without_units: Moves
    alone: Moves

    @classmethod
    def of(cls, config: Config, probe: Probe, threads: int) -> "Observation":
        """Runs the engine; only this function knows the seed."""
        seed, units = secret_seed(), probe.plan.population
        with_units = probe.run(config, threads, units=units, without_units=False, seed=seed)
        without_units = probe.run(config, threads, units=units, without_units=True, seed=seed)
        alone = probe.lasting(EMPTY_STEPS).run(config, threads, units=1, without_units=True, seed=secret_seed())
        return cls(probe, with_units, without_units, alone)

    @cached_property
    def shifts(self) -> Floats:
        """Contribution of each row's unit along its direction, without noise, (steps, rows)."""
        return self.with_units.parallel - self.without_units.parallel

    @cached_property
    def contributions(self) -> Floats:
        """Length of the contribution of each row's unit, (steps, rows), in the plan's clip norms."""
        return np.hypot(self.shifts, (self.with_units.orthogonal - self.without_units.orthogonal)[:, : self.probe.rows])

    @cached_property
    def joined(self) -> NDArray[np.bool_]:
        """Whether each row's unit took part, (steps, rows)."""
        return self.contributions > JOINED

    @cached_property
    def cut(self) -> NDArray[np.bool_]:
        """Whether each row's unit took part with a contribution that was clipped, (steps, rows)."""
        return self.joined & self.probe.large

    @cached_property
    def levels(self) -> Floats:
        """Each step's clip norm, in units of the plan's: 1, or measured on clipped units; NaN if there are none."""
        if self.probe.adaptive is None:
            return np.ones(len(self.shifts))
        with np.errstate(invalid="ignore"):
            return np.asarray((self.contributions * self.cut).sum(axis=1) / self.cut.sum(axis=1))

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Steps whose clip norm is known, (steps,)."""
        return np.isfinite(self.levels)

    @cached_property
    def noise(self) -> Floats:
        """All noise of the run with units, (known steps, 2 rows + 2), in clip norms of the step.

        The noise of a tree is turned into independent draws of a node's size.
        """
        raw = np.concatenate([self.with_units.parallel - self.shifts * self.joined, self.with_units.orthogonal], axis=1)
        return self.probe.plan.whitened((raw / self.levels[:, None])[self.known])

    @cached_property
    def noise_alone(self) -> Floats:
        """The noise of the run with mostly empty samples, (steps, rows + 2)."""
        return self.probe.plan.whitened(self.alone.orthogonal)

    @cached_property
    def arms(self) -> tuple[Floats, Floats]:
        """What an adversary sees on rows whose unit joined and was clipped, and on rows whose unit did not join."""
        noise = self.noise[:, : self.probe.rows]
        shown = (self.shifts / self.levels[:, None])[self.known] + noise
        return shown[self.cut[self.known]], noise[~self.joined[self.known]]

    @cached_property
    def sizes(self) -> Floats:
        """Lengths of all contributions, in clip norms of their step; below 1 for small units."""
        return np.asarray((self.contributions / self.levels[:, None])[self.joined & self.known[:, None]])

    @cached_property
    def count_noise(self) -> Floats:
        """Noise on the count that moved the clip norm, (some steps,), in units; empty without adaptive clipping.

        An unclipped unit counts 1/2 and a clipped one -1/2, so each unit moves the count by 1/2.
        """
        adaptive, expected_batch_size = self.probe.adaptive, self.probe.plan.expected_batch_size
        if adaptive is None:
            return np.zeros(0)
        share = adaptive.target_quantile - np.diff(np.log(self.levels)) / adaptive.learning_rate
        count = (self.joined.sum(axis=1) / 2 - self.cut.sum(axis=1))[:-1]
        shows = np.abs(count) <= expected_batch_size / 2 - UNLIKELY * adaptive.count_stddev
        return np.asarray(((share - 0.5) * expected_batch_size - count)[shows & np.isfinite(share)])
