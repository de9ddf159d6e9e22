"""The digits that come with scikit-learn: small, offline, the same everywhere."""

import numpy as np

from pipelines.data.dataset import Dataset, Split
from pipelines.data.shuffle import public_order

TRAIN_EXAMPLES = 1437
BRIGHTEST = 16


def load_digits() -> Dataset:
    """Returns 1,797 handwritten digits, images (8, 8, 1), with 1,437 for training and 360 for the test.

    The source has no split of its own, so a fixed public permutation makes one. The writers are not recorded: the
    same hand can be on both sides, which flatters every pipeline alike.

    Source: Alpaydin and Kaynak 1998, doi:10.24432/C50P49, its test set as scikit-learn ships it.
    """
    from sklearn.datasets import load_digits as load_raw_digits

    raw = load_raw_digits()
    order = public_order(len(raw.target))
    images = (raw.images[order] / BRIGHTEST).astype(np.float32)[..., np.newaxis]
    labels = raw.target[order].astype(np.int64)
    return Dataset(
        name="digits",
        train=Split(images[:TRAIN_EXAMPLES], labels[:TRAIN_EXAMPLES]),
        test=Split(images[TRAIN_EXAMPLES:], labels[TRAIN_EXAMPLES:]),
        classes=10,
    )
