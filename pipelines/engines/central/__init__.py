"""The PyTorch room: plain and private training with Opacus."""

import os

from pipelines.core.paths import scratch

# PyTorch's own choice is a known name in a folder that all users share. Read when a model is exported.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", scratch())
