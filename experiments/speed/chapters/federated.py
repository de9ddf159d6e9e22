"""Federated rounds, compared with the peers."""

from dataclasses import replace
from typing import Any

from experiments.speed.subject import Chapter, Subject, Target

PROBE = ("-m", "experiments.speed.probes.federated")
PEERS = "experiments/speed/peers/"
WORK: dict[str, Any] = {"cohort": 50, "batch": 20}
# Runs a command in a system without namespaces. There the worker listens on TCP, as TFF does, without a relay.
FENCED = ("-m", "experiments.speed.probes.fenced")
OURS: dict[str, Any] = {**WORK, "pipeline": "fed_avg", "engine": "fast", "rounds": 40, "warm": 5, "memory_every": 1000}
POPULATION = {"population": 50}
BEST_STOCK = ("tff_keras", "tff_functional", "tff_iterator")


def build() -> Chapter:
    """The comparison round of our engine and of every peer."""
    return Chapter(
        section="federated",
        work="One round: 50 of 1,000 clients, 60 MNIST images each, batches of 20, one epoch of SGD 0.1, the "
        "comparison CNN (26,010 parameters); every example of a client in a fresh order each round.",
        subjects=(*_ours(), *_peers()),
        targets=_targets(),
        columns={
            "examples_per_s": "examples/s", "round_s": "s a round", "first_s": "first round, s",
            "python_mb": "Python, MB", "worker_mb": "worker, MB",
        },
    )  # fmt: skip


def _ours() -> tuple[Subject, ...]:
    quick = {"rounds": 12}
    # With 50 clients in total, every round takes all of them, also under Poisson sampling: cohorts have equal sizes.
    private = {"pipeline": "dp_fed_avg"}
    return (
        Subject(name="fed_avg", label="fed_avg", program=PROBE, options=OURS, quick=quick),
        Subject(name="fed_avg_open", label="fed_avg, worker open to all", program=FENCED, options=OURS, quick=quick),
        Subject(
            name="uniform_50", label="fed_avg uniform, 50 of 50", program=PROBE, quick=quick,
            options=OURS | POPULATION | {"weighting": "uniform"},
        ),
        Subject(
            name="dp_50", label="dp_fed_avg, 50 of 50", program=PROBE, quick=quick, options=OURS | POPULATION | private
        ),
        Subject(
            name="dp_poisson", label="dp_fed_avg, Poisson of 1,000", program=PROBE, quick={"rounds": 30, "warm": 10},
            options=OURS | private | {"rounds": 150, "warm": 50},  # until each cohort size has occurred once
        ),
        Subject(
            name="fed_avg_stock", label="fed_avg, engine=stock", program=PROBE, quick={"rounds": 6},
            options=OURS | {"engine": "stock", "rounds": 12, "warm": 3},
        ),
    )  # fmt: skip


def _peers() -> tuple[Subject, ...]:
    def stock(variant: str, label: str) -> Subject:
        return Subject(
            name=f"tff_{variant}", label=label, program=(f"{PEERS}tff_round.py",), kind="peer", quick={"rounds": 4},
            options=WORK | {"variant": variant, "rounds": 7},
        )  # fmt: skip

    def peer(name: str, label: str, script: str, rounds: int, **fields: Any) -> Subject:
        fields.setdefault("kind", "peer")
        return Subject(
            name=name, label=label, program=(f"{PEERS}{script}",), options=WORK | {"rounds": rounds},
            quick={"rounds": min(rounds, 6)}, **fields,
        )  # fmt: skip

    return (
        peer("tf_graph", "bare TensorFlow graph", "tf_graph_round.py", 40, kind="bound"),
        peer("torch_clients", "plain PyTorch loop", "torch_round.py", 15),
        peer("pfl", "pfl-research 0.6.0", "pfl_round.py", 15, environment="pfl"),
        stock("iterator", "stock TFF, functional, iterator"),
        stock("functional", "stock TFF, functional"),
        stock("keras", "stock TFF, Keras"),
        # A round takes half a minute, and the ratio is far from its target.
        replace(peer("flower", "Flower 1.41 simulation", "flower_round.py", 3, environment="flower"), repeats=1),
    )


def _targets() -> tuple[Target, ...]:
    def faster(claim: str, bound: float, *peers: str) -> Target:
        return Target(
            claim=claim, subject=("fed_avg",), metric="examples_per_s", reference=peers, bound=bound, at_least=True
        )

    return (
        faster("fed_avg over pfl-research", 2.0, "pfl"),
        faster("fed_avg over stock TFF (Keras)", 6.0, "tff_keras"),
        faster("fed_avg over the best stock TFF", 2.5, *BEST_STOCK),
        faster("fed_avg over Flower", 40.0, "flower"),
        faster("fed_avg over the bare TensorFlow graph", 0.7, "tf_graph"),
        Target(
            claim="cost of a worker that nobody else can reach",
            subject=("fed_avg",), reference=("fed_avg_open",), metric="round_s", bound=1.05,
        ),
        Target(
            claim="cost of Gaussian DP aggregation: round of dp_fed_avg over fed_avg uniform, all 50 of 50",
            subject=("dp_50",), reference=("uniform_50",), metric="round_s", bound=1.1,
        ),
        Target(
            claim="the same with Poisson cohorts of 1,000 clients, for the expected number of examples",
            subject=("fed_avg",), reference=("dp_poisson",), metric="examples_per_s", bound=1.1,
        ),
    )  # fmt: skip
