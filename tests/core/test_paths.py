"""What the program keeps on disk, and who can get at it."""

import os
import stat
from pathlib import Path

import pytest

from pipelines.core.paths import foreign_hand, make_private

OTHER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture(autouse=True)
def usual_mask() -> object:
    before = os.umask(0o002)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_folders_are_private_and_old_ones_keep_their_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_private(tmp_path / "a" / "b")
    assert [mode(path) for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")] == [0o755, 0o700, 0o700]
    (tmp_path / "a").chmod(0o750)
    make_private(tmp_path / "a" / "b")
    assert mode(tmp_path / "a") == 0o750


def test_writers_of_a_file_or_its_folders_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "above" / "folder"
    make_private(folder)
    file = folder / "file"
    file.touch(mode=0o600)
    assert foreign_hand(file) is None
    for place in (file, folder, folder.parent):
        before = mode(place)
        place.chmod(before | stat.S_IWGRP)
        assert str(place) in str(foreign_hand(file))
        place.chmod(before)
    folder.parent.chmod(0o1777)  # as /tmp
    assert foreign_hand(file) is None
    folder.chmod(0o1777)  # sticky keeps old files from being replaced, not new ones from being put there
    assert str(folder) in str(foreign_hand(folder))


@as_root
def test_another_owner_is_found_through_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.touch(mode=0o600)
    (tmp_path / "link").symlink_to(real)
    assert foreign_hand(tmp_path / "link") is None
    os.chown(real, OTHER, OTHER)
    assert str(OTHER) in str(foreign_hand(tmp_path / "link"))
