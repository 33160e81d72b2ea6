"""Supernets: find the choices, score the operations, trim and discretise within a budget."""
