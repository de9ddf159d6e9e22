"""Named random streams: one public seed, or the operating system's entropy where privacy depends on it."""

import zlib

import numpy as np


def public_stream(seed: int, name: str) -> np.random.Generator:
    """Returns the stream of draws called `name` under a public seed.

    Streams of different names are independent, so that adding a draw to one never shifts another.

    Args:
      seed: the run's public seed, >= 0.
      name: what the draws are for, such as "partition" or "initial_weights".
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()),)))


def private_stream(noise_seed: int | None, name: str) -> np.random.Generator:
    """Returns a stream that the guarantee rests on: sampling or noise.

    Args:
      noise_seed: None draws fresh entropy from the operating system, which is never logged. A number makes the
        run reproducible and void of privacy against whoever knows it ("simulated").
      name: what the draws are for.
    """
    return np.random.default_rng() if noise_seed is None else public_stream(noise_seed, name)
