"""Which example belongs to which client."""

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import UserError


@dataclass(frozen=True)
class Partition:
    """A division of examples among clients.

    Attributes:
      clients: for each client an int64 array of the indices of its examples.

    Raises:
      UserError: a client is empty, or the clients do not cover 0..n-1 exactly once.
    """

    clients: tuple[NDArray[np.int64], ...]

    def __post_init__(self) -> None:
        if not self.clients or any(len(client) == 0 for client in self.clients):
            raise UserError("partition: every client needs at least one example; ask for fewer clients")
        together = np.sort(np.concatenate(self.clients))
        if not np.array_equal(together, np.arange(len(together))):
            raise UserError("partition: its clients must cover every example exactly once")

    @classmethod
    def from_owners(cls, owners: NDArray[np.int64], num_clients: int) -> "Partition":
        """Groups examples by owner; each client's indices ascend.

        Args:
          owners: int64, shape (n,): the client that holds each example, values in [0, num_clients).
          num_clients: number of clients; each must own an example.
        """
        order = np.argsort(owners, kind="stable")
        ends = np.cumsum(np.bincount(owners, minlength=num_clients))
        return cls(tuple(np.split(order, ends[:-1])))

    def __len__(self) -> int:
        return len(self.clients)

    @cached_property
    def sizes(self) -> NDArray[np.int64]:
        """Examples per client, int64, shape (clients,)."""
        return np.array([len(client) for client in self.clients])

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of each client's examples, in the order of the clients."""
        digest = hashlib.sha256()
        for client in self.clients:
            digest.update(np.int64(len(client)).tobytes())
            digest.update(np.ascontiguousarray(client, dtype=np.int64).tobytes())
        return digest.hexdigest()
