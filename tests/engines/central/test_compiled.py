"""The kernel that is compiled for a model: where it serves, what it may be trusted with, and what happens without."""

import logging
import os
from dataclasses import replace
from pathlib import Path
from shutil import which

import numpy as np
import pytest
import torch

from pipelines.engines.central import compiled
from pipelines.engines.central.compiled import kernel_layers
from pipelines.engines.central.training import Hardware, TrainState
from pipelines.model.spec import Conv, ModelSpec, build_spec

from .conftest import MakeData
from .test_gradients import fit, flat_sum

IMAGES = (8, 8, 1)
needs_compiler = pytest.mark.skipif(not any(map(which, compiled.COMPILERS)), reason="no C++ compiler on this machine")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As on a new machine, and in a new process."""
    monkeypatch.setenv("PIPELINES_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    compiled._warn_once.cache_clear()
    compiled._warn_of_cache.cache_clear()
    return tmp_path / "cache"


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return str(path)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_comparison_network_in_the_kernels_terms() -> None:
    assert kernel_layers(build_spec("cnn", features=(28, 28, 1), classes=10)) == (
        "Conv<28, 28, 1, 16, 8, 8, 2, 2, 3, 3>, Tanh<3136>, MaxPool<14, 14, 16, 2, 2, 1, 1>, "
        "Conv<13, 13, 16, 32, 4, 4, 2, 2, 0, 0>, Tanh<800>, MaxPool<5, 5, 32, 2, 2, 1, 1>, "
        "Dense<512, 32>, Tanh<32>, Dense<32, 10>"
    )


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_matrix_products_are_left_to_pytorch(make_data: MakeData, name: str, empty_cache: Path) -> None:
    assert fit(make_data(name, IMAGES), "compiled").facts["kernel"] == "torch"
    assert not empty_cache.exists()


def changed(index: int, **values: object) -> ModelSpec:
    spec = build_spec("cnn", features=IMAGES, classes=3)
    layers = list(spec.layers)
    layers[index] = replace(layers[index], **values)  # type: ignore[arg-type]
    return replace(spec, layers=tuple(layers))


def test_what_the_kernel_does_not_know_is_left_to_pytorch() -> None:
    assert isinstance(changed(3).layers[3], Conv)
    assert kernel_layers(changed(3)) is not None
    assert kernel_layers(changed(3, padding=(1, 1))) is None
    assert kernel_layers(changed(0, filters=12)) is None


@needs_compiler
def test_a_kernel_is_compiled_once_and_kept(
    make_data: MakeData, empty_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = make_data("cnn", IMAGES)
    first = fit(data, "compiled")
    assert first.facts["kernel"] == "compiled"
    assert float(first.facts["kernel_compile_s"]) > 0
    (kept,) = (empty_cache / "kernels").iterdir()
    assert kept.suffix == ".so"
    monkeypatch.setenv("PATH", "")  # no compiler is asked for
    assert fit(data, "compiled").facts["kernel_compile_s"] == "0.00"
    assert warnings(caplog) == []


@needs_compiler
def test_threads_share_a_sample_and_the_sum_repeats(make_data: MakeData) -> None:
    data = make_data("cnn", IMAGES)
    sums = [flat_sum(data, "compiled", threads=threads) for threads in (1, 2, 3, 3, 50)]
    assert all(found == pytest.approx(sums[0], abs=1e-6) for found in sums)
    assert np.array_equal(sums[2], sums[3])


def no_compiler(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("PATH", str(folder))


def failing_compiler(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("CXX", script(folder / "cxx", "echo 'kernel.cpp:1: error: out of luck' >&2; exit 1"))


def absent_compiler(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("CXX", str(folder / "absent"))


def wrong_compiler(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Its kernel runs, and computes another network's gradients."""
    patch.setenv("CXX", script(folder / "cxx", 'exec c++ "${@//Tanh/Relu}"'))


def full_disk(folder: Path, patch: pytest.MonkeyPatch) -> None:
    (folder / "file").touch()
    patch.setenv("PIPELINES_CACHE", str(folder / "file"))


