"""Canaries: made-up units in fixed places of the training data, each included with probability one half.

The engine does not get a canary that is left out, but the plan stays the same. The population, and with it sampling
probability, steps and expected batch size, are public constants that count every place. Under tree aggregation the
epsilon is about users whose contributions are replaced by zeros. There a canary that is left out stays and sends zeros.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.data.partition.division import Partition
from pipelines.data.split import Split
from pipelines.engines.interface import CanaryUpdates, Inputs, Labels, TrainingData

LEAST_CANARIES = 10


@dataclass(frozen=True, kw_only=True)
class Canaries:
    """What the auditor knows and the engine does not.

    Attributes:
      included: bool, shape (m,): the coin flips; secret during the run, never logged.
      data: the training data with the included canaries only.
    """

    included: NDArray[np.bool_]
    data: TrainingData

    def __len__(self) -> int:
        return len(self.included)


@dataclass(frozen=True, kw_only=True)
class ExampleCanaries(Canaries):
    """Canary examples: one example per canary, shape (m, *features)."""

    examples: Split


@dataclass(frozen=True, kw_only=True)
class ClientCanaries(Canaries):
    """Canary clients: `directions`, float32 of length 1, shape (m, weights), in the spec's order."""

    directions: NDArray[np.float32]


def plant_examples(
    data: TrainingData, count: int, *, length: float | None, content: np.random.Generator, coins: np.random.Generator
) -> ExampleCanaries:
    """Replaces training examples by canaries.

    Args:
      data: of a central run without users.
      count: number of canaries.
      length: norm of random inputs. It must not follow from these data, because then one example could change every
        canary. None takes real inputs with wrong labels instead.
      content: public stream for places and contents.
      coins: secret stream for inclusion.

    Raises:
      UserError: fewer than 10 canaries, or no real example is left.
    """
    _check(count, len(data.labels), "training examples")
    places = np.sort(content.choice(len(data.labels), count, replace=False))
    if length is not None:
        examples = _random_directions(data, count, length, content)
    else:
        shift = content.integers(1, data.spec.classes, count)
        examples = Split(data.inputs[places], (data.labels[places] + shift) % data.spec.classes)
    included = coins.random(count) < 0.5
    inputs, labels = data.inputs.copy(), data.labels.copy()
    inputs[places], labels[places] = examples.inputs, examples.labels
    kept = np.ones(len(labels), bool)
    kept[places[~included]] = False
    return ExampleCanaries(
        examples=examples, included=included, data=replace(data, inputs=inputs[kept], labels=labels[kept])
    )


def plant_clients(
    data: TrainingData,
    count: int,
    *,
    length: float,
    stay: bool,
    content: np.random.Generator,
    coins: np.random.Generator,
) -> ClientCanaries:
    """Replaces clients by canaries, which send a random direction of all weights whenever they join.

    Args:
      data: with a partition.
      count: number of canaries.
      length: norm of a canary's update before clipping, > 0.
      stay: whether excluded canaries stay and send zeros, so that no other client takes their turns.
      content: public stream for places and directions.
      coins: secret stream for inclusion.

    Raises:
      UserError: no partition, fewer than 10 canaries, or no real client is left.

    Source: Andrew et al. 2023, arXiv:2302.03098, section 3.
    """
    if data.partition is None:
        raise UserError("audit=canary_clients needs users: choose pipeline=fed_avg or dp_fed_avg, or use audit=one_run")
    clients = data.partition.clients
    _check(count, len(clients), "clients")
    places = np.sort(content.choice(len(clients), count, replace=False))
    directions = content.standard_normal((count, data.spec.parameters), np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    included = coins.random(count) < 0.5
    present = np.ones(len(clients), bool)
    present[places[~included]] = stay
    newcomers = np.cumsum(present) - 1  # each client's index among the present clients
    sent = {int(newcomers[place]): row for row, place in enumerate(places) if present[place]}
    updates = length * included[:, None].astype(np.float32) * directions
    return ClientCanaries(
        included=included,
        data=replace(_only(data, clients, present), canaries=CanaryUpdates(rows=sent, updates=updates)),
        directions=directions,
    )


def _only(data: TrainingData, clients: tuple[NDArray[np.int64], ...], present: NDArray[np.bool_]) -> TrainingData:
    """The data of the present clients."""
    kept = np.zeros(len(data.labels), bool)
    staying = [indices for indices, there in zip(clients, present, strict=True) if there]
    kept[np.concatenate(staying)] = True
    rows = np.cumsum(kept) - 1
    partition = Partition(tuple(rows[indices] for indices in staying))
    return replace(data, inputs=data.inputs[kept], labels=data.labels[kept], partition=partition)


def _random_directions(data: TrainingData, count: int, length: float, content: np.random.Generator) -> Split:
    """Inputs of random direction, with random labels."""
    drawn = content.standard_normal((count, data.inputs[0].size))
    drawn *= length / np.linalg.norm(drawn, axis=1, keepdims=True)
    inputs: Inputs = drawn.reshape(count, *data.inputs.shape[1:]).astype(np.float32)
    labels: Labels = content.integers(0, data.spec.classes, count)
    return Split(inputs, labels)


def _check(count: int, units: int, what: str) -> None:
    if not LEAST_CANARIES <= count < units:
        raise UserError(
            f"audit.canaries={count} must be at least {LEAST_CANARIES} and less than the number of {what}, {units}"
        )
