"""Training examples where the worker can read them: mapped memory that clients address by index.

Sending whole clients to the worker costs a quarter of a round: each array is copied into a message, sent, and copied
out of it. Here the examples are written once into anonymous memory, which the worker maps. A round then sends nothing
but indices, a partition stays a list of them, and however many clients there are, the examples lie there once.
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

# Inputs up to this size stay in their own order: that costs no time yet, and runs that differ in their partition alone,
# as the seeds of a sweep do, share them and all that was traced on them: half a second a run.
SHARED_BYTES = 2**22


@dataclass(frozen=True)
class SharedArray:
    """An array in mapped memory, as a graph refers to it.

    Attributes:
      path: a file that a worker can map, and this process, and no other user.
      shape: of the array.
      dtype: of the array, by name.
      digest: sha256 of the data it belongs to. Paths come again for other data, while processes, and constants that
        TensorFlow folds into them, stay: the digest sets them apart.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str
    digest: str

    def tensor(self) -> Any:
        """Returns the array as a tensor of the graph at hand."""
        return tf.raw_ops.ImmutableConst(
            dtype=tf.as_dtype(self.dtype), shape=self.shape, memory_region_name=self.path, name=f"data_{self.digest}"
        )


class SharedArrays:
    """Inputs and labels in mapped memory, which is freed with this object, or with the process, however it ends.

    Attributes:
      inputs: region of float32 inputs, shape (n, *features).
      labels: region of int32 labels, shape (n,).
      canaries: region of float32 updates, shape (canaries, weights); None where nobody audits.
      rows: int32, shape (n,): where each example lies; of many, -1 for those that no client holds.
    """

    def __init__(self, data: TrainingData, digest: str) -> None:
        """Copies the data; of many, each client's lie together: they share pages, and mapping costs by the page.

        Raises:
          UserError: memory does not suffice.
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
        """Whether the regions are still there: they die with the home that keeps them."""
        return self._home.stands

    def _store(self, array: NDArray[Any]) -> SharedArray:
        descriptor = os.memfd_create("examples")
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(np.ascontiguousarray(array).data)
        except OSError as error:
            os.close(descriptor)
            raise UserError(
                f"the {array.nbytes / 2**20:.0f} MiB of training data do not fit into memory once more ({error}); "
                "lower dataset.limit or use pipeline.engine=stock"
            ) from error
        return SharedArray(self._home.keep(descriptor, self), array.shape, array.dtype.name, self._digest)


def _in_own_order(data: TrainingData) -> bool:
    return data.inputs.nbytes <= SHARED_BYTES


def _by_client(data: TrainingData) -> NDArray[np.int64]:
    """The examples in the order of the clients that hold them; the first such client counts, should there be more."""
    held = np.concatenate(require_partition(data).clients)
    examples, first = np.unique(held, return_index=True)
    return examples[np.argsort(first)]


_latest: tuple[str, SharedArrays] | None = None


def store(data: TrainingData) -> SharedArrays:
    """Returns the data's storage: the one before, where content and order are the same, as in a sweep."""
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