@needs_compiler
@pytest.mark.parametrize(
    ("break_it", "reason"),
    [
        (no_compiler, "no C++ compiler found; install g++ or name one in CXX"),
        (failing_compiler, "cxx failed: kernel.cpp:1: error: out of luck"),
        (absent_compiler, "absent cannot be run (No such file or directory); set CXX to another"),
        (wrong_compiler, "the compiled kernel has gradients that are off by"),
        (full_disk, "Not a directory"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_without_a_kernel_pytorch_computes_the_same(
    make_data: MakeData, tmp_path: Path, caplog: pytest.LogCaptureFixture, break_it: object, reason: str
) -> None:
    data = make_data("cnn", IMAGES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.environ["PATH"])
        break_it(tmp_path, patch)  # type: ignore[operator]
        results = [fit(data, "compiled") for _ in range(2)]
    assert [result.facts["kernel"] for result in results] == ["torch", "torch"]
    (line,) = warnings(caplog)
    assert line.startswith("gradients are computed by PyTorch's operations")
    assert reason in line
    mended = fit(data, "compiled")  # a kernel that was no good does not stay
    assert mended.facts["kernel"] == "compiled"
    weights = mended.record.model.weights()
    for ours, theirs in zip(weights, results[0].record.model.weights(), strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)


@needs_compiler
@pytest.mark.parametrize(
    ("line", "changed", "flaw"),
    [
        ("std::min(1.f, clip_norm / (std::sqrt(squared) + 1e-6f))", "1.f", "clips to a norm"),
        ("std::min(1.f, clip_norm /", "std::min(1.f, 1.02f * clip_norm /", "clips to a norm that is off by 2.00%"),
        ("(dot(in, in, IN) + 1) * outputs", "dot(in, in, IN) * outputs", "clips to a norm"),
        ("return dot(gradient, gradient, WEIGHTS)", "return dot(gradient, gradient, TAPS * F)", "clips to a norm"),
        ("sum[OUT * IN + o] += factor * slope[o];", "", "clips to a norm"),
        ("std::fill_n(before, IN, 0.f);\n        each(", "each(", "lets one example change what another adds"),
        ("squared[k] = model->", "squared[size - 1 - k] = model->", "gives an example the norm of another"),
        ("example, labels[sample[k]]", "example, labels[k]", "has gradients that are off"),
        ("inputs + sample[k] *", "inputs + (k ? sample[k] : sample[size - 1]) *", "lets one example change"),
        ("1 - load(out + k) * load(out + k)", "1 - load(out + k)", "has gradients that are off"),
    ],
)
def test_a_wrong_kernel_is_refused(
    make_data: MakeData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    line: str, changed: str, flaw: str,
) -> None:  # fmt: skip
    texts = {source.name: source.read_text() for source in compiled.SOURCES}
    assert sum(text.count(line) for text in texts.values()) == 1
    for name, text in texts.items():
        (tmp_path / name).write_text(text.replace(line, changed))
    monkeypatch.setattr(compiled, "SOURCES", tuple(tmp_path / name for name in texts))
    assert fit(make_data("cnn", IMAGES), "compiled", threads=20).facts["kernel"] == "torch"
    (warning,) = warnings(caplog)
    assert f"the compiled kernel {flaw}" in warning


@needs_compiler
def test_what_the_kernel_would_misread_never_reaches_it(make_data: MakeData) -> None:
    data = make_data("cnn", IMAGES)
    state = TrainState.of(data, Hardware(device="cpu", threads=1))
    sums = compiled.compiled_sums(state, data.spec)
    assert sums is not None
    every_other = torch.arange(40)[::2]
    found, expected = (sums(sample, 1.0) for sample in (every_other, every_other.clone()))
    assert all(map(torch.equal, found[0], expected[0]))
    for index in (-1, 40):
        with pytest.raises(IndexError, match="outside of 40 examples"):
            sums(torch.tensor([0, index]), 1.0)
    with pytest.raises(TypeError, match="not float32 and int64"):
        compiled.compiled_sums(replace(state, inputs=state.inputs.double()), data.spec)


@needs_compiler
@pytest.mark.parametrize("exposed", ["file", "folder"])
def test_a_kernel_that_others_may_write_is_rebuilt(
    make_data: MakeData, empty_cache: Path, caplog: pytest.LogCaptureFixture, exposed: str
) -> None:
    data = make_data("cnn", IMAGES)
    first = flat_sum(data, "compiled")
    (kept,) = (empty_cache / "kernels").iterdir()
    assert [path.stat().st_mode & 0o777 for path in (kept, kept.parent)] == [0o700, 0o700]
    kept.unlink()  # this process has mapped it
    kept.write_bytes(b"another user's code")
    path = kept if exposed == "file" else kept.parent
    path.chmod(0o770)
    second = fit(data, "compiled")
    assert second.facts["kernel"] == "compiled"
    assert float(second.facts["kernel_compile_s"]) > 0
    np.testing.assert_array_equal(flat_sum(data, "compiled"), first)
    (line,) = warnings(caplog)
    assert str(path) in line
    assert "PIPELINES_CACHE" in line
    assert kept.read_bytes() == b"another user's code"
