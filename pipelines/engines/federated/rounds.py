"""Cohorts, and the loop over rounds that both federated pipelines share."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.pipeline_settings import FederatedConfig
from pipelines.core.errors import DivergedError
from pipelines.engines.federated.engine import tf, tff
from pipelines.engines.federated.learning_process import Server
from pipelines.engines.federated.runtime import Worker
from pipelines.engines.federated.tff_model import TensorFlowModel
from pipelines.engines.interface import OnRound, RoundRecord
from pipelines.model.averaging import share_of_newest
from pipelines.model.spec import ModelSpec, Weights
from pipelines.privacy.execution_checks import require_event
from pipelines.privacy.mechanisms.base import Mechanism
from pipelines.privacy.sampling import Participation

Cohort = NDArray[np.int64]


def uniform_cohort(rng: np.random.Generator, *, clients: int, size: int) -> Cohort:
    """Draws exactly `size` of the clients 0..clients-1, uniformly without replacement."""
    return rng.choice(clients, size=size, replace=False)


def run_rounds(
    server: Server,
    *,
    ema_decay: float,
    spec: ModelSpec,
    steps: int,
    draw_cohort: Callable[[], Cohort],
    count_examples: Callable[[Cohort], float],
    check: Callable[[int, Cohort, dict[str, Any]], None],
    on_round: OnRound,
    plan: Mechanism | None = None,
    sampler: Participation | None = None,
    exposure: str | None = None,
) -> RoundRecord:
    """Runs all rounds and returns the last one's record.

    Args:
      server: the process at its start.
      ema_decay: decay of the average of the weights after every round; the record holds this average.
      spec: the architecture.
      steps: rounds, >= 1.
      draw_cohort: called once a round.
      count_examples: what a cohort adds to `RoundRecord.examples`.
      check: sees step, cohort and metrics of each round, and raises `DivergedError`.
      on_round: called after every round; its time is not training time.
      plan: the plan of a private run; every round is compared with it.
      sampler: observes every cohort of a private run; None otherwise.
      exposure: the worker's exposure, for the record.

    Raises:
      DivergedError: `check` raised it, or a weight is not finite.
      GuaranteeError: the noise in use is not the plan's.
    """
    examples, train_s = 0.0, 0.0
    average: Weights = []
    for step in range(1, steps + 1):
        begin = time.perf_counter()
        cohort = draw_cohort()
        if sampler is not None:
            sampler.observe(cohort)
        metrics = server.round(cohort)
        if plan is not None:
            require_event(plan, server.dp_event)
        weights = server.weights
        check(step, cohort, metrics)
        if not all(np.isfinite(value).all() for value in weights):
            raise DivergedError(step, "a weight")
        average = _averaged(average, weights, share_of_newest(step, ema_decay))
        examples += count_examples(cohort)
        train_s += time.perf_counter() - begin
        record = RoundRecord(
            step=step, steps=steps, examples=examples, train_s=train_s, model=TensorFlowModel(spec, average), plan=plan,
            sampler=sampler, exposure=exposure,
        )  # fmt: skip
        on_round(record)
    return record


def _averaged(average: Weights, weights: Weights, share: float) -> Weights:
    """Moves the average towards new weights by their share; a share of 1 is the first round, or no average at all."""
    if share == 1:
        return weights
    return [(1 - share) * before + share * now for before, now in zip(average, weights, strict=True)]


def engine_facts(settings: FederatedConfig, worker: Worker) -> dict[str, str]:
    """Returns facts about the engine, for the log."""
    stock = settings.engine == "stock"
    return {
        "engine": f"{'tff.learning' if stock else 'tff'} {tff.__version__} ({settings.engine})",
        "tensorflow": tf.__version__,
        "device": "cpu",
        "threads": str(worker.threads),
        "worker": "private" if worker.exposure is None else f"open ({worker.home.flaw})",
    }
