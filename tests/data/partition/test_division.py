"""The Partition noun: disjoint, covering, nobody empty."""

import numpy as np
import pytest
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.data.partition.division import Partition


def _client(*indices: int) -> NDArray[np.int64]:
    return np.array(indices, dtype=np.int64)


def test_owners_become_clients() -> None:
    partition = Partition.from_owners(_client(2, 0, 2, 1, 0), 3)
    assert [client.tolist() for client in partition.clients] == [[1, 4], [3], [0, 2]]
    assert partition.sizes.tolist() == [2, 1, 2]
    assert len(partition) == 3


@pytest.mark.parametrize("clients", [[], [_client(0, 1), _client()]])
def test_an_empty_client_is_refused(clients: list[NDArray[np.int64]]) -> None:
    with pytest.raises(UserError, match="every client needs at least one example; ask for fewer clients"):
        Partition(tuple(clients))


def test_an_owner_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="every client needs at least one example"):
        Partition.from_owners(_client(0, 2), 3)


@pytest.mark.parametrize("clients", [[_client(0, 1), _client(1)], [_client(0), _client(2)], [_client(-1, 0)]])
def test_overlap_or_a_gap_is_refused(clients: list[NDArray[np.int64]]) -> None:
    with pytest.raises(UserError, match="must cover every example exactly once"):
        Partition(tuple(clients))


def test_fingerprint_tells_who_holds_what() -> None:
    first = Partition((_client(0, 1), _client(2)))
    assert first.fingerprint == Partition.from_owners(_client(0, 0, 1), 2).fingerprint
    others = [(_client(2), _client(0, 1)), (_client(0), _client(1, 2)), (_client(0, 2), _client(1))]
    assert len({first.fingerprint, *(Partition(clients).fingerprint for clients in others)}) == 4
