"""Book-keeping as machine code: compiles `kernel/` once for one model and this processor, and caches the result.

This is faster for models with convolutions: PyTorch's operations on small images wait for memory and for each other,
while all tensors of one example fit into the caches of a core. A model of dense layers alone is a few matrix products,
which PyTorch computes as fast. One compilation serves samples of every size.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from pipelines.core.paths import cache_folder, foreign_hand, make_private
from pipelines.engines.central.gradient_trial import TrialError, require_sound
from pipelines.engines.central.training import TrainState
from pipelines.model.spec import Conv, Dense, Layer, MaxPool, ModelSpec, Relu, Reshape, Tanh, positions

SOURCES = tuple(sorted((Path(__file__).parent / "kernel").glob("*.[ch]pp")))
COMPILERS = ("c++", "g++", "clang++")
VECTOR = 16  # floats: a multiple of the vector length of every processor

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kernel:
    """A compiled kernel.

    Attributes:
      add_clipped_sums: the C function of `kernel/clipped_sums.cpp`.
      seconds: duration of the compilation; 0 if the cache had the kernel.
    """

    add_clipped_sums: "ctypes._NamedFuncPointer"
    seconds: float


class CompiledSums:
    """Computes clipped sums over a sample with the kernel."""

    def __init__(self, kernel: Kernel, state: TrainState, spec: ModelSpec) -> None:
        if (state.inputs.dtype, state.labels.dtype) != (torch.float32, torch.int64):  # the kernel reads bare memory
            raise TypeError(f"inputs are {state.inputs.dtype} and labels {state.labels.dtype}, not float32 and int64")
        self._kernel = kernel
        self._inputs, self._labels = state.inputs.contiguous(), state.labels.contiguous()
        self._parameters = [parameter.detach() for parameter in state.module.parameters()]
        self._weights = torch.empty(spec.parameters)
        self.facts = {"grad_sample": "book_keeping", "kernel": "compiled", "kernel_compile_s": f"{kernel.seconds:.2f}"}

    def __call__(self, sample: Tensor, clip_norm: float, *, threads: int | None = None) -> tuple[list[Tensor], Tensor]:
        """Returns clipped sums in the shapes of the parameters, and squared norms (n,).

        Args:
          sample: int64 indices (n,).
          clip_norm: bound on one example's gradient.
          threads: number of threads that share the sample; None takes PyTorch's.

        Raises:
          IndexError: no example has one of the indices.
        """
        sample = sample.to(torch.int64).contiguous()
        if len(sample) and not 0 <= int(sample.min()) <= int(sample.max()) < len(self._labels):
            raise IndexError(f"sample has indices outside of {len(self._labels)} examples")
        for own, parameter in zip(self._views(self._weights), self._parameters, strict=True):
            own.copy_(parameter)
        sums, squared = torch.zeros_like(self._weights), torch.empty(len(sample))
        arrays = (self._weights, self._inputs, self._labels, sample)
        self._kernel.add_clipped_sums(
            *(array.data_ptr() for array in arrays), len(sample), clip_norm, sums.data_ptr(), squared.data_ptr(),
            threads or torch.get_num_threads(),
        )  # fmt: skip
        return self._views(sums), squared

    def close(self) -> None:
        """There are no hooks."""

    def _views(self, flat: Tensor) -> list[Tensor]:
        """Views flat weights in kernel order as parameters of PyTorch: (height, width, in, out) as (out, in, ...)."""
        parts = flat.split([parameter.numel() for parameter in self._parameters])
        return [
            part.view(*shape[2:], shape[1], shape[0]).permute(3, 2, 0, 1) if len(shape) == 4 else part.view(shape)
            for part, shape in zip(parts, (parameter.shape for parameter in self._parameters), strict=True)
        ]


def compiled_sums(state: TrainState, spec: ModelSpec) -> CompiledSums | None:
    """Returns the kernel's sums; compiles the kernel if the cache has none.

    Returns None on a GPU, and for a model that the kernel does not know or would not speed up. If there is no C++
    compiler, or the kernel fails its trial, it logs one line and returns None.
    """
    layers = kernel_layers(spec)
    if state.device.type != "cpu" or layers is None:
        return None
    try:
        kernel = _build(layers)
        require_sound(lambda trial: CompiledSums(kernel, trial, spec), state, spec)
    except TrialError as error:
        _warn_once(f"the compiled kernel {error}; set CXX to another compiler")
        return None
    except (OSError, RuntimeError) as error:
        _warn_once(str(error))
        return None
    return CompiledSums(kernel, state, spec)


def kernel_layers(spec: ModelSpec) -> str | None:
    """Returns a model's layers as the kernel's types, such as "Conv<28, 28, 1, ...>, Tanh<3136>, ...".

    Returns None without a convolution, and if the kernel does not know a layer or cannot divide a size into vectors.
    """
    shape, found, convolutions = spec.features, [], 0
    for layer in spec.layers:
        if isinstance(layer, Conv):
            if convolutions and (layer.channels_in % VECTOR or any(layer.padding)):
                return None
            convolutions += 1
        term, along, shape = _term(layer, shape)
        if along % VECTOR:
            return None
        found.append(term)
    return ", ".join(filter(None, found)) if convolutions else None


def _term(layer: Layer, shape: tuple[int, ...]) -> tuple[str, int, tuple[int, ...]]:
    """A layer as the kernel's type, the size that its vectors run along, and the shape of its outputs."""
    match layer:
        case Conv():
            numbers = (*shape, layer.filters, *layer.kernel, *layer.stride, *layer.padding)
            sides = map(positions, shape[:2], layer.kernel, layer.stride, layer.padding)
            return f"Conv<{_list(numbers)}>", layer.filters, (*sides, layer.filters)
        case MaxPool():
            sides = map(positions, shape[:2], layer.window, layer.stride)
            return f"MaxPool<{_list((*shape, *layer.window, *layer.stride))}>", shape[2], (*sides, shape[2])
        case Tanh() | Relu():
            return f"{type(layer).__name__}<{prod(shape)}>", prod(shape), shape
        case Reshape():
            return "", VECTOR, layer.shape
        case Dense():
            return f"Dense<{layer.units_in}, {layer.units}>", layer.units_in, (layer.units,)


