"""What every room shares: calls of a model, random generators, files, options, factories.

Import from here: `accepted`, `alone`, `arguments`, `blame`, `calls`, `inputs`, `outputs`, `untouched`, `randomness`,
`losses`, `files`, `options`, `factories`, `duties`.
May import: `errors`.
"""
