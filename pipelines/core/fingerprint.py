"""Fingerprints of the user's own data: only on this machine do they show that two datasets are equal.

A plain hash of private data confirms a correct guess of the data. An attacker who knows all rows but one can test
guesses of that row. With a key that stays on this machine, the hash confirms nothing to others. Public data, such as
MNIST, keep the plain hash, so that records of several machines can be compared.
"""

import hmac
import os
import secrets
from contextlib import suppress
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.paths import cache_folder

KEY_BYTES = 32


def keyed(plain: str) -> str:
    """HMAC-SHA256 of a plain fingerprint under this machine's key, in hexadecimal.

    Args:
      plain: the plain fingerprint of the content.

    Raises:
      UserError: others can read or change the key.
    """
    return hmac.new(_key(key_file()), plain.encode(), sha256).hexdigest()


def key_file() -> Path:
    """Returns the path of this user's key: each user of a shared cache has their own."""
    return cache_folder() / "keys" / f"fingerprint-{os.getuid()}.key"


@lru_cache(maxsize=4)
def _key(path: Path) -> bytes:
    """Reads the key, or makes one. If it cannot be saved, the key is for this process alone."""
    try:
        if not path.exists():
            _make(path)
        state = path.stat()
        key = path.read_bytes()
    except OSError:
        return secrets.token_bytes(KEY_BYTES)
    if state.st_mode & 0o077 or state.st_uid != os.getuid() or len(key) != KEY_BYTES:
        raise UserError(f"{path} is not a key that only you can read; delete it, and a new one is made")
    return key


def _make(path: Path) -> None:
    """Writes a new key atomically. If several processes do so, the first key stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
