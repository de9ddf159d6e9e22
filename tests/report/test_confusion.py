from html.parser import HTMLParser

import numpy as np
import pytest

from pipelines.report.confusion import confusion_matrix, confusion_page


class Cells(HTMLParser):
    """The texts of a page's table cells, row by row, and the titles of those that are coloured."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.coloured: list[str] = []
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._inside = tag == "td"
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")
            if "style" in dict(attributes):
                self.coloured.append(str(dict(attributes)["title"]))

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data


def test_rows_are_true_classes_and_columns_predictions() -> None:
    labels, predictions = np.array([0, 0, 1, 2]), np.array([0, 2, 1, 2])
    np.testing.assert_array_equal(confusion_matrix(labels, predictions, 3), [[1, 0, 1], [0, 1, 0], [0, 0, 1]])
    page = confusion_page(labels, predictions, 3)
    cells = Cells(page)
    assert cells.rows[2:] == [["1", "", "1"], ["", "1", ""], ["", "", "1"]]
    assert "1 of 2 of class 0 taken for 2" in cells.coloured
    assert "75.0 % of 4 correct" in page


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_page_is_made_for_few_and_many_classes(classes: int) -> None:
    labels = np.arange(200) % classes
    page = confusion_page(labels, np.roll(labels, 1), classes)
    cells = Cells(page)
    assert "0.0 % of 200 correct" in page
    assert [len(row) for row in cells.rows] == [0, 0] + [classes] * classes
    assert len(cells.coloured) == classes
    assert any("".join(row) for row in cells.rows) == (classes <= 20)


def test_absent_class_does_not_divide_by_zero() -> None:
    cells = Cells(confusion_page(np.zeros(5, np.int64), np.zeros(5, np.int64), 3))
    assert cells.coloured == ["5 of 5 of class 0 taken for 0"]


def test_many_classes_are_shown_by_their_largest_errors() -> None:
    classes = 100_000
    labels = np.arange(classes) % 1000
    predictions = np.where(labels == 7, 8, labels)
    predictions[:3] = classes - 1
    page = confusion_page(labels, predictions, classes)
    assert len(page) < 20_000
    assert "<tr><td>7</td><td>8</td><td>100</td></tr>" in page
    assert "99.9 % of 100,000 correct" in page
