"""A dataset with the configured features in place of its inputs."""

import hashlib
from dataclasses import replace
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from pipelines.config.data_settings import BinsConfig, NoFeatures, ScatteringConfig
from pipelines.core.paths import cache_folder
from pipelines.data.dataset import Dataset
from pipelines.data.features.bins import Bins
from pipelines.data.features.feature_cache import cached_features
from pipelines.data.features.fourier import RandomFourier
from pipelines.data.features.scattering import Scattering
from pipelines.data.split import Split

_latest: dict[str, Dataset] = {}


def with_features(dataset: Dataset, config: NoFeatures | ScatteringConfig | BinsConfig, threads: int) -> Dataset:
    """Maps both splits, example by example. Nothing is fitted, so no privacy is spent.

    Args:
      dataset: with its own inputs.
      config: the features.
      threads: number that compute the features.

    Returns:
      The dataset with features as inputs. Its fingerprint depends on the fingerprint of the inputs and on the
      settings of the features. The last result is kept for the runs of a sweep.

    Raises:
      UserError: features that do not fit the inputs, or a cache that cannot be written.
    """
    if isinstance(config, NoFeatures):
        return dataset
    made_with = f" kymatio {version('kymatio')}" if isinstance(config, ScatteringConfig) else ""
    source = hashlib.sha256(f"{dataset.fingerprint} {config.model_dump_json()}{made_with}".encode()).hexdigest()
    if source not in _latest:
        _latest.clear()
        if isinstance(config, BinsConfig):
            train, test = _binned(dataset, config)
        else:
            train, test = _scattered(dataset, config, source, threads)
        _latest[source] = replace(dataset, train=train, test=test, source=source)
    return _latest[source]


def _binned(dataset: Dataset, config: BinsConfig) -> tuple[Split, Split]:
    """Computes bins in memory, which is faster than reading them from a cache."""
    transform = Bins(dataset.features, config.columns)
    train, test = (Split(transform(split.inputs), split.labels) for split in (dataset.train, dataset.test))
    return train, test


def _scattered(dataset: Dataset, config: ScatteringConfig, source: str, threads: int) -> tuple[Split, Split]:
    transform, folder = _Chain(dataset.features, config), cache_folder() / "features"

    def mapped(name: str, split: Split) -> Split:
        path = folder / f"{dataset.name}-{name}-{source[:16]}.npy"
        title = f"{config.name}, {dataset.name} {name}"
        return Split(
            cached_features(path, split.inputs, transform, transform.shape, threads=threads, title=title), split.labels
        )

    return mapped("train", dataset.train), mapped("test", dataset.test)


class _Chain:
    """Scattering, followed by random Fourier features if the configuration has them."""

    def __init__(self, features: tuple[int, ...], config: ScatteringConfig) -> None:
        self._scattering = Scattering(
            features, scales=config.scales, angles=config.angles, groups=config.groups, rotations=config.rotations
        )
        self._fourier: RandomFourier | None = None
        if config.fourier is not None and config.bandwidth is not None:
            self._fourier = RandomFourier(self._scattering.shape, count=config.fourier, bandwidth=config.bandwidth)
        self.shape = (self._fourier or self._scattering).shape

    def __call__(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        scattered = self._scattering(images)
        return scattered if self._fourier is None else self._fourier(scattered)
