"""Accuracy back with gradients: the training loop, its schedule, its devices.

Import from here: `finetune`, `accuracy`, `loops`.
May import: `errors`, `common`, `data`, `models`.
"""
