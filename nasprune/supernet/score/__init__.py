"""What a supernet loses without each candidate: the task that scorers see, single paths, and the built-in scorers.

Import from here: `ScoringTask`, `op_scorer`, `seeded`, `paths`, `surrogate`.
May import: `errors`, `common`, `registry`, `space`, `base`, `supernet.find`, `supernet.price`, `supernet.structure`.
"""
