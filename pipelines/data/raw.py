"""Raw files of a published dataset, gzipped or not: from a folder, or from the cache, which downloads fill."""

import gzip
import hashlib
import logging
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.core.errors import UserError
from pipelines.core.paths import cache_folder
from pipelines.data.download import DownloadError, download

GZIP_MAGIC = b"\x1f\x8b"
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RawFile:
    """One file that a dataset's publisher offers.

    Attributes:
      name: its unpacked name; the same name with .gz counts too.
      md5s: of the file as published or as unpacked; a file that matches any of them is genuine.
      urls: to try in this order. In a .zip, the member called `name` is taken.
    """

    name: str
    md5s: frozenset[str]
    urls: tuple[str, ...]


@dataclass(frozen=True)
class Content:
    """What a raw file holds.

    Attributes:
      path: where it was read, for messages.
      data: its unpacked bytes.
      genuine: whether it is the published file, by its checksum.
    """

    path: Path
    data: bytes
    genuine: bool = True


def read_raw(dataset: str, files: Sequence[RawFile], folder: str | None) -> list[Content]:
    """Reads the files of a published dataset, in the order given.

    A file in the user's own `folder` may differ from the published one; a warning says so. A file from the cache or
    the network must be genuine.

    Args:
      dataset: its name, as in dataset=NAME.
      files: what to read.
      folder: dataset.folder; None uses the cache and fills it by download.

    Raises:
      UserError: a file is missing or is damaged gzip; or it is not in the cache and cannot be downloaded.
    """
    if folder is not None:
        return _read_folder(dataset, files, Path(folder).expanduser())
    cache = cache_folder() / dataset
    return [_read_cached(file, cache) or _fetch(dataset, file, files, cache) for file in files]


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; check that it is a file you may read") from None


def _gunzip(path: Path, packed: bytes) -> bytes:
    """Decompresses gzip, which is recognised by its first bytes and not by the file's name."""
    if not packed.startswith(GZIP_MAGIC):
        return packed
    try:
        return gzip.decompress(packed)
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path} is damaged gzip ({error}); replace it with a complete copy") from None


def _find(file: RawFile, folder: Path) -> Path | None:
    return next((path for path in (folder / file.name, folder / f"{file.name}.gz") if path.is_file()), None)


def _genuine(file: RawFile, packed: bytes, data: bytes) -> bool:
    return any(hashlib.md5(version, usedforsecurity=False).hexdigest() in file.md5s for version in (data, packed))


def _read_folder(dataset: str, files: Sequence[RawFile], folder: Path) -> list[Content]:
    found = {file: path for file in files if (path := _find(file, folder)) is not None}
    missing = [file.name for file in files if file not in found]
    if missing:
        raise UserError(
            f"dataset.folder={folder} lacks {', '.join(missing)}; put there the files of {dataset}, gzipped or not, "
            "or drop dataset.folder to download them"
        )
    return [_read_own(dataset, file, path) for file, path in found.items()]


def _read_own(dataset: str, file: RawFile, path: Path) -> Content:
    packed = _read_bytes(path)
    data = _gunzip(path, packed)
    genuine = _genuine(file, packed, data)
    if not genuine:
        logger.warning(
            "%s is not the published file of %s; read as your own data in its format, with settings found good for %s",
            path, dataset, dataset,
        )  # fmt: skip
    return Content(path, data, genuine)


def _read_cached(file: RawFile, cache: Path) -> Content | None:
    """Returns a genuine cached copy, or None; a damaged copy gives None and is fetched again."""
    path = _find(file, cache)
    return None if path is None else _checked(file, path)


def _checked(file: RawFile, path: Path) -> Content | None:
    """Reads a file; returns None if it is not genuine."""
    packed = _read_bytes(path)
    try:
        data = _gunzip(path, packed)
    except UserError:
        return None
    return Content(path, data) if _genuine(file, packed, data) else None


def _fetch(dataset: str, file: RawFile, files: Sequence[RawFile], cache: Path) -> Content:
    stale = _find(file, cache)
    try:
        path = download(file.name, file.urls, cache, lambda path: _checked(file, path) is not None)
    except DownloadError as error:
        note = f" ({stale} fails its checksum)" if stale else ""
        names = ", ".join(f"{other.name}[.gz]" for other in files)
        raise UserError(
            f"dataset={dataset}: {file.name} is not in the cache{note} and could not be downloaded ({error}); "
            f"without a network put the published {names} into {cache}, or into a folder given as dataset.folder=..."
        ) from None
    # The next run could find a damaged copy with the other file name (.gz or not) first.
    if stale is not None and stale != path:
        stale.unlink(missing_ok=True)
    return Content(path, _gunzip(path, _read_bytes(path)))
