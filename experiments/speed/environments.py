"""The machine and the interpreters: their places, installed packages, and missing environments."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil

from pipelines.core.paths import REPOSITORY

ROOT = REPOSITORY
PEERS = {"pfl": "pfl-research", "flower": "Flower"}
"""Environments of peers by name, with the purpose of each."""
PACKAGES = {
    "project": (
        "torch", "opacus", "tensorflow", "tensorflow-federated", "dp-accounting", "numpy", "mlflow", "hydra-core"
    ),
    "pfl": ("pfl", "torch", "numpy"),
    "flower": ("flwr", "ray", "torch", "numpy"),
}  # fmt: skip
VERSIONS = """
import importlib.metadata, json, platform, sys
found = {"python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


def interpreter(environment: str) -> Path:
    """The path of an environment's Python, which may not exist yet."""
    return Path(sys.executable) if environment == "project" else ROOT / ".bench" / environment / "bin" / "python"


def available(environment: str) -> bool:
    """Whether the build of an environment finished."""
    return environment == "project" or (ROOT / ".bench" / environment / ".complete").is_file()


def missing_line(environment: str) -> str:
    """Says which peers are left out without an environment, and how to build it."""
    return (
        f"{PEERS[environment]} is left out: .bench/{environment} is not built; "
        f"make bench or experiments/speed/peers/setup {environment}"
    )


def busy_line(cores: int) -> str | None:
    """Warns if other processes load the machine: they slow engines unequally, and change ratios."""
    load = os.getloadavg()[0]
    return f"this machine is busy (load {load:.1f}): ratios may be far off" if load > cores / 2 else None


def versions(environment: str) -> dict[str, str]:
    """Versions of the packages that affect an environment's speed."""
    command = [str(interpreter(environment)), "-c", VERSIONS, *PACKAGES[environment]]
    found: dict[str, str] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found


def machine() -> dict[str, str]:
    """Facts of the machine that affect the measurements."""
    found = {
        "cpu": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    # Shows readers that other processes did little at the time.
    return found | {"load": f"{os.getloadavg()[0]:.1f} at the start"} | _graphics()


def use_cores(count: int) -> int:
    """Restricts this process and its children to so many cores, or to all if there are fewer; returns their number."""
    cores = sorted(os.sched_getaffinity(0))[:count]
    os.sched_setaffinity(0, cores)
    return len(cores)


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.processor() or "unknown"


def _graphics() -> dict[str, str]:
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        names = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.split("\n")
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"gpu": names[0].strip()}