def _list(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


def _build(layers: str) -> Kernel:
    """Loads the kernel from the cache, or compiles it into the cache.

    Raises:
      RuntimeError: no compiler, or it fails.
      OSError: the cache cannot be written, or what is in it cannot be loaded.
    """
    native = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    flags = ("-std=c++17", "-O3", "-ffp-contract=fast", native, "-shared", "-fPIC", f"-DLAYERS={layers}")
    named = os.environ.get("CXX", "")  # part of the key: users name another compiler if the first one's kernel fails
    key = hashlib.sha256("\0".join([named, *flags, _processor(), *(path.read_text() for path in SOURCES)]).encode())
    path, seconds = cache_folder() / "kernels" / f"{key.hexdigest()}.so", 0.0
    make_private(path.parent)
    if flaw := foreign_hand(path if path.exists() else path.parent):  # a cached kernel is code
        _warn_of_cache(flaw)
        return _built_apart(flags)
    if not path.exists():
        seconds = -time.perf_counter()
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".compile-") as folder:
            made = _compile(flags, Path(folder, "kernel.so"))
            made.chmod(0o700)
            with made.open("rb") as file:  # the cache must never hold half a file: loading it would crash
                os.fsync(file.fileno())
            made.replace(path)
        seconds += time.perf_counter()
    return _loaded(path, seconds)


def _built_apart(flags: tuple[str, ...]) -> Kernel:
    """Compiles into a temporary folder, and removes it once the kernel is loaded."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="privacy-pipelines-") as folder:
        return _loaded(_compile(flags, Path(folder, "kernel.so")), time.perf_counter() - began)


def _loaded(path: Path, seconds: float) -> Kernel:
    function = ctypes.CDLL(str(path)).add_clipped_sums
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    function.argtypes = (*[pointer] * 4, count, ctypes.c_float, pointer, pointer, ctypes.c_uint)
    function.restype = None
    return Kernel(function, seconds)


def _processor() -> str:
    """Identifies the processor that the code is for, because other machines may share the cache."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "") + platform.machine()


def _compile(flags: tuple[str, ...], output: Path) -> Path:
    compiler = os.environ.get("CXX") or next(filter(shutil.which, COMPILERS), None)
    if compiler is None:
        raise RuntimeError("no C++ compiler found; install g++ or name one in CXX")
    source = next(path for path in SOURCES if path.suffix == ".cpp")
    try:
        done = subprocess.run([*compiler.split(), *flags, source, "-o", output], capture_output=True, text=True)
    except OSError as error:
        raise RuntimeError(
            f"the C++ compiler {compiler} cannot be run ({error.strerror}); set CXX to another"
        ) from None
    if done.returncode:
        complaint = next((line for line in done.stderr.splitlines() if "error" in line), "no message")
        raise RuntimeError(f"the C++ compiler {compiler} failed: {complaint}")
    return output


@lru_cache
def _warn_of_cache(flaw: str) -> None:
    logger.warning(
        "the kernel is compiled again: a cached kernel is code, and %s; run chmod go-w on that path, or set "
        "PIPELINES_CACHE to a folder of your own",
        flaw,
    )


@lru_cache
def _warn_once(reason: str) -> None:
    logger.warning("gradients are computed by PyTorch's operations, at half the speed or less: %s", reason)
