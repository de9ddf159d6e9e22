"""The PyTorch room: plain and private training with Opacus."""

import os

from pipelines.core.paths import scratch

# PyTorch's default is a known name in a folder that all users share. PyTorch reads this when it exports a model.
os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", scratch())
