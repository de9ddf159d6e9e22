"""The configured dataset, by name."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from pipelines.config.data_settings import DatasetConfig, DigitsConfig, DownloadedConfig, NpzConfig
from pipelines.core.errors import UserError
from pipelines.data.dataset import Dataset
from pipelines.data.split import Split, public_order


def load_dataset(config: DatasetConfig) -> Dataset:
    """Loads the dataset that the configuration names, and keeps its first `limit` training examples if it says so.

    Raises:
      UserError: the name is unknown, files are missing, damaged or of another format, or the limit exceeds the
        training examples.
    """
    return _loaded(config, _stamps(config))


def _stamps(config: DatasetConfig) -> tuple[tuple[str, int, int], ...]:
    """Path, time and size of the user's own files: what tells that they have changed."""
    path = config.file if isinstance(config, NpzConfig) else getattr(config, "folder", None)
    paths = [] if path is None else [Path(path).expanduser()]
    try:
        files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
        stats = [(str(file.absolute()), file.stat()) for file in files if file.is_file()]
    except OSError:
        return ()  # the loader says what is wrong with them
    return tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


@lru_cache(maxsize=1)
def _loaded(config: DatasetConfig, stamps: object) -> Dataset:
    """Keeps the last dataset, since the runs of a sweep mostly share theirs."""
    dataset = _load(config)
    return dataset if config.limit is None else _first(dataset, config.limit)


def _load(config: DatasetConfig) -> Dataset:
    match config:
        case DigitsConfig():
            from pipelines.data.digits import load_digits

            return load_digits()
        case NpzConfig():
            from pipelines.data.npz import load_npz

            return load_npz(config.file, config.classes, config.bounds)
        case DownloadedConfig(name="mnist" | "fashion_mnist" as name, folder=folder):
            from pipelines.data.idx import load_idx

            return load_idx(name, folder)
        case DownloadedConfig(name="adult", folder=folder):
            from pipelines.data.adult import load_adult

            return load_adult(folder)
        case _:
            raise UserError(
                f"dataset={config.name} is unknown; choose adult, digits, fashion_mnist, mnist, or npz for your arrays"
            )


def _first(dataset: Dataset, limit: int) -> Dataset:
    """Keeps `limit` training examples in a public order, so that files sorted by class still give a mixed subset."""
    available = len(dataset.train)
    if limit > available:
        raise UserError(
            f"dataset.limit={limit} exceeds the {available} training examples of {dataset.name}; "
            "lower it, or use null for all of them"
        )
    keep = public_order(available)[:limit]
    train = Split(dataset.train.inputs[keep], dataset.train.labels[keep])
    return replace(dataset, train=train, client_ids=None if dataset.client_ids is None else dataset.client_ids[keep])
