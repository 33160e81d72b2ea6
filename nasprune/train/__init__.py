"""Accuracy back with gradients: polishing without labels, the training loop, its schedule, its devices.

Import from here: `polish`, `finetune`, `train_with`, `accuracy`, `loops`.
May import: `errors`, `common`, `graph`, `cost`, `cut`, `data`, `calibration`, `models`.
"""
