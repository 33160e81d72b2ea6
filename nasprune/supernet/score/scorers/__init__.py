"""The built-in scorers of operations; more in `plugins/op_scorers/`."""
