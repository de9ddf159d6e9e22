"""Which file an sqlite address names, and the address of a file; `python -m pipelines.tracking.address URI` prints it.

MLflow and SQLAlchemy read what follows sqlite:/// as part of a URL: %41 means A there, and ? begins options. A path
that a person types, or that a folder happens to have, is no URL. Here one becomes the other, in one place.
"""

import re
import sys
from pathlib import Path
from urllib.parse import unquote

from pipelines.core.errors import UserError
from pipelines.core.paths import REPOSITORY

SQLITE = "sqlite:///"
DATABASE = "mlflow.db"
"""The file in the repository that null stands for."""
URI_HELP = f"tracking store, as tracking.uri (default: {DATABASE} in the repository)"
SERVERS = ("http://", "https://", "postgresql", "mysql", "mssql", "databricks")


def resolve_uri(uri: str | None) -> str:
    """Makes `tracking.uri` absolute, and such that MLflow finds the same file; None is the repository's mlflow.db.

    A relative sqlite path counts from the working directory, as a path typed in a shell does. What follows sqlite:///
    is taken as it is written; only where that is not there, and what it decodes to is, it is read as a URL.

    Raises:
      UserError: neither a database in a file nor a server, such as a plain folder.
    """
    if uri is None:
        return address_of(REPOSITORY / DATABASE)
    if uri.startswith(SQLITE) and len(uri) > len(SQLITE):
        return address_of(_typed(uri))
    if uri.startswith(SERVERS):
        return uri.rstrip("/")
    raise UserError(
        f"tracking.uri={uri} is no database or server; use sqlite:///folder/runs.db, http://127.0.0.1:5000 or null"
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
        raise UserError(f"tracking.uri={uri!r} is no path that MLflow can open; choose another")
    path, decoded = (Path(item).expanduser().absolute() for item in (text, unquote(text)))
    if decoded != path and not path.exists() and (decoded.exists() or _is_nearer(decoded, path)):
        path = decoded
    if re.search(r"\?[\w.]+=[^/]*$", text) and not path.exists():
        raise UserError(f"tracking.uri={uri}: options after ? are not supported; drop them")
    return path


def _is_nearer(one: Path, other: Path) -> bool:
    """Whether the folder of one path is there, and that of the other is not."""
    return one.parent.is_dir() and not other.parent.is_dir()


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


if __name__ == "__main__":
    print(resolve_uri(sys.argv[1] if sys.argv[1:] else None))
