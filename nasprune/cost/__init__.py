"""What a network costs: budgets, exact FLOPs and parameters by formula and by count, latency.

Import from here: `Budget`, `Cost`, `CostModel`, `measure`, `compare_latency`, `units`.
May import: `errors`, `common`, `graph`.
"""
