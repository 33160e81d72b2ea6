"""The error family. Every message says what was expected, what was got, and what to do next."""

from __future__ import annotations

from collections.abc import Iterable


class NaspruneError(Exception):
    """Root of all errors raised on purpose; the command line turns it into one line and exit code 2."""


class InputError(NaspruneError, ValueError):
    """A value given by the user cannot be used: a name, a file, a shape, an option."""


class BudgetError(NaspruneError, ValueError):
    """A budget that does not parse or that no decision of the search space can meet."""


class TraceError(NaspruneError, RuntimeError):
    """The model cannot be captured as a graph."""


class PlanError(InputError):
    """A plan or decision that is damaged or does not fit the model it is applied to."""


class VerificationError(NaspruneError, RuntimeError):
    """A cut model does not compute what the masked original computes."""


class PluginError(NaspruneError, RuntimeError):
    """A plugin cannot be loaded, or breaks its contract."""


LONGEST = 200
"""Characters of an unknown name that are shown."""


class UnknownNameError(InputError, KeyError):
    """A name that is not among the known ones; the message lists the nearest."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        import difflib  # not at the top: a command must be able to say at once that it was interrupted

        names = sorted(known)
        name = name if len(name) <= LONGEST else f"{name[:LONGEST]}…"
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        listed = ", ".join(names) if len(names) <= 30 else f"{', '.join(names[:30])}, … ({len(names)} in all)"
        self.message = f"unknown {kind} {name!r}: {hint}known: {listed or 'none'}"
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message
