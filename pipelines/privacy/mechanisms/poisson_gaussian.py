"""The Gaussian mechanism on Poisson samples in every step: DP-SGD, and DP federated averaging."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import ceil, log
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.privacy.accounting.epsilon import composition_event, pld_epsilon, quick_pld_epsilon
from pipelines.privacy.mechanisms.base import (
    AdaptiveClipping,
    Composition,
    Floats,
    NeighboringRelation,
    PrivacyUnit,
    ProblemSize,
    epsilon_at_noise,
    require_delta,
    require_planned,
    require_poisson,
    require_resolved_delta,
    require_sizes,
    resized_delta,
)
from pipelines.privacy.rounding import rounded_down
from pipelines.privacy.sampling import PoissonSampler, SamplerRecord, sampling_faults


@dataclass(frozen=True, kw_only=True)
class PoissonGaussianMechanism:
    """A Poisson-subsampled Gaussian mechanism, composed over steps; a `Mechanism`.

    Each step includes each of `population` units independently with probability `sampling_probability`, clips each
    unit's contribution to `clip_norm` in L2, sums, adds N(0, (noise_multiplier * clip_norm)^2) per coordinate and
    divides by the public constant `expected_batch_size`. A step with an empty sample still adds noise and counts.

    Attributes:
      unit: who is protected.
      relation: add or remove one unit.
      population: public number of units; never derived from the units that are really in the data.
      sampling_probability: q, in (0, 1].
      steps: >= 0; 0 only in an executed plan.
      noise_multiplier: sigma, >= 0, of the whole step; under adaptive clipping the effective one, shared between the
        update and the count. Zero means no noise: such a plan has no finite epsilon and is for tests of parity.
      clip_norm: > 0; the initial one under adaptive clipping.
      delta: in (0, 1/population).
      adaptive: None if the clip norm is fixed.

    Raises:
      UserError: a value out of range.

    Source: Abadi et al. 2016, arXiv:1607.00133, algorithm 1; McMahan et al. 2018, arXiv:1710.06963, algorithm 1.
    """

    name: ClassVar[str] = "gaussian"
    SCHEDULE: ClassVar[Mapping[str, str]] = {"sampling_probability": "a finite number"}
    restart_every: ClassVar[int | None] = None
    coefficients: ClassVar[tuple[float, ...]] = (1.0,)

    unit: PrivacyUnit
    population: int
    sampling_probability: float
    steps: int
    noise_multiplier: float
    clip_norm: float
    delta: float
    relation: NeighboringRelation = NeighboringRelation.ADD_OR_REMOVE_ONE
    adaptive: AdaptiveClipping | None = None

    def __post_init__(self) -> None:
        require_poisson(
            self.relation, self.population, self.steps, self.sampling_probability,
            remedy="pipeline.batch_size or pipeline.clients_per_round",
        )  # fmt: skip
        require_sizes(self.noise_multiplier, self.clip_norm)
        require_delta(self.delta, self.population, self.unit)
        require_resolved_delta(self.delta, self.steps)
        if self.adaptive is not None and self.noise_multiplier >= max(2 * self.adaptive.count_stddev, 1e-12):
            raise UserError(
                f"privacy.count_stddev={self.adaptive.count_stddev:g} must exceed half of the noise multiplier "
                f"{self.noise_multiplier:g}; raise it, pipeline.batch_size or pipeline.clients_per_round"
            )

    @property
    def label(self) -> str:
        """Only a clip norm that moves is named."""
        return "" if self.adaptive is None else "adaptive"

    @property
    def expected_batch_size(self) -> float:
        """The public constant by which sums are divided: the expected number of sampled units."""
        return self.population * self.sampling_probability

    @property
    def update_noise_multiplier(self) -> float:
        """Noise multiplier on the update alone: z_u with z_u^-2 + (2 count_stddev)^-2 = noise_multiplier^-2."""
        if self.adaptive is None or self.noise_multiplier == 0:
            return self.noise_multiplier
        return float((self.noise_multiplier**-2 - (2 * self.adaptive.count_stddev) ** -2) ** -0.5)

    @property
    def effective_noise_multiplier(self) -> float:
        """Noise multiplier of one step as a single Gaussian mechanism on one unit.

        Under adaptive clipping a step releases two Gaussians, the update (z_u) and the count of unclipped units, whose
        sensitivity is 1/2 (z_c = 2 count_stddev). Releasing both is one Gaussian with (z_u^-2 + z_c^-2)^-1/2.

        Source: Andrew et al. 2021, arXiv:1905.03871, theorem 1.
        """
        if self.adaptive is None or self.noise_multiplier == 0:
            return self.noise_multiplier
        parts = (self.update_noise_multiplier, 2 * self.adaptive.count_stddev)
        return float(sum(part**-2 for part in parts) ** -0.5)

    @property
    def composition(self) -> Composition:
        """The steps, each a Poisson-subsampled Gaussian mechanism."""
        return Composition(
            noise_multiplier=self.effective_noise_multiplier,
            sampling_probability=self.sampling_probability,
            steps=self.steps,
        )

    def executed(self, steps: int) -> "PoissonGaussianMechanism":
        """Returns this plan with the steps that really ran."""
        require_planned(steps, self.steps)
        return replace(self, steps=steps)

    def with_noise(self, sigma: float) -> "PoissonGaussianMechanism":
        """Returns this plan with another noise multiplier of the whole step."""
        return replace(self, noise_multiplier=sigma)

    def with_update_noise(self, sigma: float, adaptive: AdaptiveClipping | None = None) -> "PoissonGaussianMechanism":
        """Returns this plan with a noise multiplier of the step for which updates have `sigma`."""
        if self.adaptive is None:
            return replace(self, noise_multiplier=sigma)
        adaptive = adaptive or self.adaptive
        total = float((sigma**-2 + (2 * adaptive.count_stddev) ** -2) ** -0.5)
        return replace(self, noise_multiplier=total, adaptive=adaptive)

    def dp_event(self) -> Any:
        """A self-composed Poisson-sampled Gaussian."""
        return composition_event(self.composition)

    def epsilon(self) -> float:
        """Epsilon by privacy loss distributions."""
        return pld_epsilon(self.composition, self.delta) if self.steps else 0.0

    def quick_epsilon(self) -> float:
        """Epsilon by privacy loss distributions as arrays."""
        return quick_pld_epsilon(self.composition, self.delta) if self.steps else 0.0

    def lower_bound(self, mu: float) -> float:
        """The bound from updates alone, although adaptive clipping also releases counts."""
        return 0.0 if mu <= 0 else epsilon_at_noise(self, 1 / mu)

    def cohort_size(self, units: int) -> float:
        """Expected number of units that join a step."""
        return self.sampling_probability * units

    def sampler(self, units: int, rng: np.random.Generator) -> PoissonSampler:
        """Draws a Poisson sample in each step."""
        return PoissonSampler(units, self.sampling_probability, rng)

    def participation(self, units: int) -> SamplerRecord:
        """A record that tests samples against Poisson sampling."""
        return SamplerRecord(units, self.sampling_probability)

    def participation_faults(self, joined: NDArray[np.bool_], level: float) -> list[str]:
        """Differences between samples and Poisson samples of the plan's probability."""
        return sampling_faults(joined, self.sampling_probability, level)

    def whitened(self, noise: Floats) -> Floats:
        """Returns the noise as it is, because the steps are independent."""
        return noise

    def resized(self, size: ProblemSize) -> "PoissonGaussianMechanism":
        """Chooses units so that samples are not tiny, and steps so that enough units join."""
        q = self.sampling_probability
        units = min(max(size.least_units, ceil(size.sample / q)), size.most_units)
        least_steps = size.least_steps
        if q < 1:  # so many steps that a unit in every sample is a fault
            least_steps = max(least_steps, ceil(log(size.rare / units) / log(q)))
        steps = min(max(least_steps, ceil(size.observations / (units * q))), size.most_steps)
        return replace(self, population=units, steps=steps, delta=resized_delta(self.delta, units))

    def among(self, units: int, steps: int, *, join: float, longest: int) -> "PoissonGaussianMechanism":
        """Each unit joins with the plan's probability, or with `join` if that is larger."""
        return replace(
            self,
            population=units,
            sampling_probability=max(self.sampling_probability, join),
            steps=steps,
            delta=resized_delta(self.delta, units),
        )

    @property
    def law(self) -> str:
        """Poisson sampling."""
        return f"each {self.unit} joins each step independently of everything else"

    @property
    def schedule_in_words(self) -> str:
        """The sampling probability."""
        return f"sampling probability {self.sampling_probability:.6g}"

    def how(self) -> str:
        """The paragraph on sampling, clipping, noise and division."""
        clip = f"clipped to L2 norm {self.clip_norm:g}"
        if self.adaptive is not None:
            clip = (
                f"clipped to an L2 norm that starts at {self.clip_norm:g} and follows the private "
                f"{self.adaptive.target_quantile:g} quantile of the norms. The noise multiplier also covers the noised "
                f"count that this quantile needs (standard deviation {self.adaptive.count_stddev:g})"
            )
        return (
            f"In each of the {self.steps:,} steps that ran, every {self.unit} joined independently with probability "
            f"{self.sampling_probability:.6g} (Poisson sampling). Each contribution was {clip}. Gaussian noise of "
            f"{rounded_down(self.update_noise_multiplier, 6)} times the clip norm was added to the sum. The noised sum "
            f"was divided by the public constant {self.expected_batch_size:g}. Steps with an empty sample also added "
            "noise, and the accounting includes them. Two neighbouring datasets differ by adding or removing one "
            f"{self.unit}. The population of {self.population:,} is a public number."
        )

    def participation_assumption(self, *, judged: bool) -> str:
        """The assumption on the sampler, and how it was checked."""
        if judged:
            return (
                f"The sampler: {self.law}. The samples used in training are tested against this law. A run that "
                "contradicts it fails (tag `privacy.sampler`)."
            )
        return f"The sampler: {self.law}. This was not checked, because the run did not end."

    def remark(self) -> str | None:
        """No advice."""
        return None

    def schedule(self) -> dict[str, Any]:
        """Poisson sampling with its probability, and adaptive clipping."""
        return {
            "mechanism": self.name,
            "sampler": "poisson",
            "sampling_probability": self.sampling_probability,
            "adaptive_clipping": None if self.adaptive is None else asdict(self.adaptive),
        }

    @classmethod
    def from_schedule(cls, values: Mapping[str, Any], common: Mapping[str, Any]) -> "PoissonGaussianMechanism":
        """Reads what `schedule` wrote."""
        adaptive = values["adaptive_clipping"]
        return cls(
            **common,
            sampling_probability=values["sampling_probability"],
            adaptive=None if adaptive is None else AdaptiveClipping(**adaptive),
        )

    @classmethod
    def logged_schedule(cls, sample: float, population: float, params: Mapping[str, str]) -> dict[str, float]:
        """The sampling probability."""
        return {"sampling_probability": sample / population}
