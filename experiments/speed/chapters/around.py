"""The work around training: start-up, accounting, logging, evaluation."""

from typing import Any

from experiments.speed.subject import Chapter, Subject, Target

PROBES = "experiments.speed.probes"
RUN = ("-m", "pipelines.run")
DIGITS = ("pipeline=sgd", "dataset=digits", "pipeline.epochs=1")
LIBRARIES = (
    "hydra", "pydantic", "torch", "mlflow", "torch._dynamo", "torch.export._trace", "mlflow.pytorch",
    "mlflow.store.tracking.sqlalchemy_store",
)  # fmt: skip
"""The libraries that a run imports.

PyTorch's optimizers import its compiler, which also exports the model. MLflow imports its store.
"""
STORE = "tracking.uri=sqlite:///{scratch}/runs.db"
PLANS: dict[str, tuple[str, dict[str, Any]]] = {
    "account_examples": (
        "dp_sgd: 512 of 60,000, 20 epochs, epsilon 3",
        {"unit": "example", "population": 60_000, "sample": 512, "steps": 2344, "epsilon": 3.0, "delta": 1e-5},
    ),
    "account_users": (
        "dp_fed_avg: 50 of 1,000, 100 rounds, epsilon 8",
        {"unit": "user", "population": 1_000, "sample": 50, "steps": 100, "epsilon": 8.0, "delta": 1e-4},
    ),
}


def build() -> Chapter:
    """Seconds of whole processes, and shares of runs."""
    return Chapter(
        section="around",
        work="Start-up: the command line on digits, end to end, beside a Python that only imports torch and mlflow, "
        "and beside one that imports whatever the run does: Hydra, PyTorch's compiler and export, MLflow's store. "
        "Accounting: calibration, ten epsilons and the guarantee of one run, with empty caches; importing accountants "
        "counts apart, since a process, and so a sweep, does it once. MLflow: a run of about a minute. Evaluation: "
        "accuracy and loss on 10,000 MNIST images, CNN.",
        subjects=(*_start(), *_accounting(), *_tracking(), *_evaluation()),
        targets=_targets(),
        columns={
            "wall_s": "process, s", "import_s": "import, s", "run_s": "run, s", "calibration_s": "calibration, s",
            "accounting_s": "accounting, s", "again_s": "again, s", "further_s": "further run, s",
            "logging_s": "logging, s", "share": "share of run", "model_s": "model, s",
            "evaluation_s": "evaluation, s", "first_s": "first evaluation, s",
        },
    )  # fmt: skip


def _start() -> tuple[Subject, ...]:
    sweep = {"overrides": ["dataset=digits", "pipeline.rounds=5", "pipeline=fed_avg", STORE], "seeds": 4}
    return (
        Subject(name="imports", label="import torch, mlflow", program=("-c", "import torch, mlflow"), kind="bound"),
        Subject(
            name="libraries", label="import every library that a run needs", kind="bound",
            program=("-c", f"import os, {', '.join(LIBRARIES)}; os._exit(0)"),
        ),
        Subject(name="startup", label="sgd on digits, 1 epoch", program=(*RUN, *DIGITS, STORE), prime=True),
        Subject(
            name="startup_fresh", label="the same with a new MLflow database",
            program=(*RUN, *DIGITS, "tracking.uri=sqlite:///{scratch}/fresh-{repeat}.db"),
        ),
        Subject(
            name="sweep", label="fed_avg on digits, a sweep of 4 seeds", program=("-m", f"{PROBES}.sweep"),
            options=sweep, quick={"seeds": 2}, repeats=2,
        ),
    )  # fmt: skip


def _accounting() -> tuple[Subject, ...]:
    _, plan = PLANS["account_examples"]
    library = Subject(
        name="account_library", label="the noise of dp_sgd's plan by dp-accounting alone", kind="bound",
        program=("-m", f"{PROBES}.accounting"), options={**plan, "library": True}, repeats=1,
    )  # fmt: skip
    ours = tuple(
        Subject(
            name=name, label=label, program=("-m", f"{PROBES}.accounting"), options=plan,
            variables={"PIPELINES_CACHE": f"{{scratch}}/{name}-{{repeat}}"},
        )
        for name, (label, plan) in PLANS.items()
    )  # fmt: skip
    return (*ours, library)


def _tracking() -> tuple[Subject, ...]:
    overrides = ["dataset=mnist", "model=cnn", "pipeline=sgd", "dataset.folder={folder}", STORE]
    return (
        Subject(
            name="mlflow", label="sgd on MNIST, a minute", program=("-m", f"{PROBES}.mlflow_share"), repeats=1,
            options={"overrides": [*overrides, "pipeline.epochs=16"]},
            quick={"overrides": [*overrides, "pipeline.epochs=2"]},
        ),
    )  # fmt: skip


def _evaluation() -> tuple[Subject, ...]:
    return tuple(
        Subject(
            name=f"evaluate_{engine}", label=f"evaluation, {label}", program=("-m", f"{PROBES}.evaluation"),
            options={"engine": engine},
        )
        for engine, label in (("tensorflow", "TensorFlow"), ("torch", "PyTorch"))
    )  # fmt: skip


def _targets() -> tuple[Target, ...]:
    def seconds(claim: str, subject: str, metric: str, bound: float | None) -> Target:
        return Target(claim=claim, subject=(subject,), metric=metric, bound=bound, unit="s")

    return (
        Target(
            claim="a run on digits over importing torch and mlflow",
            subject=("startup",), reference=("imports",), metric="wall_s", bound=1.5,
        ),
        Target(
            claim="the same over importing every library that it needs",
            subject=("startup",), reference=("libraries",), metric="wall_s", bound=None,
        ),
        *(seconds(f"calibration and accounting, {label}", name, "run_s", 1.0) for name, (label, _) in PLANS.items()),
        Target(
            claim="calibration by dp-accounting's own distributions over ours",
            subject=("account_library",), reference=("account_examples",), metric="calibration_s", bound=None,
        ),
        Target(claim="MLflow's share of a run of a minute", subject=("mlflow",), metric="share", bound=0.02, unit=""),
        Target(
            claim="the same with the saved model", subject=("mlflow",), metric="share_with_model", bound=None, unit=""
        ),
        seconds("a further run of a sweep, fed_avg on digits", "sweep", "further_s", None),
        seconds("evaluation of 10,000 images, fed_avg's model", "evaluate_tensorflow", "evaluation_s", 0.5),
        seconds("evaluation of 10,000 images, sgd's model", "evaluate_torch", "evaluation_s", 0.5),
    )  # fmt: skip
