"""Cohorts and the datasets of clients."""

import numpy as np
from scipy.stats import binom, chisquare

from pipelines.federated.clients import ClientDatasets
from pipelines.federated.rounds import poisson_cohort, uniform_cohort
from tests.federated.conftest import federated_data


def test_uniform_cohorts_have_the_exact_size_and_favour_nobody() -> None:
    rng = np.random.default_rng(0)
    cohorts = np.array([uniform_cohort(rng, clients=10, size=4) for _ in range(2000)])
    assert all(len(set(cohort)) == 4 for cohort in cohorts)
    assert chisquare(np.bincount(cohorts.ravel(), minlength=10)).pvalue > 1e-3


def test_poisson_cohort_sizes_are_binomial_and_favour_nobody() -> None:
    rng = np.random.default_rng(0)
    cohorts = [poisson_cohort(rng, clients=20, probability=0.1) for _ in range(4000)]
    sizes = np.minimum([len(cohort) for cohort in cohorts], 6)
    expected = binom.pmf(np.arange(7), 20, 0.1)
    expected[-1] = binom.sf(5, 20, 0.1)
    assert chisquare(np.bincount(sizes, minlength=7), 4000 * expected).pvalue > 1e-3
    assert chisquare(np.bincount(np.concatenate(cohorts), minlength=20)).pvalue > 1e-3
    assert all(len(set(cohort)) == len(cohort) for cohort in cohorts)


def test_poisson_cohort_of_probability_one_is_everyone() -> None:
    np.testing.assert_array_equal(poisson_cohort(np.random.default_rng(0), clients=5, probability=1.0), np.arange(5))


def test_batches_hold_each_example_once_an_epoch_in_a_drawn_order() -> None:
    data = federated_data([3, 7])
    datasets = ClientDatasets(data, local_batch_size=3, local_epochs=2, order=np.random.default_rng(0))
    (batches,) = ([x.numpy() for x, _ in dataset] for dataset in datasets.of([1]))
    assert [len(batch) for batch in batches] == [3, 3, 1, 3, 3, 1]
    first = np.concatenate(batches[:3])
    assert not np.array_equal(first, data.inputs[3:])
    np.testing.assert_array_equal(np.sort(first, axis=0), np.sort(data.inputs[3:], axis=0))
    (again,) = ([x.numpy() for x, _ in dataset] for dataset in datasets.of([1]))
    assert not np.array_equal(first, np.concatenate(again[:3]))


def test_a_client_that_fits_one_batch_is_one_batch() -> None:
    data = federated_data([3, 7])
    datasets = ClientDatasets(data, local_batch_size=3, local_epochs=1, order=np.random.default_rng(0))
    ((inputs, labels),) = list(datasets.of([0])[0])
    np.testing.assert_array_equal(inputs, data.inputs[:3])
    np.testing.assert_array_equal(labels, data.labels[:3])
    assert labels.dtype.name == "int32"
