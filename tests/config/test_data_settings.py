"""What datasets are called where their runs are kept."""

import pytest

from pipelines.config.data_settings import title, titles


@pytest.mark.parametrize(
    ("names", "files", "expected"),
    [
        (["digits"], [None], "digits"),
        (["npz"], ["/a/mine.npz"], "mine"),
        (["digits", "mnist"], [None], "digits+mnist"),
        (["digits", "npz"], ["mine.npz"], "digits+mine"),
        (["npz"], ["/a/x.npz", "/b/x.npz", "/b/y.npz"], "a-x+b-x+y"),
        (["npz"], [f"{number}.npz" for number in range(9)], "0+1+2+6more"),
    ],
)
def test_a_sweep_is_called_after_all_of_its_data(names: list[str], files: list[str | None], expected: str) -> None:
    assert titles(names, files) == expected


def test_a_file_is_called_as_its_runs_are() -> None:
    assert title("npz", "~/folder/my.data.npz") == "my.data"
    assert title("mnist", None) == "mnist"
