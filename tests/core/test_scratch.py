"""What a sweep writes beside its runs."""

import getpass
import os
from pathlib import Path

from tests.conftest import start


def test_cleaning_follows_no_link_in_the_temporary_folder(tmp_path: Path) -> None:
    temporary, precious = tmp_path / "tmp", tmp_path / "precious"
    temporary.mkdir()
    precious.mkdir()
    (precious / "multirun.yaml").write_text("mine")
    for name in {"user", getpass.getuser(), os.environ.get("USER", "user")}:
        (temporary / f"privacy-pipelines-{name}").symlink_to(precious)
    links = set(temporary.iterdir())
    with start(
        "-m", "pipeline=sgd", "seed=0,1", "pipeline.epochs=1", "evaluations=1", "tracking.log_model=false",
        uri=f"sqlite:///{tmp_path / 'runs.db'}", env=os.environ | {"TMPDIR": str(temporary)}, cwd=tmp_path,
    ) as process:  # fmt: skip
        _, err = process.communicate(timeout=200)
    assert (process.returncode, err) == (0, "")
    assert (precious / "multirun.yaml").read_text() == "mine"
    left = {path for path in temporary.iterdir() if path.name.startswith("privacy-pipelines")}
    assert left == links
