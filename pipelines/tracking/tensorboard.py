"""A run's events as files for TensorBoard: scalars, texts, figures and parameters, in one folder for each run.

Every event is written at once. So the file holds all events however the process ends, and on a full disk the event
itself fails. The package's EventFileWriter does neither: it writes from a thread. It also imports TensorFlow if that
is installed. The package's RecordWriter and the formats of its plugins need no framework.
"""

import re
import time
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.core.paths import make_private
from pipelines.tracking.run_log import NOTE, Artifact, RunStart, Status, without_infinite

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipelines.engines.interface import FittedModel

VERSION = "brain.Event:2"
"""What every event file begins with."""
ID_LENGTH = 8
"""Digits of the run's id in the name of its folder, so that runs of one name have different folders."""
NAME_BYTES = 200


class TensorBoardRun:
    """Writes a run's events to `<folder>/<experiment>/<name>-<id>`.

    Attributes:
      run_id: the run's identifier in the record.
    """

    def __init__(self, run_id: str, folder: Path, experiment: str) -> None:
        self.run_id = run_id
        self._place = folder / _file_name(experiment)
        self._file: Path | None = None
        self._tags: dict[str, str] = {}
        self._step = 0
        self._ended = False

    def on_start(self, start: RunStart) -> None:
        """Makes the folder; writes the parameters, as a table and for the HParams page, and the note."""
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        folder = self._place / f"{_file_name(start.name)}-{self.run_id[:ID_LENGTH]}"
        make_private(folder)
        self._file = folder / f"events.out.tfevents.{int(time.time())}.{self.run_id}"
        self._file.touch(mode=0o600)
        self._write(file_version=VERSION)
        params = {key: _plain(value) for key, value in start.params.items()}
        self._write(summary=hparams_pb(params, trial_id=self.run_id))
        self._write_text("params", _table(params))
        self.on_tags(start.tags)

    def on_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Writes scalars."""
        self._step = max(self._step, step)
        found = [{"tag": name, "simple_value": value} for name, value in without_infinite(values).items()]
        self._write(step=step, summary={"value": found})

    def on_tags(self, values: Mapping[str, str]) -> None:
        """Writes the note as a text; the other tags become one table when the run ends."""
        self._tags |= values
        if NOTE in values:
            self._write_text(NOTE, values[NOTE])
        if self._ended:
            self._write_tags()

    def on_artifact(self, name: str, content: Artifact) -> None:
        """Writes Markdown as a text and a figure as an image; only the record gets other files."""
        if isinstance(content, str) and name.endswith(".md"):
            self._write_text(name, content)
        elif not isinstance(content, str | dict | list | Path):
            self._write_figure(name, content)

    def on_model(self, fitted: "FittedModel", features: tuple[int, ...]) -> None:
        """Does nothing: TensorBoard has no place for a model."""

    def flush(self) -> None:
        """Does nothing: every event is written at once."""

    def on_end(self, status: Status, error: BaseException | None = None) -> None:
        """Writes the tags and the status. It does not write the text of an error, which may be private."""
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        code = api_pb2.STATUS_SUCCESS if status == "FINISHED" else api_pb2.STATUS_FAILURE
        ending = plugin_data_pb2.HParamsPluginData(
            session_end_info=plugin_data_pb2.SessionEndInfo(status=code, end_time_secs=time.time())
        )
        value = {"tag": metadata.SESSION_END_INFO_TAG, "metadata": metadata.create_summary_metadata(ending)}
        self._write(summary={"value": [{**value, "tensor": metadata.NULL_TENSOR}]})
        self._ended = True
        self._tags["status"] = status
        self._write_tags()

    def _write_tags(self) -> None:
        self._write_text("tags", _table({key: value for key, value in self._tags.items() if key != NOTE}))

    def _write_text(self, name: str, text: str) -> None:
        from tensorboard.plugins.text.metadata import create_summary_metadata
        from tensorboard.util.tensor_util import make_tensor_proto

        value = {"tag": name, "metadata": create_summary_metadata(name, ""), "tensor": make_tensor_proto(text)}
        self._write(step=self._step, summary={"value": [value]})

    def _write_figure(self, name: str, figure: "Figure") -> None:
        file = BytesIO()
        figure.savefig(file, format="png")
        width, height = figure.canvas.get_width_height()
        image = {"encoded_image_string": file.getvalue(), "width": width, "height": height, "colorspace": 4}
        self._write(step=self._step, summary={"value": [{"tag": name, "image": image}]})

    def _write(self, **fields: Any) -> None:
        """Appends one event with the fields of TensorBoard's Event; before `on_start` there is no file to write to."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        if self._file is not None:
            with self._file.open("ab") as file:
                RecordWriter(file).write(Event(wall_time=time.time(), **fields).SerializeToString())


def _file_name(text: str) -> str:
    """A text as one part of a path."""
    name = re.sub(r"[^\w.=+ -]", "_", text).encode()[:NAME_BYTES].decode(errors="ignore")
    return name if name.strip(". ") else "_"


def _plain(value: Any) -> bool | int | float | str:
    """Returns a parameter in a type that the HParams page takes, as the record writes it."""
    return value if isinstance(value, bool | int | float) else "null" if value is None else str(value)


def _table(values: Mapping[str, Any]) -> str:
    """A Markdown table of keys and values."""
    texts = {key: " ".join(str(value).split()).replace("|", "\\|") for key, value in values.items()}
    return "\n".join(["| key | value |", "|---|---|", *(f"| {key} | {text} |" for key, text in texts.items())])
