"""UCI Adult (census income): who earns over 50,000 dollars a year, from 14 columns of the 1994 US census."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipelines.core.errors import UserError
from pipelines.data.dataset import Dataset
from pipelines.data.raw import Content, RawFile, read_raw
from pipelines.data.split import Split

UCI = "https://archive.ics.uci.edu/"
FILES = tuple(
    RawFile(
        name=name,
        md5s=frozenset({md5}),
        urls=(f"{UCI}ml/machine-learning-databases/adult/{name}", f"{UCI}static/public/2/adult.zip"),
    )
    for name, md5 in (
        ("adult.data", "5d7c39d7b8804f071cdd1f2a7c460872"),
        ("adult.test", "35238206dfdf7f1fe215bbb874adecdc"),
    )
)


@dataclass(frozen=True)
class Number:
    """A numeric column, clipped to public bounds and mapped onto [0, 1].

    Attributes:
      position: column in the file, from 0.
      lowest, highest: bounds of the census's coding, such as ages over 16 with a top code of 90; not fitted to data.
      log: whether log(1 + x) is scaled instead of x.
    """

    name: str
    position: int
    lowest: float
    highest: float
    log: bool = False

    def scale(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Maps values, shape (n,), onto [0, 1]."""
        measure: Callable[[NDArray[np.float64]], NDArray[np.float64]] = np.log1p if self.log else np.asarray
        low, high = measure(np.array([self.lowest, self.highest]))
        return (measure(np.clip(values, self.lowest, self.highest)) - low) / (high - low)


@dataclass(frozen=True)
class Category:
    """A categorical column, with one feature for each value of a public list.

    Attributes:
      position: column in the file, from 0.
      values: as adult.names lists them; "?" stands for missing where the census has missing answers.
    """

    name: str
    position: int
    values: tuple[str, ...]


COLUMNS = 15
LABEL_POSITION = 14
LABELS = ("<=50K", ">50K")
NUMBERS = (
    Number("age", 0, 17, 90),
    Number("education-num", 4, 1, 16),
    Number("capital-gain", 10, 0, 99_999, log=True),
    Number("capital-loss", 11, 0, 9_999, log=True),
    Number("hours-per-week", 12, 1, 99),
)
CATEGORIES = tuple(
    Category(name, position, tuple(values.split()))
    for name, position, values in (
        (
            "workclass",
            1,
            "Private Self-emp-not-inc Self-emp-inc Federal-gov Local-gov State-gov Without-pay Never-worked ?",
        ),
        (
            "education",
            3,
            "Bachelors Some-college 11th HS-grad Prof-school Assoc-acdm Assoc-voc 9th 7th-8th 12th Masters 1st-4th "
            "10th Doctorate 5th-6th Preschool",
        ),
        (
            "marital-status",
            5,
            "Married-civ-spouse Divorced Never-married Separated Widowed Married-spouse-absent Married-AF-spouse",
        ),
        (
            "occupation",
            6,
            "Tech-support Craft-repair Other-service Sales Exec-managerial Prof-specialty Handlers-cleaners "
            "Machine-op-inspct Adm-clerical Farming-fishing Transport-moving Priv-house-serv Protective-serv "
            "Armed-Forces ?",
        ),
        ("relationship", 7, "Wife Own-child Husband Not-in-family Other-relative Unmarried"),
        ("race", 8, "White Asian-Pac-Islander Amer-Indian-Eskimo Other Black"),
        ("sex", 9, "Female Male"),
        (
            "native-country",
            13,
            "United-States Cambodia England Puerto-Rico Canada Germany Outlying-US(Guam-USVI-etc) India Japan Greece "
            "South China Cuba Iran Honduras Philippines Italy Poland Jamaica Vietnam Mexico Portugal Ireland France "
            "Dominican-Republic Laos Ecuador Taiwan Haiti Columbia Hungary Guatemala Nicaragua Scotland Thailand "
            "Yugoslavia El-Salvador Trinadad&Tobago Peru Hong Holand-Netherlands ?",
        ),
    )
)


def load_adult(folder: str | None) -> Dataset:
    """Returns Adult as 107 features in [0, 1]: five scaled numbers, then eight one-hot columns.

    The preprocessing is public: bounds and lists of categories are constants of this file. Nothing is fitted to the
    rows, so the preprocessing costs no privacy. Rows with a missing answer stay, with "?" as a category. fnlwgt, the
    census weight of a row, is dropped: it describes the sampling, not the person.

    Args:
      folder: where adult.data and adult.test lie; None uses the cache, then a download.

    Raises:
      UserError: a file is missing or damaged, or a line has a wrong number of columns, an unknown category or
        something that is not a number.

    Source: Becker and Kohavi 1996, doi:10.24432/C5XW20.
    """
    train, test = read_raw("adult", FILES, folder)
    public = train.genuine and test.genuine
    return Dataset(name="adult", train=_split(train), test=_split(test), classes=len(LABELS), public=public)


def _split(content: Content) -> Split:
    numbered = list(_rows(content))
    if not numbered:
        raise UserError(f"{content.path} holds no rows; replace it with the published file")
    lines = [line for line, _ in numbered]
    columns = list(zip(*(row for _, row in numbered), strict=True))
    parts = [_scaled(content, lines, number, columns[number.position]) for number in NUMBERS]
    parts += [_one_hot(content, lines, category, columns[category.position]) for category in CATEGORIES]
    # adult.test ends its labels with a full stop, adult.data does not.
    income = Category("income", LABEL_POSITION, LABELS)
    labels = _codes(content, lines, income, [label.removesuffix(".") for label in columns[LABEL_POSITION]])
    return Split(np.concatenate(parts, axis=1), labels)


def _rows(content: Content) -> Iterator[tuple[int, list[str]]]:
    """Yields line numbers, from 1, and fields; skips empty lines and adult.test's header, "|1x3 Cross validator"."""
    for line, text in enumerate(content.data.decode("utf-8", errors="replace").splitlines(), start=1):
        if not text.strip() or text.startswith("|"):
            continue
        fields = [field.strip() for field in text.split(",")]
        if len(fields) != COLUMNS:
            raise UserError(
                f"{content.path} line {line} has {len(fields)} columns, not {COLUMNS}; fix the line, or replace the "
                "file with the published one"
            )
        yield line, fields


def _scaled(content: Content, lines: list[int], number: Number, texts: tuple[str, ...]) -> NDArray[np.float32]:
    values = np.empty(len(texts))
    for row, text in enumerate(texts):
        try:
            values[row] = float(text)
        except ValueError:
            values[row] = np.nan
    if not np.isfinite(values).all():
        row = int(np.argmin(np.isfinite(values)))
        raise UserError(f"{content.path} line {lines[row]}: {number.name}={texts[row]} is not a number; fix the line")
    return number.scale(values).astype(np.float32)[:, np.newaxis]


def _one_hot(content: Content, lines: list[int], category: Category, texts: tuple[str, ...]) -> NDArray[np.float32]:
    return np.eye(len(category.values), dtype=np.float32)[_codes(content, lines, category, texts)]


def _codes(
    content: Content, lines: list[int], category: Category, texts: tuple[str, ...] | list[str]
) -> NDArray[np.int64]:
    index = {value: code for code, value in enumerate(category.values)}
    codes = np.array([index.get(text, -1) for text in texts], dtype=np.int64)
    if codes.min() < 0:
        row = int(np.argmin(codes))
        raise UserError(
            f"{content.path} line {lines[row]}: {category.name}={texts[row]} is not a known value; "
            f"allowed are {', '.join(category.values)}"
        )
    return codes
