"""The data and settings of the benchmark in the project's own types."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.pipeline_settings import DpFedAvgConfig, DpSgdConfig, FedAvgConfig, SgdConfig
from pipelines.core.randomness import public_stream
from pipelines.data.partition.division import Partition
from pipelines.engines.interface import TrainingData
from pipelines.model.spec import build_spec, initial_weights
from pipelines.privacy.mechanisms.base import PrivacyUnit
from pipelines.privacy.mechanisms.poisson_gaussian import PoissonGaussianMechanism

FEATURES = 3969  # size of a scattering transform of depth 2 of a 28 x 28 image: 81 x 7 x 7
DELTA = 1e-6
CENTRAL: dict[str, Any] = {
    "optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant",
}  # fmt: skip
FEDERATED: dict[str, Any] = {
    "local_epochs": 1, "client_optimizer": "sgd", "client_learning_rate": 0.1, "client_momentum": 0.0,
    "server_optimizer": "sgd", "server_learning_rate": 1.0, "server_momentum": 0.0, "proximal_strength": 0.0,
}  # fmt: skip


class SharedPartition(Partition):
    """Clients that may share examples and need not hold all of them: a population larger than its data.

    For measurements only. Every client keeps its number of examples, so the work of a round does not depend on the
    size of the population.
    """

    def __post_init__(self) -> None:
        """Accepts clients that a real partition refuses."""


def mnist(path: str, partition: Partition | None = None) -> TrainingData:
    """Reads the archive that the benchmark wrote; if no partition is given, its thousand clients are used."""
    with np.load(path) as archive:
        inputs, labels, clients = archive["x_train"], archive["y_train"], archive["clients"]
    return _training_data("cnn", inputs, labels, partition or Partition(tuple(clients)))


def test_images(path: str) -> NDArray[np.float32]:
    """Reads the archive's test images, float32 (10000, 28, 28, 1)."""
    with np.load(path) as archive:
        images: NDArray[np.float32] = archive["x_test"]
    return images


def flat_features(examples: int = 60_000) -> TrainingData:
    """Draws standard normal features, (examples, 3969), for a linear model: its speed does not depend on values."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((examples, FEATURES), np.float32)
    return _training_data("linear", inputs, rng.integers(0, 10, examples), None)


def population(clients: int, size: int, outsized: int, examples: int = 60_000) -> Partition:
    """Draws the examples of each client in a population of any size.

    Args:
      clients: number of clients.
      size: examples of each client, drawn with replacement from all examples.
      outsized: examples of the last client, if not 0.
      examples: number in the data.
    """
    drawn = np.random.default_rng(0).integers(0, examples, (clients, size))
    held = list(drawn)
    if outsized:
        held[-1] = np.arange(outsized)
    return SharedPartition(tuple(held))


def federated_settings(options: dict[str, Any]) -> FedAvgConfig | DpFedAvgConfig:
    """Settings of a federated probe."""
    values = {
        **FEDERATED,
        "name": options["pipeline"],
        "engine": options["engine"],
        "rounds": options["rounds"],
        "clients_per_round": options["cohort"],
        "local_batch_size": options["batch"],
    }
    if options["pipeline"] == "dp_fed_avg":
        return DpFedAvgConfig.model_validate(values)
    return FedAvgConfig.model_validate({**values, "weighting": options.get("weighting", "examples")})


def central_settings(options: dict[str, Any], examples: int) -> SgdConfig | DpSgdConfig:
    """Settings of a central probe; steps become epochs, less half a step, since the pipeline rounds up."""
    epochs = (options["steps"] - 0.5) / -(-examples // options["batch"])
    values = {**CENTRAL, "name": options["pipeline"], "batch_size": options["batch"], "epochs": epochs}
    if options["pipeline"] == "sgd":
        return SgdConfig.model_validate(values)
    physical = options.get("max_physical_batch", 1024)
    return DpSgdConfig.model_validate({**values, "max_physical_batch": physical, "grad_sample": options["grad_sample"]})


def plan(unit: PrivacyUnit, units: int, sample: int, steps: int) -> PoissonGaussianMechanism:
    """The mechanism of all private probes: clip norm 1, noise multiplier 1."""
    return PoissonGaussianMechanism(
        unit=unit, population=units, sampling_probability=sample / units, steps=steps, noise_multiplier=1.0,
        clip_norm=1.0, delta=DELTA,
    )  # fmt: skip


def archive(folder: Path, dataset: Any) -> Path:
    """Writes the archive that every probe and peer reads.

    Args:
      folder: where to.
      dataset: a `pipelines.data.dataset.Dataset` of 60,000 training examples.
    """
    path = folder / "mnist.npz"
    clients = np.random.default_rng(0).permutation(len(dataset.train)).reshape(1000, -1)
    np.savez(
        path, x_train=dataset.train.inputs, y_train=dataset.train.labels, x_test=dataset.test.inputs, clients=clients
    )
    return path


def _training_data(
    model: Any, inputs: NDArray[np.float32], labels: NDArray[np.int64], partition: Partition | None
) -> TrainingData:
    spec = build_spec(model, features=inputs.shape[1:], classes=10)
    weights = initial_weights(spec, public_stream(0, "initial_weights"))
    return TrainingData(inputs=inputs, labels=labels, partition=partition, spec=spec, initial_weights=weights)
