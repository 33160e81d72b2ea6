"""Where trained weights and CIFAR-10 images lie; tests that need them are skipped where they are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ASSETS = Path(os.environ.get("NASPRUNE_ASSETS", Path(__file__).parents[2] / "shared" / "data"))

needs_assets = pytest.mark.skipif(
    not (ASSETS / "cifar10_resnet20.safetensors").is_file(),
    reason=f"no test assets in {ASSETS}; set NASPRUNE_ASSETS to the folder that holds them",
)
