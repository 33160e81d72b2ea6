"""What can be cut: the captured program, channel groups, removable blocks. Knows nothing of cutting.

Import from here: `ModelGraph` and its parts from `model`, `analyse`, `capture`, `OpRule` from `rules`.
May import: `errors`, `common`.
"""
