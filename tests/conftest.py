"""One thread: the nets are tiny, and threads that wait for each other on a busy machine take most of the time."""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported, here and in sub-processes

import torch

torch.set_num_threads(1)
