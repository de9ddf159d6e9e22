"""Downloads from a server on this machine: verified, mirrored, cached, never half."""

import gzip
import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.core.paths import cache_folder
from pipelines.data.raw import RawFile, read_raw

WORDS = b"a few published words\n" * 50
PACKED = gzip.compress(WORDS, mtime=0)


def _zipped(member: str, data: bytes) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr(member, data)
        writer.writestr("Index", "other")
    return archive.getvalue()


PAGES = {
    "/good/words.gz": PACKED,
    "/tampered/words.gz": gzip.compress(b"other words", mtime=0),
    "/truncated/words.gz": PACKED[:-9],
    "/plain/words": WORDS,
    "/zip/words.zip": _zipped("words", WORDS),
    "/zip/tampered.zip": _zipped("words", b"other words"),
    "/zip/empty.zip": _zipped("letters", WORDS),
    "/zip/corrupt.zip": _zipped("words", WORDS)[:-30],
}


class Server(ThreadingHTTPServer):
    """Serves PAGES and notes what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[str] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        body = PAGES.get(self.path)
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def server(running: Server) -> Server:
    running.requests.clear()
    return running


def _file(server: Server, *paths: str, md5_of: bytes = PACKED) -> RawFile:
    md5 = hashlib.md5(md5_of, usedforsecurity=False).hexdigest()
    return RawFile(name="words", md5s=frozenset({md5}), urls=tuple(server.url(path) for path in paths))


def _read(file: RawFile) -> bytes:
    return read_raw("toy", [file], None)[0].data


def test_a_download_is_unpacked_and_fetched_only_once(server: Server, cache: Path) -> None:
    file = _file(server, "/good/words.gz")
    assert _read(file) == _read(file) == WORDS
    assert server.requests == ["/good/words.gz"]
    assert [path.name for path in (cache / "toy").iterdir()] == ["words.gz"]


@pytest.mark.parametrize("first", ["/absent/words.gz", "/tampered/words.gz", "/truncated/words.gz"])
def test_the_mirror_answers_where_the_first_address_fails(server: Server, cache: Path, first: str) -> None:
    assert _read(_file(server, first, "/good/words.gz")) == WORDS
    assert server.requests == [first, "/good/words.gz"]
    assert (cache / "toy" / "words.gz").read_bytes() == PACKED


def test_a_checksum_of_the_unpacked_content_counts_too(server: Server) -> None:
    assert _read(_file(server, "/good/words.gz", md5_of=WORDS)) == WORDS
    assert _read(_file(server, "/plain/words", md5_of=WORDS)) == WORDS


def test_a_member_of_a_zip_is_taken(server: Server, cache: Path) -> None:
    assert _read(_file(server, "/zip/words.zip", md5_of=WORDS)) == WORDS
    assert [path.name for path in (cache / "toy").iterdir()] == ["words"]


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/absent/words.gz", "HTTP 404"),
        ("/tampered/words.gz", "wrong checksum"),
        ("/truncated/words.gz", "wrong checksum"),
        ("/zip/tampered.zip", "wrong checksum"),
        ("/zip/empty.zip", "ValueError"),
        ("/zip/corrupt.zip", "BadZipFile"),
    ],
)
def test_nothing_that_fails_enters_the_cache(server: Server, cache: Path, path: str, reason: str) -> None:
    with pytest.raises(UserError, match=rf"words is not in the cache and could not be downloaded \(.*: {reason}\)"):
        _read(_file(server, path))
    assert list((cache / "toy").iterdir()) == []


@pytest.mark.parametrize(("name", "damaged"), [("words.gz", PACKED[:-5]), ("words", b"cut"), ("words.gz", b"")])
def test_a_damaged_cache_heals_itself(server: Server, cache: Path, name: str, damaged: bytes) -> None:
    (cache / "toy").mkdir(parents=True)
    (cache / "toy" / name).write_bytes(damaged)
    file = _file(server, "/good/words.gz")
    assert _read(file) == _read(file) == WORDS
    assert server.requests == ["/good/words.gz"]


def test_a_damaged_cache_is_named_where_no_address_answers(server: Server, cache: Path) -> None:
    (cache / "toy").mkdir(parents=True)
    (cache / "toy" / "words.gz").write_bytes(PACKED[:-5])
    with pytest.raises(UserError, match=r"words is not in the cache \(.*words\.gz fails its checksum\)"):
        _read(_file(server, "/absent/words.gz"))


def test_a_file_put_into_the_cache_by_hand_is_used(server: Server, cache: Path) -> None:
    (cache / "toy").mkdir(parents=True)
    (cache / "toy" / "words.gz").write_bytes(gzip.compress(WORDS, compresslevel=1, mtime=7))
    assert _read(_file(server, "/absent", md5_of=WORDS)) == WORDS
    assert server.requests == []


def test_an_address_outside_this_machine_is_out_of_reach(server: Server) -> None:
    file = RawFile(name="words", md5s=frozenset(), urls=("https://example.invalid/words.gz",))
    with pytest.raises(UserError, match=r"example\.invalid: ProxyError"):
        _read(file)


def test_a_cache_that_cannot_be_written_is_named(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("PIPELINES_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be written: Not a directory; set PIPELINES_CACHE"):
        _read(_file(server, "/good/words.gz"))


def test_an_empty_cache_variable_means_the_systems_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINES_CACHE", "")
    assert cache_folder().name == "privacy-pipelines"
    monkeypatch.setenv("PIPELINES_CACHE", "~/somewhere")
    assert cache_folder() == Path.home() / "somewhere"


def test_downloads_are_silent_off_a_terminal(server: Server, capfd: pytest.CaptureFixture[str]) -> None:
    _read(_file(server, "/good/words.gz"))
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_holds_something_unreadable_is_named(tmp_path: Path, server: Server) -> None:
    with pytest.raises(UserError, match=r"absent lacks words; put there the files of toy"):
        read_raw("toy", [_file(server, "/good/words.gz")], str(tmp_path / "absent"))
