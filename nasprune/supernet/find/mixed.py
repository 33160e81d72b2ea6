"""What a supernet is made of: places where several candidate operations read one tensor and their outputs are mixed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MixedOp:
    """One mixed operation.

    path: the module that holds the candidates. ops: the path of each candidate, in order. names: what they are called,
    distinct within the mixed operation. cell: path of the nearest ancestor that holds several mixed operations ("" is
    the whole net); index: which of those it is, in order of registration. input_shape, output_shape: of one candidate,
    batch first, as the probe saw them. weights: the shares of the candidates in the mixture, summing to one; `None`
    where they are unknown or where only one candidate runs. single_path: whether a forward pass runs only one of them.
    label: what ties it to others by the framework's own account, "" is nothing. found_by: how it was recognised, in
    words for the user. zeros: numbers of the candidates that give zeros whatever they read. named: whether it was
    found only because the user named its path.
    """

    path: str
    ops: tuple[str, ...]
    names: tuple[str, ...]
    cell: str
    index: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    weights: tuple[float, ...] | None
    single_path: bool
    label: str
    found_by: str
    zeros: tuple[int, ...] = ()
    named: bool = False


@dataclass(frozen=True)
class Findings:
    """mixed: in order of registration. rejected: path -> why siblings that looked like candidates are none.

    shared: path of a candidate -> other paths at which the same module plays a part. drawn: paths of the mixed
    operations whose weights the net draws at random in every forward pass. unnamed: path in `rejected` -> what would
    be a mixed operation if the user named it.
    """

    mixed: tuple[MixedOp, ...]
    rejected: dict[str, str]
    shared: dict[str, tuple[str, ...]]
    drawn: tuple[str, ...]
    unnamed: dict[str, str]
