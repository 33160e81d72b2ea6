"""What images say about a network: what layers read, Gram matrices, gradients; and a criterion's view of it.

Import from here: `Scorer`, `layers`, `consumers`, `removal_scores`.
May import: `errors`, `common`, `graph`, `base`, `data`.
"""
