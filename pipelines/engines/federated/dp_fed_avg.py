"""Federated averaging under user-level differential privacy."""

from typing import Any

from pipelines.config.pipeline_settings import DpFedAvgConfig
from pipelines.core.errors import DivergedError, UserError
from pipelines.core.randomness import private_streams
from pipelines.engines.federated.learning_process import Server
from pipelines.engines.federated.rounds import Cohort, engine_facts, run_rounds
from pipelines.engines.federated.runtime import ensure_worker
from pipelines.engines.federated.tff_noise import Noise
from pipelines.engines.interface import Fit, OnRound, TrainingData, require_partition
from pipelines.privacy.mechanisms.base import Mechanism, PrivacyUnit


class DpFedAvg:
    """Differentially private federated averaging in TFF; a `Pipeline`.

    Every round, each user joins independently with the plan's sampling probability. TFF's Gaussian mechanism clips
    each user's delta, sums, adds noise and divides by the plan's constant expected batch size. With noise on trees
    (DP-FTRL) users take turns, each at most one a tree, and the noise is that of TFF's tree aggregation. An empty
    cohort is a round like any other: it adds noise and counts. Nothing else leaves the clients: no training metrics,
    no counts.

    The plan drives: rounds, cohorts, clip norm and noise are the plan's, and `rounds` and `clients_per_round` of the
    settings are not read.

    Source: McMahan et al. 2018, arXiv:1710.06963, algorithm 1; adaptive clipping of Andrew et al. 2021,
    arXiv:1905.03871; trees of Kairouz et al. 2021, arXiv:2103.00039, algorithm 1.
    """

    def __init__(
        self,
        settings: DpFedAvgConfig,
        plan: Mechanism,
        *,
        noise_seed: int | None,
        threads: int | None,
        private_worker: bool = False,
    ) -> None:
        """Holds settings and plan, not data.

        Args:
          settings: local and server optimization.
          plan: the mechanism, at user level.
          noise_seed: determines cohorts, the order of examples and the noise, so that equal seeds give equal weights
            up to the order that TFF sums clients in; None draws them from the operating system's entropy.
          threads: size of the engine's thread pools; None takes the CPUs this process may use.
          private_worker: whether to refuse a worker that others can reach.

        Raises:
          ValueError: a plan for another unit.
          UserError: the plan has no steps.
        """
        if plan.unit != PrivacyUnit.USER:
            raise ValueError(f"a plan whose unit is {plan.unit} does not fit dp_fed_avg")
        if plan.steps < 1:
            raise UserError(f"mechanism plan: steps={plan.steps}; training needs at least one")
        self._settings = settings
        self._plan = plan
        self._noise_seed = noise_seed
        self._threads = threads
        self._private_worker = private_worker

    def fit(self, data: TrainingData, on_round: OnRound) -> Fit:
        """Trains, and calls `on_round` after every round.

        Raises:
          UserError: there is no partition, or others can reach the worker although `private_worker` is set.
          DivergedError: the noised update or a weight is not finite; both are already public under the guarantee.
        """
        settings, plan, partition = self._settings, self._plan, require_partition(data)
        stream, order, noise = private_streams(self._noise_seed, "cohorts", "batch_order", "noise")
        users = len(partition)
        cohorts, seen = plan.sampler(users, stream), plan.participation(users)
        worker = ensure_worker(self._threads, private=self._private_worker)
        server = Server(
            settings,
            data,
            noise_of(plan, secure=settings.secure_aggregation),
            order=order,
            noise=noise,
            cohort_size=plan.cohort_size(users),
        )
        record = run_rounds(
            server,
            ema_decay=settings.ema_decay,
            spec=data.spec,
            steps=plan.steps,
            draw_cohort=cohorts.draw,
            count_examples=lambda cohort: plan.expected_batch_size,  # users: how many examples they hold is private
            check=_require_finite_update,
            on_round=on_round,
            plan=plan,
            sampler=seen,
            exposure=worker.exposure,
        )
        facts = engine_facts(settings, worker)
        if plan.adaptive is not None:
            # The norm follows noised counts only, so it is as public as the weights.
            facts["final_clip_norm"] = f"{server.metrics['aggregator']['dp_query_metrics']['clip']:.6g}"
        return Fit(record=record, executed=plan.executed(record.step), facts=facts, sampler=seen.verdict())


def noise_of(plan: Mechanism, *, secure: bool = False) -> Noise:
    """Returns the part of the plan that the aggregation is built from.

    Args:
      plan: the mechanism.
      secure: whether users' clipped deltas are summed as in secure aggregation.
    """
    return Noise(
        noise_multiplier=plan.noise_multiplier,
        clip_norm=plan.clip_norm,
        expected_batch_size=plan.expected_batch_size,
        adaptive=plan.adaptive,
        restart_every=plan.restart_every,
        coefficients=plan.coefficients,
        secure=secure,
    )


def _require_finite_update(step: int, cohort: Cohort, metrics: dict[str, Any]) -> None:
    """Checks the noised update alone: a client's delta must not end a private run."""
    del cohort
    if int(metrics["finalizer"]["update_non_finite"]):
        raise DivergedError(step, "the noised update")
