"""Recognises a file that is no archive of numpy.savez, and says how to convert it."""

import zipfile
from pathlib import Path

SAVE = "then save its arrays with numpy.savez"
MAGIC = (
    (b"PAR1", "a Parquet table", f"read it with pandas.read_parquet, {SAVE}"),
    (b"\x89HDF", "an HDF5 file", f"read it with h5py, {SAVE}"),
    (b"MATLAB", "a MATLAB file", f"read it with scipy.io.loadmat, {SAVE}"),
    (b"SQLite format 3", "an SQLite database", f"read it with pandas.read_sql, {SAVE}"),
    (b"ARROW1", "an Arrow table", f"read it with pandas.read_feather, {SAVE}"),
    (b"\x89PNG", "a picture", "read all pictures into arrays, then save these with numpy.savez"),
    (b"\xff\xd8\xff", "a picture", "read all pictures into arrays, then save these with numpy.savez"),
    (b"\x1f\x8b", "gzip", "unpack it with gunzip"),
    (b"%PDF", "a PDF", "give an .npz archive"),
)
INSIDE = (
    ("xl/", "an Excel workbook", f"read it with pandas.read_excel, {SAVE}"),
    ("data.pkl", "a PyTorch file", f"read it with torch.load where you trust it, {SAVE}"),
)
PICKLE = f"load it with pickle where you trust it, {SAVE}"


def describe(path: Path) -> str | None:
    """One phrase about a file that is no archive of arrays; None if its kind is unknown."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return None
    for magic, kind, remedy in MAGIC:
        if head.startswith(magic):
            return f"it is {kind}; {remedy}"
    if head.startswith(b"PK\x03\x04"):
        return _of_zip(path)
    if len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5:
        return f"it is a pickle, which could run code; {PICKLE}"
    return _of_text(head)


def _of_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, zipfile.BadZipFile, NotImplementedError):  # the last: of a version that no zip has
        return None
    for part, kind, remedy in INSIDE:
        if any(part in name for name in names):
            return f"it is {kind}; {remedy}"
    if any(name.endswith(".npy") for name in names):
        return None
    return f"it is a zip archive without arrays; unpack it, {SAVE}"


def _of_text(head: bytes) -> str | None:
    try:
        text = head[:-4].decode() if len(head) == 4096 else head.decode()
    except UnicodeDecodeError:
        return None
    lines = text.splitlines()
    if not lines or not all(character.isprintable() or character in "\t\r\n\ufeff" for character in text):
        return None
    if lines[0].lstrip().startswith(("{", "[")):
        return f"it is JSON; read it with json.load, {SAVE}"
    if lines[0].lstrip().startswith(("<", "@")):
        return f"it is text of another format; convert it, {SAVE}"
    if any(mark in lines[0] for mark in ",;\t"):
        return f"it is a CSV table; read it with pandas.read_csv, {SAVE}"
    return f"it is text; read it with numpy.loadtxt, {SAVE}"
