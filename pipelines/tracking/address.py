"""Converts sqlite addresses to files and back; `python -m pipelines.tracking.address URI` prints the full address.

MLflow and SQLAlchemy read the text after sqlite:/// as part of a URL: %41 means A, and ? begins options. But users
type plain paths, and a path is not a URL. Only this module converts one into the other.
"""

import re
import sys
from pathlib import Path
from urllib.parse import unquote

from pipelines.core.errors import UserError
from pipelines.core.paths import REPOSITORY

SQLITE = "sqlite:///"
DATABASE = "mlflow.db"
"""The file in the repository for tracking.uri=null."""
URI_HELP = f"tracking store, as tracking.uri (default: {DATABASE} in the repository)"
SERVERS = ("http://", "https://", "postgresql", "mysql", "mssql", "databricks")


def resolve_uri(uri: str | None) -> str:
    """Makes `tracking.uri` absolute and encodes it for MLflow; None is the repository's mlflow.db.

    A relative sqlite path counts from the working directory, as in a shell. The text after sqlite:/// is a plain path.
    It is decoded like a URL only if the plain path does not exist, and the decoded path or only its folder does.

    Raises:
      UserError: the address is neither a database in a file nor a server; a plain folder, for example.
    """
    if uri is None:
        return address_of(REPOSITORY / DATABASE)
    if uri.startswith(SQLITE) and len(uri) > len(SQLITE):
        return address_of(_typed(uri))
    if uri.startswith(SERVERS):
        return uri.rstrip("/")
    raise UserError(
        f"tracking.uri={uri} is not a database or server; use sqlite:///folder/runs.db, http://127.0.0.1:5000 or null"
    )


def address_of(database: Path) -> str:
    """The URL by which MLflow and SQLAlchemy find exactly this file."""
    return f"{SQLITE}{database}".replace("%", "%25").replace("?", "%3F")


def database_of(uri: str) -> Path | None:
    """The file behind an address that `resolve_uri` returned; None for a server."""
    return Path(unquote(uri.removeprefix(SQLITE))) if uri.startswith(SQLITE) else None


def _typed(uri: str) -> Path:
    text = uri.removeprefix(SQLITE)
    if text == ":memory:":
        raise UserError(f"tracking.uri={uri} would be gone when the run ends; use a file: sqlite:///folder/runs.db")
    if text.endswith("/"):
        raise UserError(f"tracking.uri={uri} names a folder; add a file: {uri}runs.db")
    if "\0" in text or not _is_utf8(text):
        raise UserError(f"tracking.uri={uri!r} is not a path that MLflow can open; choose another path")
    path, decoded = (Path(item).expanduser().absolute() for item in (text, unquote(text)))
    if decoded != path and not path.exists() and (decoded.exists() or _is_nearer(decoded, path)):
        path = decoded
    if re.search(r"\?[\w.]+=[^/]*$", text) and not path.exists():
        raise UserError(f"tracking.uri={uri}: options after ? are not supported; drop them")
    return path


def _is_nearer(one: Path, other: Path) -> bool:
    """Whether the folder of `one` exists and the folder of `other` does not."""
    return one.parent.is_dir() and not other.parent.is_dir()


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


if __name__ == "__main__":
    print(resolve_uri(sys.argv[1] if sys.argv[1:] else None))
