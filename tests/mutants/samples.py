"""Bugs between the sample that is recorded and the one that trains, in every engine."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pipelines.engines.central.gradients import PerExampleGradients, SummedGradients
from pipelines.engines.central.users import UserUpdates
from pipelines.engines.federated.learning_process import Server

Plant = Callable[[pytest.MonkeyPatch], None]
Samples = list[Any]


def trained_on(choose: Callable[[Samples], Any]) -> Plant:
    """Trains on `choose(samples)`, given all that were drawn for this run, the present one last."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        for engine in (SummedGradients, PerExampleGradients, UserUpdates):
            _replace(patch, engine, "step", choose)
        _replace(patch, Server, "round", choose)

    return plant


def _replace(patch: pytest.MonkeyPatch, engine: type, method: str, choose: Callable[[Samples], Any]) -> None:
    real = getattr(engine, method)

    def step(self: Any, sample: Any) -> Any:
        drawn = self.__dict__.setdefault("_mutant_samples", [])
        drawn.append(sample)
        return real(self, choose(drawn))

    patch.setattr(engine, method, step)


def _former(drawn: Samples) -> Any:
    return drawn[-2] if len(drawn) % 2 == 0 else drawn[-1]


def _three_before(drawn: Samples) -> Any:
    return drawn[-4] if len(drawn) % 4 == 0 else drawn[-1]


def _first(drawn: Samples) -> Any:
    return next((sample for sample in drawn if len(sample)), drawn[-1])


def _with_the_first_unit(drawn: Samples) -> Any:
    """One unit joins every step."""
    now = drawn[-1]
    if isinstance(now, torch.Tensor):
        return torch.unique(torch.cat([now, now.new_zeros(1)]))
    return np.unique(np.append(now, 0))


former_again, three_before, one_sample, one_always = map(
    trained_on, (_former, _three_before, _first, _with_the_first_unit)
)
