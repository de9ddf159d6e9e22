"""Training examples in mapped memory."""

import contextlib
import gc
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipelines.core.errors import UserError
from pipelines.data.partition.division import Partition
from pipelines.engines.federated.engine import tf
from pipelines.engines.federated.home import home
from pipelines.engines.federated.shared_array import SHARED_BYTES, SharedArray, SharedArrays, store
from tests.engines.federated.conftest import federated_data


def read(array: SharedArray) -> np.ndarray:
    # In a graph of its own, as in the worker; outside of graphs TensorFlow remembers what a path once held.
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        return session.run(array.tensor())


def open_files(holder: Path = Path("/proc/self/fd")) -> set[int]:
    found = set()
    for descriptor in os.listdir(holder):
        with contextlib.suppress(OSError):  # the listing's own
            found.add((holder / descriptor).stat().st_ino)
    return found


def test_a_graph_reads_what_was_stored() -> None:
    data = federated_data([3, 4])
    arrays = store(data)
    np.testing.assert_array_equal(read(arrays.inputs)[arrays.rows], data.inputs)
    np.testing.assert_array_equal(read(arrays.labels)[arrays.rows], data.labels)
    assert read(arrays.labels).dtype == np.int32


def test_few_examples_are_stored_once_and_many_by_client() -> None:
    partitions = [Partition((np.array([5, 0]), np.array([3, 1, 4, 2]))), Partition((np.arange(3), np.arange(3, 6)))]
    few, many = federated_data([6]), federated_data([6], features=SHARED_BYTES // 4)
    shared, also = (store(replace(few, partition=partition)) for partition in partitions)
    assert shared is also
    assert shared.rows.tolist() == [0, 1, 2, 3, 4, 5]
    places = [store(replace(many, partition=partition)).rows for partition in partitions]
    for rows, partition in zip(places, partitions, strict=True):
        assert np.concatenate([rows[client] for client in partition.clients]).tolist() == [0, 1, 2, 3, 4, 5]


def test_equal_content_is_stored_once_and_changed_content_anew() -> None:
    data = federated_data([3, 4])
    first = store(data)
    assert store(replace(data, inputs=data.inputs.copy())) is first
    before = data.inputs.copy()
    data.inputs[0, 0] += 1
    second = store(data)
    assert second is not first
    np.testing.assert_array_equal(read(second.inputs), data.inputs)
    np.testing.assert_array_equal(read(first.inputs), before)  # still held, so still what it was


def test_memory_is_freed_with_the_arrays() -> None:
    arrays = SharedArrays(federated_data([2], features=3), "digest")
    holder = Path(arrays.inputs.path).parent
    files = {os.stat(array.path).st_ino for array in (arrays.inputs, arrays.labels)}
    assert files <= open_files(holder)
    del arrays
    gc.collect()
    deadline = time.monotonic() + 10
    while files & open_files(holder) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not files & open_files(holder)


def test_memory_that_ended_with_its_home_is_made_anew() -> None:
    data = federated_data([3, 2])
    first = store(data)
    relay = home().process
    if relay is None:
        pytest.skip("no namespaces here: examples lie in this process")
    relay.kill()
    relay.wait()
    second = store(data)
    assert second is not first
    np.testing.assert_array_equal(read(second.inputs), data.inputs)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_cannot_read_what_was_stored() -> None:
    arrays = store(federated_data([3, 1]))
    look = (
        "import os, sys\nos.setgroups([])\nos.setgid(65534)\nos.setuid(65534)\n"
        "try: open(sys.argv[1]).read()\nexcept OSError as error: print(type(error).__name__)"
    )
    for array in (arrays.inputs, arrays.labels):
        command = [sys.executable, "-I", "-S", "-c", look, array.path]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.stdout.strip(), done.stderr) == ("PermissionError", "")


def test_too_little_memory_is_reported_in_a_line() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(UserError, match=r"do not fit into memory a second time .* lower dataset\.limit"):
            SharedArrays(federated_data([1 << 16]), "digest")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
