"""Candidates taken out of a supernet, and what they leave behind.

Import from here: `cut`, `settle`, `switch_off`.
May import: `errors`, `common`, `space`, `supernet.find`.
"""
