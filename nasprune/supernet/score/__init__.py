"""What a supernet loses without each candidate: the task that scorers see, and the built-in scorers.

Import from here: `ScoringTask`, `op_scorer`, `seeded`.
May import: `errors`, `common`, `registry`, `space`, `base`, `supernet.price`, `supernet.structure`.
"""
