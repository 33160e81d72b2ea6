"""What every room shares: calls of a model, random generators, files, options, factories.

Import from here: `accepted`, `arguments`, `blame`, `calls`, `inputs`, `untouched`, `randomness`, `losses`, `files`,
`options`, `factories`.
May import: `errors`.
"""
