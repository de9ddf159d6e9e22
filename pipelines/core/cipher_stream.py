"""Random numbers from a cipher: all draws but one tell nothing about the last one.

The generators of numpy are made for statistics. The state of PCG64, the default one, has been recovered from part of
its output (Bouillaguet, Martinez and Sauvage 2020, ToSC 2020(3)). With the state, an attacker can subtract the noise
from a model. Here the bits are AES-256 in counter mode, and each stream has its own key.
"""

import os
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import DTypeLike, NDArray
from scipy.special import ndtri

KEY_BYTES = 32
CHUNK = 8192
"""Draws that are computed at a time, so that the intermediate arrays stay in cache."""
FAR = 2**24
"""Words below this are more than 7 standard deviations out: one draw in 2^39."""
Size = int | tuple[int, ...]
Words = NDArray[np.uint64]


class CipherStream(np.random.Generator):
    """A numpy Generator with only the methods that private runs need; all other methods refuse.

    Attributes:
      key: the cipher's key, 32 bytes; equal keys give equal streams.
    """

    def __init__(self, key: bytes) -> None:
        super().__init__(np.random.PCG64(0))  # nothing draws from it
        self.key = key
        self._cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        self._owner = os.getpid()

    def bytes(self, length: int) -> bytes:
        """Returns the next bytes of the cipher.

        Raises:
          RuntimeError: in a forked process, which would draw the same bytes as its parent.
        """
        if self._owner != os.getpid():
            raise RuntimeError("a private stream was forked: both processes would draw the same; make one in each")
        return self._cipher.update(bytes(length))

    def random(self, size: Size = ()) -> Any:  # type: ignore[override]
        """Uniform on the multiples of 2^-53 in [0, 1)."""
        return self._filled(size, np.float64, lambda words: (words >> np.uint64(11)) * 2.0**-53)

    def standard_normal(self, size: Size = (), dtype: DTypeLike = np.float64) -> Any:  # type: ignore[override]
        """Normal by the inverse distribution function: 63 bits for the tail probability, one bit for the sign.

        Beyond 7 standard deviations, 53 more bits refine the value. The largest possible value is about 12.5.
        """
        return self._filled(size, dtype, self._normal)

    def permutation(self, x: int | NDArray[Any]) -> NDArray[Any]:  # type: ignore[override]
        """Shuffles the numbers below x, or the rows of x: one 64-bit draw each gives their order."""
        items = np.arange(x) if isinstance(x, int | np.integer) else x
        return items[self._words(len(items)).argsort()]

    def _words(self, count: int) -> Words:
        return np.frombuffer(self.bytes(8 * count), np.uint64)

    def _filled(self, size: Size, dtype: DTypeLike, draw: Callable[[Words], Any]) -> Any:
        found = np.empty(size, dtype)
        flat = found.reshape(-1)
        for start in range(0, flat.size, CHUNK):
            part = flat[start : start + CHUNK]
            part[:] = draw(self._words(len(part)))
        return found[()]

    def _normal(self, words: Words) -> NDArray[np.float64]:
        sides = words.view(np.int64)
        whole = sides ^ (sides >> 63)  # from 0 to 2^63, the same for both signs
        tails = whole + 0.5
        far = whole < FAR
        if far.any():  # this far out multiples of 2^-64 are coarse: a second word places the value between two of them
            tails[far] = whole[far] + (self._words(int(far.sum())) >> np.uint64(11)) * 2.0**-53 + 2.0**-54
        tails *= 2.0**-64
        return np.asarray(np.copysign(ndtri(tails), sides))


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise TypeError("a private stream has bytes, random, standard_normal and permutation only, all from its cipher")


for _name in set(dir(np.random.Generator)) - set(vars(CipherStream)):
    if not _name.startswith("_"):
        setattr(CipherStream, _name, _refuse)
for _name in ("__reduce__", "__reduce_ex__", "__copy__", "__deepcopy__"):  # a copy would draw from PCG64
    setattr(CipherStream, _name, _refuse)
