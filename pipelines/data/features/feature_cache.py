"""Arrays on disk that are computed once, in parts; an interrupted computation continues where it stopped."""

import fcntl
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedRandom
from math import prod
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from tqdm import tqdm

from pipelines.core.errors import UserError
from pipelines.core.paths import make_private

Floats = NDArray[np.float32]
PART = 500
"""Examples that a thread computes at a time; bounds the memory."""


def cached_features(
    path: Path, inputs: Floats, compute: Callable[[Floats], Floats], shape: tuple[int, ...], *, threads: int, title: str
) -> Floats:
    """Returns the features of all inputs from the disk, after computing the missing ones.

    Args:
      path: of the array, ending in .npy; its name must differ for other inputs or parameters.
      inputs: shape (n, ...).
      compute: maps inputs, shape (m, ...), to features, shape (m, *shape), example by example; called by threads.
      shape: of one example's features.
      threads: number that compute at the same time.
      title: of the progress bar.

    Returns:
      Shape (n, *shape), mapped from the file. It takes memory only where it is read; the file stays unchanged.

    Raises:
      UserError: the folder is not writable or full.
    """
    try:
        if not path.exists():
            make_private(path.parent)
            with _alone(path.with_suffix(".part")) as file:
                if not path.exists():  # another process may have been faster
                    _complete(file, inputs, compute, shape, threads, title)
                    Path(file.name).replace(path)
        return np.load(path, mmap_mode="c")
    except OSError as error:
        raise UserError(
            f"features cannot be kept in {path.parent} ({error.strerror or error}); set PIPELINES_CACHE to a folder "
            f"with {4 * len(inputs) * prod(shape) / 2**20:.0f} MiB of space"
        ) from None


@contextmanager
def _alone(path: Path) -> Iterator[BufferedRandom]:
    """Opens a file for one process at a time; the lock ends when the file is closed, or when the process dies."""
    path.touch(mode=0o600)  # these are private data in another form
    with path.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def _complete(
    file: BufferedRandom,
    inputs: Floats,
    compute: Callable[[Floats], Floats],
    shape: tuple[int, ...],
    threads: int,
    title: str,
) -> None:
    with ThreadPoolExecutor(threads) as pool:
        done = _resume(file, (len(inputs), *shape))
        with tqdm(total=len(inputs), initial=done, desc=title, unit=" examples", leave=False, disable=None) as bar:
            for at in range(done, len(inputs), PART * threads):
                end = min(at + PART * threads, len(inputs))
                for part in pool.map(compute, (inputs[i : min(i + PART, end)] for i in range(at, end, PART))):
                    file.write(np.ascontiguousarray(part, np.float32).data)
                bar.update(end - at)
    file.flush()


def _resume(file: BufferedRandom, shape: tuple[int, ...]) -> int:
    """Moves to the end of the last complete example and returns the number of examples; writes a missing header."""
    file.seek(0)
    npy.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    start, example = file.tell(), 4 * prod(shape[1:])
    done = max(file.seek(0, 2) - start, 0) // example
    file.truncate(start + done * example)
    file.seek(start + done * example)
    return done
