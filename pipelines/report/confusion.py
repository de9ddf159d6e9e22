"""The confusion matrix of one run as an HTML page.

It uses no plotting library: importing and using one took a tenth of a short run.
"""

from string import Template

import numpy as np
from numpy.typing import NDArray

CELLS_UP_TO = 100
"""Most classes for which the matrix is shown; for more, the page lists as many of the largest errors."""
COUNTS_UP_TO = 20
"""Most classes for which every cell shows its count; for more, colour and a tooltip show it."""
PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Confusion matrix</title>
<style>
  body { font: 14px/1.4 system-ui, sans-serif; color: #222; margin: 1.5rem; }
  table { border-collapse: collapse; }
  caption { font-size: 1.1rem; text-align: left; padding-bottom: .6rem; }
  th { font-weight: normal; color: #555; padding: 0; }
  th:first-child { padding-right: .6rem; white-space: nowrap; }
  td { width: $side; height: $side; min-width: $side; text-align: center; border: 1px solid #eee; padding: 0; }
  td.dark { color: white; }
</style>
</head>
<body>
<table>
<caption>$caption</caption>
$head
<tr><th>true class</th>$heads</tr>
$rows
</table>
<p>$key</p>
</body>
</html>
""")


COLOURS = "Colour is the share of the true class, on a square-root scale, so that rare errors are seen."


def confusion_matrix(labels: NDArray[np.int64], predictions: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Counts examples by true class (row) and predicted class (column), shape (classes, classes)."""
    return np.bincount(labels * classes + predictions, minlength=classes * classes).reshape(classes, classes)


def confusion_page(labels: NDArray[np.int64], predictions: NDArray[np.int64], classes: int) -> str:
    """Renders the matrix as HTML.

    Args:
      labels: int64, shape (n,), values in [0, classes).
      predictions: int64, shape (n,), values in [0, classes).
      classes: at least 2. Above 20, cells show colours instead of counts; above 100, a list of the largest errors
        replaces the matrix.
    """
    if classes > CELLS_UP_TO:
        return _largest_errors(labels, predictions)
    counts = confusion_matrix(labels, predictions, classes)
    few = classes <= COUNTS_UP_TO
    return PAGE.substitute(
        caption=f"{100 * np.trace(counts) / max(counts.sum(), 1):.1f} % of {counts.sum():,} correct",
        head=f'<tr><th></th><th colspan="{classes}">predicted class</th></tr>',
        key=COLOURS,
        side="2.2rem" if few else ".55rem",
        heads="".join(f"<th>{label if few else ''}</th>" for label in range(classes)),
        rows="\n".join(_row(label, row, few) for label, row in enumerate(counts.tolist())),
    )


def _largest_errors(labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> str:
    """Lists the most frequent errors, one a row, since a matrix grows with the square of the number of classes."""
    wrong = labels != predictions
    pairs, counts = np.unique(np.stack([labels[wrong], predictions[wrong]], axis=1), axis=0, return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:CELLS_UP_TO]
    return PAGE.substitute(
        caption=f"{100 * np.mean(~wrong):.1f} % of {len(labels):,} correct",
        head="",
        key=f"The {len(largest)} most frequent errors of {len(counts):,} kinds.",
        side="auto",
        heads="<th>predicted class</th><th>examples</th>",
        rows="\n".join(
            f"<tr><td>{true}</td><td>{predicted}</td><td>{count:,}</td></tr>"
            for (true, predicted), count in zip(pairs[largest].tolist(), counts[largest].tolist(), strict=True)
        ),
    )


def _row(label: int, row: list[int], few: bool) -> str:
    cells, total = [], max(sum(row), 1)
    for predicted, count in enumerate(row):
        depth = (count / total) ** 0.5
        style = f' style="background: rgba(8, 69, 148, {depth:.3f})"' if count else ""
        shade = ' class="dark"' if depth > 0.55 else ""
        title = f"{count:,} of {total:,} of class {label} taken for {predicted}"
        cells.append(f'<td{shade}{style} title="{title}">{count if few and count else ""}</td>')
    return f"<tr><th>{label if few else ''}</th>{''.join(cells)}</tr>"
