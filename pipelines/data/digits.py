"""The digits that come with scikit-learn: a small dataset that needs no network."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.data.dataset import Dataset
from pipelines.data.split import Split, public_order

TRAIN_EXAMPLES = 1437
BRIGHTEST = 16


def load_digits() -> Dataset:
    """Returns 1,797 handwritten digits, images (8, 8, 1), with 1,437 for training and 360 for the test.

    The source has no split, so a fixed public permutation makes one. The writers are not recorded. The same writer
    can be in both splits, which raises the accuracy of every pipeline alike.

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
    """One row for each digit: 64 pixels, then the label.

    Reads the file of the package without importing the package, which would take a second.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError("dataset=digits comes with scikit-learn, which is not installed; run: pip install scikit-learn")
    return np.loadtxt(Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz", delimiter=",")
