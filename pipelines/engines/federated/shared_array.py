"""Training examples in mapped memory that the worker can read, and that clients address by index.

Sending whole clients to the worker costs a quarter of a round: each array is copied into a message, sent, and copied
out of it. Here the examples are written once into anonymous memory, which the worker maps. A round then sends only
indices, a partition stays a list of indices, and the examples are stored once for any number of clients.
"""

import hashlib
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.engines.federated.engine import tf
from pipelines.engines.federated.home import home
from pipelines.engines.interface import TrainingData, require_partition

# Inputs up to this size stay in their own order, which costs no time at this size. Runs that differ only in their
# partition, such as the seeds of a sweep, then share inputs and traced graphs, which saves half a second a run.
SHARED_BYTES = 2**22


@dataclass(frozen=True)
class SharedArray:
    """An array in mapped memory, as a graph refers to it.

    Attributes:
      path: a file that a worker and this process can map, and other users cannot.
      shape: shape of the array.
      dtype: name of the array's type.
      digest: sha256 of the data. A path can come again for other data, while processes, and constants that TensorFlow
        folds into them, stay. The digest distinguishes them.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    digest: str

    def tensor(self) -> Any:
        """Returns the array as a tensor of the current graph."""
        return tf.raw_ops.ImmutableConst(
            dtype=tf.as_dtype(self.dtype), shape=self.shape, memory_region_name=self.path, name=f"data_{self.digest}"
        )


class SharedArrays:
    """Inputs and labels in mapped memory, which is freed with this object, or with the process, however it ends.

    Attributes:
      inputs: float32, shape (n, *features).
      labels: int32, shape (n,).
      canaries: updates, float32, shape (canaries, weights); None without an audit.
      rows: int32, shape (n,): the row of each example; above `SHARED_BYTES`, -1 for examples that no client holds.
    """

    def __init__(self, data: TrainingData, digest: str) -> None:
        """Copies the data; above `SHARED_BYTES`, puts each client's examples together, because each page costs time.

        Raises:
          UserError: there is not enough memory.
        """
        self._digest = digest
        self._home = home()
        layout = np.arange(len(data.inputs)) if _in_own_order(data) else _by_client(data)
        self.rows = np.full(len(data.inputs), -1, np.int32)
        self.rows[layout] = np.arange(len(layout), dtype=np.int32)
        self.inputs = self._store(data.inputs[layout])
        self.labels = self._store(data.labels[layout].astype(np.int32))
        self.canaries = None if data.canaries is None else self._store(data.canaries.updates)

    @property
    def lasts(self) -> bool:
        """Whether the arrays still exist: they end with the home that keeps them."""
        return self._home.stands

    def _store(self, array: NDArray[Any]) -> SharedArray:
        descriptor = os.memfd_create("examples")
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(np.ascontiguousarray(array).data)
        except OSError as error:
            os.close(descriptor)
            raise UserError(
                f"the {array.nbytes / 2**20:.0f} MiB of training data do not fit into memory a second time ({error}); "
                "lower dataset.limit or use pipeline.engine=stock"
            ) from error
        return SharedArray(self._home.keep(descriptor, self), array.shape, array.dtype.name, self._digest)


def _in_own_order(data: TrainingData) -> bool:
    return data.inputs.nbytes <= SHARED_BYTES


def _by_client(data: TrainingData) -> NDArray[np.int64]:
    """Returns the examples in the order of the clients that hold them; if there are several, the first one counts."""
    held = np.concatenate(require_partition(data).clients)
    examples, first = np.unique(held, return_index=True)
    return examples[np.argsort(first)]


_latest: tuple[str, SharedArrays] | None = None


def store(data: TrainingData) -> SharedArrays:
    """Returns the data's arrays; reuses the last ones if content and order are the same, as in a sweep."""
    global _latest
    order = "" if _in_own_order(data) else require_partition(data).fingerprint
    content = hashlib.sha256(f"{data.inputs.shape} {order}".encode())
    content.update(np.ascontiguousarray(data.inputs).data)
    content.update(np.ascontiguousarray(data.labels).data)
    if data.canaries is not None:
        content.update(np.ascontiguousarray(data.canaries.updates).data)
    digest = content.hexdigest()
    if _latest is None or _latest[0] != digest or not _latest[1].lasts:
        _latest = (digest, SharedArrays(data, digest))
    return _latest[1]
