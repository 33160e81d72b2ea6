"""Networks written in formats that other programs read, each read back and compared with the network in PyTorch.

Import from here: `export`, `Exported`, `quantise`, `Quantised`, `semi_structured`, `SemiStructured`, `FORMATS`,
`runtime_of`.
May import: `errors`, `common`, `graph`, `cost`, `data`, `models`.
"""
