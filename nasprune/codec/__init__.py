"""Weights as few bytes: shared values, gaps between those that are not zero, Huffman codes. A codec, no runtime.

Import from here: `compress`, `decompress`, `Compressed`.
May import: `errors`, `common`, `models`.
"""
