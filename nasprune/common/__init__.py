"""What every room shares: calls of a model, random generators, files, options, factories.

Import from here: `calls`, `inputs`, `randomness`, `losses`, `files`, `options`, `factories`.
May import: `errors`.
"""
