"""Built-in evaluators, one a file."""
