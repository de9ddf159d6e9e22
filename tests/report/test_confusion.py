import io

import numpy as np
import pytest

from pipelines.report.confusion import confusion_figure, confusion_matrix


def test_rows_are_true_classes_and_columns_predictions() -> None:
    labels, predictions = np.array([0, 0, 1, 2]), np.array([0, 2, 1, 2])
    np.testing.assert_array_equal(confusion_matrix(labels, predictions, 3), [[1, 0, 1], [0, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_figure_is_drawn_for_few_and_many_classes(classes: int) -> None:
    labels = np.arange(200) % classes
    figure = confusion_figure(labels, np.roll(labels, 1), classes)
    figure.savefig(io.BytesIO(), format="png")
    axes = figure.axes[0]
    assert axes.get_title() == "0.0 % of 200 correct"
    assert len(axes.get_xticks()) <= 22
    assert len(axes.texts) == (classes if classes <= 20 else 0)


def test_absent_class_does_not_divide_by_zero() -> None:
    confusion_figure(np.zeros(5, np.int64), np.zeros(5, np.int64), 3)
