"""Downloads with mirrors; a file enters the cache after its check only."""

import logging
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from pipelines.core.errors import UserError
from pipelines.core.paths import make_private

TIMEOUT_S = 20
CHUNK_BYTES = 65536
logger = logging.getLogger(__name__)


class DownloadError(Exception):
    """No address gave the file; the message has the answer of each address in a few words."""


def download(name: str, urls: Sequence[str], cache: Path, genuine: Callable[[Path], bool]) -> Path:
    """Fetches a file from the first address that has it.

    The file is written to a temporary folder and moves into the cache after its check. An interrupted or tampered
    download therefore leaves nothing behind, and two runs at once cannot see each other's partial files.

    Args:
      name: the file's unpacked name; in a .zip, the member of this name is taken.
      urls: to try in this order.
      cache: an existing or new folder.
      genuine: whether a fetched file is the published one.

    Returns:
      The file's path in the cache.

    Raises:
      DownloadError: every address failed.
      UserError: the cache cannot be written.
    """
    failures = []
    with _staging(cache) as staging:
        for number, url in enumerate(urls):
            logger.info("downloading %s", url)
            try:
                # One folder for each address: pooch would take a rejected file for a finished download.
                fetched = _retrieve(url, name, Path(staging, str(number)))
            except (OSError, ValueError, zipfile.BadZipFile) as error:
                failures.append(f"{urlsplit(url).netloc}: {_in_words(error)}")
                continue
            if genuine(fetched):
                return fetched.replace(cache / fetched.name)
            failures.append(f"{urlsplit(url).netloc}: wrong checksum")
    raise DownloadError("; ".join(failures))


def _staging(cache: Path) -> tempfile.TemporaryDirectory[str]:
    try:
        make_private(cache)
        return tempfile.TemporaryDirectory(dir=cache, prefix=".download-")
    except OSError as error:
        raise UserError(
            f"the cache {cache} cannot be written: {error.strerror}; set PIPELINES_CACHE to a folder that can"
        ) from None


def _retrieve(url: str, name: str, staging: Path) -> Path:
    """Fetches one address with pooch, and unzips it where it is an archive."""
    import pooch

    # Pooch logs at INFO, directly to stderr; our own line above says the same once.
    pooch.get_logger().setLevel(logging.ERROR)
    published = PurePosixPath(urlsplit(url).path).name
    zipped = published.endswith(".zip")
    fetched = pooch.retrieve(
        url,
        known_hash=None,  # The caller checks: a published checksum can be of the archive or of its contents.
        fname=published,
        path=staging,
        processor=pooch.Unzip(members=[name]) if zipped else None,
        downloader=pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=CHUNK_BYTES, timeout=TIMEOUT_S),
    )
    if not fetched:
        raise ValueError(f"{published} has no member {name}")
    return Path(fetched[0] if zipped else fetched)


def _in_words(error: Exception) -> str:
    """The HTTP status or the error's type: the messages of requests hold whole URLs and object addresses."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP {status}" if status is not None else type(error).__name__
