"""Built-in criteria, one a file."""
