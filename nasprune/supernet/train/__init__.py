"""Training a supernet: weights and architecture weights in turn.

Import from here: `trained`, `tuned`.
May import: `errors`, `common`, `base`, `data`, `train`, `supernet.find`, `supernet.cut`, `supernet.structure`,
`supernet.score`.
"""
