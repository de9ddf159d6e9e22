"""Both engines get the same features, and a run says on what it was trained."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config.data_settings import NoFeatures, ScatteringConfig
from pipelines.config.schema import Config, parse
from pipelines.core.errors import UserError
from pipelines.data.digits import load_digits
from pipelines.data.features import apply as build
from pipelines.data.features.apply import with_features
from pipelines.data.features.fourier import RandomFourier
from pipelines.data.features.scattering import Scattering
from pipelines.data.split import Split
from pipelines.runs import prepare as job
from pipelines.runs.prepare import prepare
from tests.config.test_schema import composed

SCATTERING: dict[str, Any] = {"name": "scattering", "scales": 2, "angles": 8, "groups": 27}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINES_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "_latest", {})


def config(pipeline: str, **changes: Any) -> Config:
    values = composed(f"pipeline={pipeline}", "features=scattering", "privacy.noise_multiplier=1")
    return parse(values | changes)


def test_both_engines_train_on_the_same_features() -> None:
    central, federated = (prepare(config(pipeline), threads=1) for pipeline in ("sgd", "fed_avg"))
    assert central.dataset is federated.dataset
    assert central.spec == federated.spec
    assert central.dataset.features == (2, 2, 81)
    raw = load_digits()
    expected = Scattering((8, 8, 1), scales=2, angles=8, groups=27)(raw.train.inputs)
    assert np.allclose(central.dataset.train.inputs, expected, atol=1e-6)
    assert np.array_equal(central.dataset.train.labels, raw.train.labels)
    assert len(central.dataset.test) == len(raw.test)


def test_the_fingerprint_tells_data_and_parameters_apart() -> None:
    raw = load_digits()
    fewer = replace(raw, train=Split(raw.train.inputs[:50], raw.train.labels[:50]), name="digits")
    found = {
        with_features(dataset, ScatteringConfig(**SCATTERING | changes), threads=1).fingerprint
        for dataset, changes in (
            (raw, {}), (raw, {"groups": None}), (raw, {"angles": 4, "groups": 5}), (fewer, {}),
            (raw, {"rotations": [-9, 9]}), (raw, {"fourier": 8, "bandwidth": 1}),
        )
    }  # fmt: skip
    assert len(found | {raw.fingerprint}) == 7


def test_a_kernel_stands_on_scattering() -> None:
    dataset = with_features(load_digits(), ScatteringConfig(**SCATTERING, fourier=32, bandwidth=0.5), threads=1)
    scattered = Scattering((8, 8, 1), scales=2, angles=8, groups=27)(load_digits().test.inputs)
    expected = RandomFourier((2, 2, 81), count=32, bandwidth=0.5)(scattered)
    assert np.allclose(dataset.test.inputs, expected, atol=1e-4)


def test_half_a_kernel_is_one_clear_line() -> None:
    with pytest.raises(UserError, match=r"features\.fourier=None and features\.bandwidth=2\.0 go together"):
        parse(composed("features=scattering", "features.bandwidth=2"))


def test_features_are_the_same_from_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    first = with_features(load_digits(), ScatteringConfig(**SCATTERING), threads=1)
    monkeypatch.setattr(build, "_latest", {})
    again = with_features(load_digits(), ScatteringConfig(**SCATTERING), threads=1)
    assert again is not first
    assert again.fingerprint == first.fingerprint
    assert np.array_equal(again.test.inputs, first.test.inputs)


def test_without_features_the_dataset_stays() -> None:
    raw = load_digits()
    assert with_features(raw, NoFeatures(), threads=1) is raw


def test_test_images_among_training_images_are_found_before_features(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw = load_digits()
    monkeypatch.setattr(job, "load_dataset", lambda _: replace(raw, test=raw.train))
    with pytest.raises(UserError, match="test examples are training examples too"):
        prepare(config("sgd"), threads=1)
