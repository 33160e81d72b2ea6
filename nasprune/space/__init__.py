"""What may be decided, what it costs, and the solver: choices, decisions, trials, priced spaces, the knapsack.

Import from here: `choices`, `trials`, `BudgetedSpace`, `PricedSpace`, `solve`.
May import: `errors`, `common`, `graph`, `cost`, `cut`.
"""
