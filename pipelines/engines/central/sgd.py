"""Plain minibatch training in PyTorch: the upper limit that private training is compared with."""

from collections.abc import Iterator
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from pipelines.config.pipeline_settings import SgdConfig
from pipelines.core.randomness import public_stream
from pipelines.engines.central.training import (
    Hardware,
    StepRecorder,
    TrainState,
    build_optimizer,
    learning_rate,
    set_learning_rate,
)
from pipelines.engines.interface import Fit, OnRound, TrainingData


class Sgd:
    """Stochastic gradient descent on shuffled batches, or Adam or AdamW."""

    def __init__(self, settings: SgdConfig, *, seed: int, hardware: Hardware) -> None:
        self._settings, self._seed, self._hardware = settings, seed, hardware

    def fit(self, data: TrainingData, on_round: OnRound) -> Fit:
        """Trains for the configured epochs; every example comes once an epoch."""
        settings = self._settings
        state = TrainState.of(data, self._hardware, averaged=settings.ema_decay > 0)
        optimizer = build_optimizer(state.module, settings)
        total = len(data.labels)
        steps = max(1, ceil(settings.epochs * ceil(total / settings.batch_size)))
        recorder, examples = StepRecorder(steps, on_round, state, settings.ema_decay), 0
        batches = shuffled_batches(total, settings.batch_size, public_stream(self._seed, "batch_order"))
        for step in range(1, steps + 1):
            index = torch.from_numpy(next(batches)).to(state.device)
            set_learning_rate(optimizer, learning_rate(settings, step, steps))
            optimizer.zero_grad()
            cross_entropy(state.module(state.inputs[index]), state.labels[index]).backward()
            optimizer.step()
            examples += len(index)
            record = recorder.tick(step, examples)
        return Fit(record=record, executed=None, facts=state.facts())


def shuffled_batches(total: int, batch_size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Yields batches of indices without end: a fresh permutation of range(total) each epoch, the last batch short."""
    while True:
        order = rng.permutation(total)
        for start in range(0, total, batch_size):
            yield order[start : start + batch_size]
