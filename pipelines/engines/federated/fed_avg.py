"""Federated averaging: clients train locally, and the server averages their changes."""

from functools import partial
from typing import Any

from pipelines.config.pipeline_settings import FedAvgConfig
from pipelines.core.errors import DivergedError, UserError
from pipelines.core.randomness import public_stream
from pipelines.data.partition.division import Partition
from pipelines.engines.federated.learning_process import Server
from pipelines.engines.federated.rounds import Cohort, engine_facts, run_rounds, uniform_cohort
from pipelines.engines.federated.runtime import ensure_worker
from pipelines.engines.federated.secure import SumBounds
from pipelines.engines.interface import Fit, OnRound, TrainingData, require_partition


class FedAvg:
    """Federated averaging in TFF; a `Pipeline`.

    Every round, exactly `clients_per_round` clients, drawn uniformly without replacement, start from the server's
    weights and take local steps. The average of what they changed is the server optimizer's step. The same seed gives
    the same run.

    Source: McMahan et al. 2017, arXiv:1602.05629, algorithm 1; Reddi et al. 2021, arXiv:2003.00295, algorithm 1.
    """

    def __init__(self, settings: FedAvgConfig, *, seed: int, threads: int | None, private_worker: bool = False) -> None:
        """Holds settings, not data.

        Args:
          settings: the pipeline's settings.
          seed: public; determines cohorts and the order of examples.
          threads: size of the engine's thread pools; None takes the CPUs this process may use.
          private_worker: whether to refuse a worker that others can reach.
        """
        self._settings = settings
        self._seed = seed
        self._threads = threads
        self._private_worker = private_worker

    def fit(self, data: TrainingData, on_round: OnRound) -> Fit:
        """Trains, and calls `on_round` after every round.

        Raises:
          UserError: there is no partition, too few clients for a cohort, or a change beyond the bounds of secure
            aggregation; or others can reach the worker although `private_worker` is set.
          DivergedError: a client's or the server's update is not finite.
        """
        settings, partition = self._settings, require_partition(data)
        if settings.clients_per_round > len(partition):
            raise UserError(
                f"pipeline.clients_per_round={settings.clients_per_round} exceeds the {len(partition)} clients of the "
                "partition; lower it or raise partition.clients"
            )
        cohorts = public_stream(self._seed, "cohorts")
        worker = ensure_worker(self._threads, private=self._private_worker)
        record = run_rounds(
            Server(
                settings,
                data,
                settings.weighting,
                order=public_stream(self._seed, "batch_order"),
                bounds=_bounds(settings, partition),
            ),
            ema_decay=settings.ema_decay,
            spec=data.spec,
            steps=settings.rounds,
            draw_cohort=lambda: uniform_cohort(cohorts, clients=len(partition), size=settings.clients_per_round),
            count_examples=lambda cohort: float(partition.sizes[cohort].sum()) * settings.local_epochs,
            check=partial(_require_whole_updates, settings),
            on_round=on_round,
            exposure=worker.exposure,
        )
        return Fit(record=record, executed=None, facts=engine_facts(settings, worker))


def _bounds(settings: FedAvgConfig, partition: Partition) -> SumBounds | None:
    if not settings.secure_aggregation:
        return None
    return SumBounds.of(settings.secure_bound, int(partition.sizes.max()) if settings.weighting == "examples" else 1)


def _require_whole_updates(settings: FedAvgConfig, step: int, cohort: Cohort, metrics: dict[str, Any]) -> None:
    """Ends a run if a client diverges or exceeds the bounds. TFF alone would leave it out, or clip it, and go on."""
    if settings.secure_aggregation:
        above, below = (int(metrics["aggregator"][f"secure_{side}_clipped_count"]) for side in ("upper", "lower"))
        if above or below:
            raise UserError(
                f"pipeline.secure_bound={settings.secure_bound:g} is too small for round {step}: at least "
                f"{max(above, below)} of {len(cohort)} clients changed a weight by more; raise it, or lower the "
                "learning rates"
            )
    finite = int(metrics["client_work"]["train"]["finite_clients"])
    if finite < len(cohort):
        raise DivergedError(step, f"the update of {len(cohort) - finite} of {len(cohort)} clients")
    if int(metrics["finalizer"]["update_non_finite"]):
        raise DivergedError(step, "the averaged update")
