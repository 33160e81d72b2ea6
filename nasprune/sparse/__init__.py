"""Zeros inside of weights: which ones, what the other weights become, and how many each layer gets.

Import from here: `sparsify`, `ZeroSpace`, `ZeroBudget`; methods implement `contract.Sparsifier`.
May import: `errors`, `common`, `graph`, `cut`, `space`, `calibration`, `harm`, `refit`.
"""
