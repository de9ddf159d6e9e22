"""Cohorts and the datasets of clients."""

from collections.abc import Iterable

import numpy as np
from scipy.stats import chisquare

from pipelines.data.partition.client_batches import ClientBatches
from pipelines.engines.federated.clients import ClientDatasets, PaddedOrders, StoredOrders
from pipelines.engines.federated.rounds import uniform_cohort
from pipelines.engines.federated.shared_array import store
from pipelines.engines.interface import TrainingData, require_partition
from tests.engines.federated.conftest import federated_data


def client_datasets(data: TrainingData, *, local_epochs: int) -> ClientDatasets:
    orders = ClientBatches(require_partition(data), local_batch_size=3, order=np.random.default_rng(0))
    return ClientDatasets(data, orders, local_batch_size=3, local_epochs=local_epochs)


def test_uniform_cohorts_have_the_exact_size_and_equal_rates() -> None:
    rng = np.random.default_rng(0)
    cohorts = np.array([uniform_cohort(rng, clients=10, size=4) for _ in range(2000)])
    assert all(len(set(cohort)) == 4 for cohort in cohorts)
    assert chisquare(np.bincount(cohorts.ravel(), minlength=10)).pvalue > 1e-3


def test_batches_hold_each_example_once_an_epoch() -> None:
    data = federated_data([3, 7])
    datasets = client_datasets(data, local_epochs=2)
    (batches,) = ([x.numpy() for x, _ in dataset] for dataset in datasets.of([1]))
    assert [len(batch) for batch in batches] == [3, 3, 1, 3, 3, 1]
    first = np.concatenate(batches[:3])
    assert not np.array_equal(first, data.inputs[3:])
    np.testing.assert_array_equal(np.sort(first, axis=0), np.sort(data.inputs[3:], axis=0))
    (again,) = ([x.numpy() for x, _ in dataset] for dataset in datasets.of([1]))
    assert not np.array_equal(first, np.concatenate(again[:3]))


def test_a_client_that_fits_one_batch_is_one_batch() -> None:
    data = federated_data([3, 7])
    datasets = client_datasets(data, local_epochs=1)
    ((inputs, labels),) = list(datasets.of([0])[0])
    np.testing.assert_array_equal(inputs, data.inputs[:3])
    np.testing.assert_array_equal(labels, data.labels[:3])
    assert labels.dtype.name == "int32"


def padded_sizes(data: TrainingData, expected: float, cohorts: Iterable[int]) -> list[int]:
    """How many clients take part, for cohorts of the first 0, 1, ... clients who hold two examples each."""
    drawn = ClientBatches(require_partition(data), local_batch_size=3, order=np.random.default_rng(0))
    orders, sizes = PaddedOrders(StoredOrders(drawn, store(data)), expected), []
    for size in cohorts:
        padded = orders.of(range(size))
        assert [len(order) for order in padded[:size]] == [2] * size
        assert not any(len(order) for order in padded[size:])
        sizes.append(len(padded))
    return sizes


def test_poisson_cohorts_are_padded_to_three_sizes() -> None:
    data = federated_data([2] * 300)
    assert padded_sizes(data, 49.6, range(90)) == [50] * 51 + [61] * 11 + [82] * 21 + list(range(83, 90))
    for expected in (0.5, 3, 30):
        drawn = np.random.default_rng(0).binomial(300, expected / 300, size=1000)
        assert len(set(padded_sizes(data, expected, drawn))) <= 3


def test_cohorts_of_constant_size_stay_as_they_are() -> None:
    data = federated_data([2] * 99)
    assert all(padded_sizes(data, size, [size]) == [size] for size in range(1, 100))
