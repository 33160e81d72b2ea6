"""Built-in controllers, one a file; `registry.BUILT_IN` names them.

Import from here: `Auto`; the others are loaded by name.
May import: `errors`, `space`, `base`.
"""
