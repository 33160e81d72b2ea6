"""Accuracy back without training: least squares layer by layer, batch norms estimated anew.

Import from here: `reconstruct`, `recalibrate`.
May import: `errors`, `common`, `graph`, `cut`, `data`, `calibration`.
"""
