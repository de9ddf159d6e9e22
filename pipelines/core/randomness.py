"""Named random streams: one public seed, or the operating system's entropy where privacy depends on it."""

import hashlib
import os
import zlib

import numpy as np

from pipelines.core.errors import GuaranteeError


def public_stream(seed: int, name: str) -> np.random.Generator:
    """Returns the stream of draws called `name` under a public seed.

    Streams of different names are independent, so that adding a draw to one never shifts another.

    Args:
      seed: the run's public seed, >= 0.
      name: what the draws are for, such as "partition" or "initial_weights".
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(zlib.crc32(name.encode()),)))


def private_stream(noise_seed: int | None, name: str) -> np.random.Generator:
    """Returns a stream for sampling or noise, on which the guarantee depends: a cipher with its own key.

    Args:
      noise_seed: None draws the key from the operating system's entropy; it is never logged. A number makes the run
        reproducible ("simulated"): it has no privacy against an attacker who knows the number.
      name: what the draws are for.
    """
    from pipelines.core.cipher_stream import KEY_BYTES, CipherStream  # late: only private runs need it

    if noise_seed is None:
        return CipherStream(os.urandom(KEY_BYTES))
    return CipherStream(hashlib.sha256(f"privacy-pipelines noise_seed={noise_seed} {name}".encode()).digest())


def private_streams(noise_seed: int | None, *names: str) -> list[np.random.Generator]:
    """Returns the private streams of a run, one for each name, and compares them before their first draw.

    Raises:
      GuaranteeError: two streams are in the same state, so that the noise would repeat the sampler's draws and reveal
        the sample; or a stream without a seed can be drawn again, so that anyone could repeat it.
    """
    streams = [private_stream(noise_seed, name) for name in names]
    states = [_state(stream) for stream in streams]
    if len(set(states)) < len(states):
        raise GuaranteeError("sampling and noise draw the same random numbers: the epsilon would be false")
    if noise_seed is None and not set(states).isdisjoint(_state(private_stream(None, name)) for name in names):
        raise GuaranteeError("sampling or noise can be drawn again without a seed: the epsilon would be false")
    return streams


def _state(stream: np.random.Generator) -> str:
    key = getattr(stream, "key", None)
    return str(stream.bit_generator.state) if key is None else hashlib.sha256(key).hexdigest()
