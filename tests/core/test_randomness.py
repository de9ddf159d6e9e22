"""Streams that a guarantee rests on differ from each other, and without a seed from those of any other run."""

import numpy as np
import pytest

from pipelines.core import randomness
from pipelines.core.errors import GuaranteeError
from pipelines.core.randomness import private_streams, public_stream


def first_draws(*streams: np.random.Generator) -> list[float]:
    return [float(stream.random()) for stream in streams]


def test_a_seed_repeats_streams_and_none_never_does() -> None:
    repeated = [first_draws(*private_streams(7, "sampling", "noise")) for _ in range(2)]
    assert repeated[0] == repeated[1]
    assert len({*first_draws(*private_streams(None, "a", "b")), *first_draws(*private_streams(None, "a", "b"))}) == 4


def test_streams_must_differ() -> None:
    with pytest.raises(GuaranteeError, match="same random numbers"):
        private_streams(7, "noise", "sampling", "noise")


@pytest.mark.parametrize("constant", [["noise"], ["sampling", "noise"]])
def test_a_stream_without_a_reproducible_seed_is_refused(constant: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    real = randomness.private_stream
    monkeypatch.setattr(
        randomness,
        "private_stream",
        lambda seed, name: public_stream(0, name) if name in constant else real(seed, name),
    )
    with pytest.raises(GuaranteeError, match="can be drawn again without a seed"):
        private_streams(None, "sampling", "noise")
    private_streams(7, "sampling", "noise")  # who asks for a seed may draw them again
