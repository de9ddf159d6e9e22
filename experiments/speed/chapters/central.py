"""Central steps, plain and private, compared with plain PyTorch and Opacus."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from experiments.speed.subject import Chapter, Subject, Target

PROBE = ("-m", "experiments.speed.probes.central")
PEER = ("experiments/speed/peers/torch_steps.py",)
CNN: dict[str, Any] = {"model": "cnn", "batch": 512, "warm": 5, "steps": 65}
LINEAR: dict[str, Any] = {"model": "linear", "batch": 4000, "warm": 3, "steps": 33}
QUICK = {"steps": 15}
NEW_CACHE = {"PIPELINES_CACHE": "{scratch}/kernels-{repeat}"}
NO_COMPILER = {"PIPELINES_CACHE": "{scratch}/no-kernels", "CXX": "none"}
RATE = "examples_per_s"


def build() -> Chapter:
    """A step of the comparison CNN, and of a linear model on many features; also on a GPU if there is one."""
    graphics = shutil.which("nvidia-smi") is not None
    return Chapter(
        section="central",
        work="CNN: batches of 512 of 60,000 MNIST images, clip norm 1, noise multiplier 1. Linear: 3,969 standard "
        "normal features, batches of 4,000 of 60,000. Private batches are Poisson samples, counted by their expected "
        "size. Compilation is that of the kernel, with an empty cache, and no part of the first step.",
        subjects=(*_cnn(), *_linear(), *(_cuda() if graphics else ())),
        targets=(*_targets(), *(_cuda_targets() if graphics else ())),
        columns={
            RATE: "examples/s",
            "step_s": "s a step",
            "first_s": "first step, s",
            "compile_s": "compilation, s",
        },
    )


def _plain(name: str, label: str, loop: str, work: dict[str, Any]) -> Subject:
    return Subject(name=name, label=label, program=PEER, options=work | {"loop": loop}, quick=QUICK, kind="peer")


def _ours(name: str, label: str, variables: Mapping[str, str] | None = None, **options: Any) -> Subject:
    return Subject(name=name, label=label, program=PROBE, options=options, quick=QUICK, variables=variables or {})


def _cnn() -> tuple[Subject, ...]:
    def private(mode: str, variables: Mapping[str, str] | None = None) -> Subject:
        return _ours(f"dp_sgd_{mode}", f"dp_sgd, {mode}", variables, **CNN, pipeline="dp_sgd", grad_sample=mode)

    # Subjects that are compared run next to each other.
    return (
        _plain("torch_indexed", "plain PyTorch, indexed", "indexed", CNN),
        private("auto", NEW_CACHE),
        _plain("opacus", "Opacus' own loop", "opacus", CNN),
        _plain("torch_loader", "plain PyTorch, DataLoader", "loader", CNN),
        _ours("sgd", "sgd", **CNN, pipeline="sgd"),
        replace(private("auto", NO_COMPILER), name="dp_sgd_torch", label="dp_sgd, auto, no C++ compiler"),
        *(private(mode) for mode in ("ghost", "hooks", "functorch")),
    )


def _linear() -> tuple[Subject, ...]:
    return (
        _plain("torch_linear", "plain PyTorch, indexed, linear", "indexed", LINEAR),
        _ours("sgd_linear", "sgd, linear", **LINEAR, pipeline="sgd"),
        _ours("dp_sgd_linear", "dp_sgd, auto, linear", **LINEAR, pipeline="dp_sgd", grad_sample="auto"),
    )


def _cuda() -> tuple[Subject, ...]:
    return (
        _plain("torch_indexed_cuda", "plain PyTorch, indexed, CUDA", "indexed", CNN | {"device": "cuda"}),
        _ours("dp_sgd_cuda", "dp_sgd, auto, CUDA", **CNN, pipeline="dp_sgd", grad_sample="auto", device="cuda"),
        _ours("dp_sgd_cuda_hooks", "dp_sgd, hooks, CUDA", **CNN, pipeline="dp_sgd", grad_sample="hooks", device="cuda"),
    )


def _targets() -> tuple[Target, ...]:
    return (
        Target(
            claim="cost of dp_sgd: the faster plain PyTorch loop over dp_sgd, CNN",
            subject=("torch_indexed", "torch_loader"), reference=("dp_sgd_auto",), metric=RATE, bound=1.25,
        ),
        Target(
            claim="dp_sgd over Opacus' own loop, CNN",
            subject=("dp_sgd_auto",), reference=("opacus",), metric=RATE, bound=1.7, at_least=True,
        ),
        Target(
            claim="cost of dp_sgd: plain PyTorch over dp_sgd, linear",
            subject=("torch_linear",), reference=("dp_sgd_linear",), metric=RATE, bound=1.3,
        ),
        Target(
            claim="the same for the CNN without a C++ compiler",
            subject=("torch_indexed", "torch_loader"), reference=("dp_sgd_torch",), metric=RATE, bound=None,
        ),
        Target(
            claim="the same over our sgd, CNN, whose layout plain PyTorch does not have by default",
            subject=("sgd",), reference=("dp_sgd_auto",), metric=RATE, bound=None,
        ),
    )  # fmt: skip


def _cuda_targets() -> tuple[Target, ...]:
    return (
        Target(
            claim="cost of dp_sgd on CUDA: plain PyTorch over dp_sgd, CNN",
            subject=("torch_indexed_cuda",), reference=("dp_sgd_cuda",), metric=RATE, bound=None,
        ),
    )  # fmt: skip
