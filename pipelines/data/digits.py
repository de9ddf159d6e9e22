"""The digits that come with scikit-learn: small, offline, the same everywhere."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.data.dataset import Dataset
from pipelines.data.shuffle import public_order
from pipelines.data.split import Split

TRAIN_EXAMPLES = 1437
BRIGHTEST = 16


def load_digits() -> Dataset:
    """Returns 1,797 handwritten digits, images (8, 8, 1), with 1,437 for training and 360 for the test.

    The source has no split of its own, so a fixed public permutation makes one. The writers are not recorded: the
    same hand can be on both sides, which flatters every pipeline alike.

    Source: Alpaydin and Kaynak 1998, doi:10.24432/C50P49, its test set as scikit-learn ships it.
    """
    table = _table()
    order = public_order(len(table))
    images = (table[order, :-1].reshape(-1, 8, 8, 1) / BRIGHTEST).astype(np.float32)
    labels = table[order, -1].astype(np.int64)
    return Dataset(
        name="digits",
        train=Split(images[:TRAIN_EXAMPLES], labels[:TRAIN_EXAMPLES]),
        test=Split(images[TRAIN_EXAMPLES:], labels[TRAIN_EXAMPLES:]),
        classes=10,
        public=True,
    )


def _table() -> NDArray[np.float64]:
    """One row a digit: 64 pixels, then the label. Read from the package's file, whose import would cost a second."""
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError("dataset=digits comes with scikit-learn, which is not installed; run: pip install scikit-learn")
    return np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
