"""The order in which clients go through their examples."""

import numpy as np

from pipelines.data.partition.client_batches import ClientBatches
from pipelines.data.partition.division import Partition

PARTITION = Partition(tuple(np.split(np.arange(20), [1, 6])))  # 1, 5 and 14 examples


def orders(most: int | None = None, *, batch: int = 4, seed: int = 0) -> ClientBatches:
    return ClientBatches(PARTITION, local_batch_size=batch, order=np.random.default_rng(seed), most=most)


def test_several_batches_are_shuffled_and_one_batch_is_not() -> None:
    drawn = orders()
    first, second = drawn.of([0, 1, 2]), drawn.of([0, 1, 2])
    assert [sorted(order) for order in first] == [client.tolist() for client in PARTITION.clients]
    assert first[0].tolist() == second[0].tolist() == [0]
    assert not np.array_equal(first[2], second[2])
    assert orders(batch=14).of([2])[0].tolist() == list(range(6, 20))


def test_a_cap_draws_distinct_examples_and_all_in_time() -> None:
    drawn = orders(most=3, batch=100)
    rounds = [drawn.of([1, 0, 2]) for _ in range(200)]
    assert {tuple(len(order) for order in each) for each in rounds} == {(3, 1, 3)}
    taken = np.bincount(np.concatenate([each[2] for each in rounds]), minlength=20)[6:]
    # Hypergeometric: each of 14 is taken 200 * 3 / 14 = 42.9 times, variance 200 * 3/14 * 11/14 = 33.7.
    assert np.abs(taken - 200 * 3 / 14).max() < 5 * np.sqrt(33.7)
    assert all(len(set(each[2])) == 3 for each in rounds)


def test_a_cap_above_all_draws_what_no_cap_draws() -> None:
    for mine, expected in zip(orders(most=14).of([0, 1, 2]), orders().of([0, 1, 2]), strict=True):
        np.testing.assert_array_equal(mine, expected)
