"""A plan carried out and proved: from kept units to a smaller network that gives what the masked one gives.

Import from here: `PrunePlan`, `select`, `build`, `verify`, `prove`, `settle`.
May import: `errors`, `common`, `graph`, `cost`.
"""
