"""Built-in evaluators, one a file; `registry.BUILT_IN` names them.

Import from here: `evaluator_of`, `OwnFunction`; the others are loaded by name.
May import: `errors`, `common`, `graph`, `cut`, `space`, `base`, `refit`, `data`.
"""
