"""A search from its request to its report: `search` tells the story, each step has a file; runs saved and loaded.

Import from here: `search`, `save`, `load`, `trace`, `names`, `report`.
May import: `errors`, `common`, `registry`, `graph`, `cost`, `cut`, `space`, `base`, `data`, `calibration`, `harm`,
`refit`, `models`, `deploy`, `train`, `sparse`, `controllers`, `evaluators`.
"""
