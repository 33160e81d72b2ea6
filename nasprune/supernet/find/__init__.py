"""Where a module mixes candidate operations: probed, recognised, tied into choices.

Import from here: `find_mixed_ops`, `MixedOp`, `choices`, `alpha_slots`.
May import: `errors`, `common`, `space`.
"""
