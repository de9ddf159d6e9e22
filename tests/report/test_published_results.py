"""What others published: read, checked, and accounted as our own runs are."""

from pathlib import Path

import pytest

from pipelines.core.errors import UserError
from pipelines.core.paths import REPOSITORY
from pipelines.privacy.accounting.epsilon import composed_epsilon
from pipelines.privacy.mechanisms.base import Composition
from pipelines.report.published_results import PublishedPoint, read_published, read_references

FILES = sorted((REPOSITORY / "experiments").glob("*/published.yaml"))
POINT = """\
points:
  - {source: A 2020, method: m, url: "https://a.b", unit: example, epsilon: 3, delta: 1.0e-5, accuracy: 0.9, note: n}
"""
REFERENCE = "references: [{label: trees, accuracy: 0.9, command: python a.py, unit: example}]"


def gaussian(sigma: float, steps: int, q: float = 1.0) -> Composition:
    return Composition(noise_multiplier=sigma, sampling_probability=q, steps=steps)


def test_gaussians_compose_into_one() -> None:
    # Precisions add: 1/2 + 1/4 + 1/4 = 1, a Gaussian of mu = 1, whose epsilon at 1e-5 is 4.377178 in closed form.
    assert composed_epsilon([gaussian(2**0.5, 1), gaussian(2.0, 2)], 1e-5) == pytest.approx(4.377178, abs=1e-3)
    subsampled = gaussian(3.04, 560, 4096 / 60_000)
    assert composed_epsilon([subsampled], 1e-5) == pytest.approx(2.2539, abs=1e-3)
    assert composed_epsilon([subsampled, gaussian(8.0, 2)], 1e-5) > composed_epsilon([subsampled], 1e-5)


def test_a_published_mechanism_is_recomputed_on_our_axis() -> None:
    (scattering, papernot, *_) = read_published(REPOSITORY / "experiments" / "mnist_example_level")
    assert scattering.epsilon_of_training == pytest.approx(2.2539, abs=1e-3)
    assert scattering.epsilon_here == pytest.approx(2.3755, abs=1e-3)
    assert (papernot.epsilon_here, papernot.epsilon_of_training) == (None, None)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_committed_points_were_published_with_looser_accountants_than_ours(path: Path) -> None:
    for point in read_published(path.parent):
        assert point.epsilon_here is None or point.epsilon_here < point.epsilon, point.label


def test_a_recipe_without_the_file_has_none(tmp_path: Path) -> None:
    assert read_published(tmp_path) == ()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("accuracy: 0.9", "accuracy: 90", "points.0.accuracy=90"),
        ("https:", "ftp:", "points.0.url='ftp://a.b'"),
        ("unit: example", "unit: household", "points.0.unit='household'"),
        (", note: n", "", "points.0.note="),
        ("note: n", "note: n, epsilon_here: 2", "points.0.epsilon_here=2"),
        ("note: n", "note: n, stages: [{sample: 1, noise_multiplier: 1, steps: 1}]", "stages need a population"),
        (
            "note: n",
            "note: n, population: 10, stages: [{sample: 11, noise_multiplier: 1, steps: 1}]",
            "a sample exceeds population=10",
        ),
        (
            "note: n",
            "note: n, population: 100000, stages: [{sample: 11, noise_multiplier: 1, steps: 1}]",
            "delta=1e-05 is too large for population=100000",
        ),
        ("points:", "points: [", "is no YAML"),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in POINT
    (tmp_path / "published.yaml").write_text(POINT.replace(old, new))
    with pytest.raises(UserError) as caught:
        read_published(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_references_need_no_points(tmp_path: Path) -> None:
    assert read_references(tmp_path) == ()
    (tmp_path / "published.yaml").write_text(REFERENCE)
    (trees,) = read_references(tmp_path)
    assert (trees.label, trees.accuracy, trees.command, trees.unit) == ("trees", 0.9, "python a.py", "example")
    assert read_published(tmp_path) == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (REFERENCE.replace("0.9", "90"), "references.0.accuracy=90"),
        ("references: []", "neither points nor references"),
    ],
)
def test_a_bad_reference_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "published.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        read_references(tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_label_says_where_the_data_differ() -> None:
    point = PublishedPoint(
        source="A 2020", method="m", url="https://a.b", unit="user", note="n", epsilon=2, delta=1e-5, accuracy=0.8,
        other_data="EMNIST",
    )  # fmt: skip
    assert point.label == "A 2020, m, on EMNIST"
