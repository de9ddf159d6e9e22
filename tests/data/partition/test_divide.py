"""The four schemes, as properties that hold for any labels."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter

from pipelines.config.partition_settings import PartitionConfig, ResolvedPartition
from pipelines.core.errors import UserError
from pipelines.core.randomness import public_stream
from pipelines.data.dataset import Dataset
from pipelines.data.partition.divide import build_partition
from pipelines.data.partition.division import Partition
from pipelines.data.split import Split

SCHEMES: dict[str, dict[str, Any]] = {
    "iid": {},
    "dirichlet": {"alpha": 0.5},
    "shards": {"shards_per_client": 2},
    "natural": {},
}


def _dataset(labels: NDArray[np.int64], client_ids: NDArray[np.int64] | None = None) -> Dataset:
    split = Split(np.zeros((len(labels), 1), dtype=np.float32), labels)
    return Dataset(name="toy", train=split, test=split, classes=max(2, int(labels.max()) + 1), client_ids=client_ids)


def _build(dataset: Dataset, name: str, seed: int = 0, **changes: Any) -> Partition:
    clients = {} if name == "natural" else {"clients": 10}
    config: ResolvedPartition = TypeAdapter[Any](PartitionConfig).validate_python(
        {"name": name} | clients | SCHEMES[name] | changes
    )
    return build_partition(config, dataset, public_stream(seed, "partition"))


def _balanced(classes: int = 10, per_class: int = 100) -> Dataset:
    labels = np.repeat(np.arange(classes), per_class)
    return _dataset(labels, client_ids=np.arange(len(labels)) % 7 * 1000 - 3)


def _label_counts(dataset: Dataset, partition: Partition) -> NDArray[np.int64]:
    """Returns examples by client and class, shape (clients, classes)."""
    labels = dataset.train.labels
    return np.array([np.bincount(labels[client], minlength=dataset.classes) for client in partition.clients])


@settings(deadline=None)  # a shared machine may stall
@given(
    name=st.sampled_from(["iid", "dirichlet", "shards"]),
    labels=st.lists(st.integers(0, 6), min_size=1, max_size=60),
    share=st.floats(0, 1),
    shards=st.integers(1, 4),
    alpha=st.floats(5e-324, 1e308),
    seed=st.integers(0, 5),
)
def test_partition_covers_every_example_once_and_evenly(
    name: str, labels: list[int], share: float, shards: int, alpha: float, seed: int
) -> None:
    parameters: dict[str, dict[str, Any]] = {
        "iid": {},
        "dirichlet": {"alpha": alpha},
        "shards": {"shards_per_client": shards},
    }
    most = len(labels) // shards if name == "shards" else len(labels)
    if most == 0:
        return
    clients = max(1, round(share * most))
    partition = _build(_dataset(np.array(labels)), name, seed, clients=clients, **parameters[name])
    assert len(partition) == clients
    assert partition.sizes.min() >= 1
    assert np.array_equal(np.sort(np.concatenate(partition.clients)), np.arange(len(labels)))
    # A client of shards holds several, each of which may be longer by one.
    assert np.ptp(partition.sizes) <= (shards if name == "shards" else 1)


@pytest.mark.parametrize("name", SCHEMES)
def test_partition_is_a_function_of_its_stream(name: str) -> None:
    dataset = _balanced()
    assert _build(dataset, name, seed=1).fingerprint == _build(dataset, name, seed=1).fingerprint


@pytest.mark.parametrize("name", ["iid", "dirichlet", "shards"])
def test_seeds_give_different_partitions(name: str) -> None:
    dataset = _balanced()
    assert len({_build(dataset, name, seed=seed).fingerprint for seed in range(5)}) == 5


@pytest.mark.parametrize("name", SCHEMES)
def test_indices_ascend_within_a_client(name: str) -> None:
    assert all((np.diff(client) > 0).all() for client in _build(_balanced(), name).clients)


def test_iid_clients_see_every_class() -> None:
    dataset = _balanced()
    # 100 examples of 10 classes a client: a class is missing with probability below 10 * 10 * 0.9^100 < 0.003.
    assert (_label_counts(dataset, _build(dataset, "iid")) > 0).all()


def test_smaller_alpha_is_more_skewed() -> None:
    dataset = _balanced()
    largest = [
        np.mean(
            [_label_counts(dataset, _build(dataset, "dirichlet", seed, alpha=alpha)).max(axis=1) for seed in (1, 2)]
        )
        for alpha in (0.05, 1, 10, 1000)
    ]
    assert largest == sorted(largest, reverse=True)
    assert largest[0] > 70  # of 100: nearly one class
    assert largest[-1] < 25  # 10 of each class, give or take chance


def test_dirichlet_follows_the_moments_of_its_source() -> None:
    # Share s of class 1 under Dir(alpha * p) with p = 1/4 and alpha = 2: Beta(0.5, 1.5), so that mean = 1/4 and
    # variance = (1/4)(3/4)/(2 + 1) = 1/16. A client of 40 adds binomial noise, E[s(1-s)]/40 = (3/16 - 1/16)/40.
    labels = np.repeat([0, 1], [60_000, 20_000])
    dataset = _dataset(labels)
    partition = _build(dataset, "dirichlet", clients=2000, alpha=2.0)
    shares = _label_counts(dataset, partition)[:, 1] / 40
    assert shares.mean() == pytest.approx(0.25)  # all of class 1 is handed out
    assert shares.var() == pytest.approx(1 / 16 + 1 / 8 / 40, rel=0.1)


def test_dirichlet_treats_early_and_late_clients_alike() -> None:
    dataset = _balanced(per_class=400)
    counts = _label_counts(dataset, _build(dataset, "dirichlet", clients=400, alpha=0.05))
    classes_held = (counts > 0).sum(axis=1)
    early, late = classes_held[:200].mean(), classes_held[200:].mean()
    # A client holds 1 to 4 classes, standard deviation below 1: a difference of 0.4 would be four standard errors.
    assert abs(early - late) < 0.4


@pytest.mark.parametrize("alpha", [1e-300, 0.05, 1e300])
def test_no_dirichlet_client_is_empty_even_with_one_example_each(alpha: float) -> None:
    dataset = _balanced()
    assert (_build(dataset, "dirichlet", clients=1000, alpha=alpha).sizes == 1).all()


def test_dirichlet_copes_with_a_rare_class() -> None:
    labels = np.array([0] * 997 + [1, 2, 2])
    counts = _label_counts(_dataset(labels), _build(_dataset(labels), "dirichlet", alpha=0.1))
    assert counts.sum(axis=0).tolist() == [997, 1, 2]


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_shards_give_a_client_its_number_of_classes(shards: int) -> None:
    # 10 classes of 120 into 10 * shards shards of 120/shards: no shard straddles two classes.
    dataset = _balanced(per_class=120)
    held = (_label_counts(dataset, _build(dataset, "shards", shards_per_client=shards)) > 0).sum(axis=1)
    assert held.max() <= shards
    assert held.max() == shards or shards > 2


def test_shards_straddle_at_most_two_classes() -> None:
    labels = np.repeat(np.arange(4), [40, 55, 47, 58])  # 200 into 20 shards of 10, shorter than any class
    dataset = _dataset(labels)
    held = (_label_counts(dataset, _build(dataset, "shards", clients=20, shards_per_client=1)) > 0).sum(axis=1)
    assert held.max() <= 2


def test_shards_do_not_hang_on_the_order_within_a_class() -> None:
    dataset = _balanced()
    clients = _build(dataset, "shards", clients=10, shards_per_client=2).clients
    # Shards cut from the file as it lies would be 20 runs of consecutive indices.
    runs = sum(1 + int((np.diff(client) != 1).sum()) for client in clients)
    assert runs > 100


def test_natural_clients_are_the_datasets_own() -> None:
    ids = np.array([70, -3, 70, 5, -3, 70])
    partition = _build(_dataset(np.zeros(6, dtype=np.int64), ids), "natural")
    assert [client.tolist() for client in partition.clients] == [[1, 4], [3], [0, 2, 5]]


def test_natural_without_ids_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"partition=natural: dataset toy has no client_ids; choose .*dataset=npz"):
        _build(_dataset(np.array([0, 1])), "natural")


@pytest.mark.parametrize("name", ["iid", "dirichlet", "shards"])
def test_more_clients_than_examples_names_both_numbers(name: str) -> None:
    with pytest.raises(UserError, match=r"^partition\.clients=1001 exceeds the 1000 training examples; .*fewer"):
        _build(_balanced(), name, clients=1001)


def test_more_shards_than_examples_names_all_numbers() -> None:
    message = r"clients=400 times partition\.shards_per_client=3 makes 1200 shards, more than the 1000 training"
    with pytest.raises(UserError, match=message):
        _build(_balanced(), "shards", clients=400, shards_per_client=3)


@pytest.mark.parametrize("name", ["iid", "dirichlet", "shards"])
def test_a_hundred_thousand_clients_are_dealt_at_once(name: str) -> None:
    dataset = _balanced(per_class=20_000)
    partition = _build(dataset, name, clients=100_000, **({"shards_per_client": 1} if name == "shards" else {}))
    assert math.isclose(partition.sizes.mean(), 2)
