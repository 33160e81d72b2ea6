"""Built-in criteria, one a file; `registry.BUILT_IN` names them.

Import from here: nothing: they are loaded by name.
May import: `graph`, `base`.
"""
