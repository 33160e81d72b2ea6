"""What every room shares: calls of a model, random generators, files, options, factories.

Import from here: `accepted`, `alone`, `arguments`, `blame`, `calls`, `declared`, `duties`, `factories`, `files`,
`inputs`, `losses`, `options`, `outputs`, `randomness`, `untouched`.
May import: `errors`.
"""
