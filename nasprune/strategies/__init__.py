"""Training a network so that it can be cut, in any loop: strategies, what they work with, and the end of the story.

Import from here: `pruner`, `Pruner`, `prune`, `compose`.
May import: `errors`, `common`, `registry`, `graph`, `cost`, `cut`, `space`, `data`, `calibration`, `models`,
`train`, `run`.
"""
