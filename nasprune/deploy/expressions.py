"""Operations of a captured program, and their arguments, as Python that needs torch alone."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import inf, isfinite
from typing import Any

import torch
from torch.fx import Node

from nasprune.errors import InputError

INFIX = {
    "add": "+", "sub": "-", "mul": "*", "truediv": "/", "floordiv": "//", "mod": "%", "pow": "**",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
}  # fmt: skip
METHODS = frozenset({
    "add_", "amax", "amin", "argmax", "bmm", "clamp", "clone", "contiguous", "cumsum", "div_", "exp", "expand",
    "flatten", "log", "matmul", "max", "mean", "min", "mul_", "permute", "pow", "relu", "relu_", "repeat", "reshape",
    "rsqrt", "sigmoid", "sigmoid_", "softmax", "split", "sqrt", "squeeze", "sub_", "sum", "tanh", "transpose", "unbind",
    "unflatten", "unsqueeze", "view",
})  # fmt: skip
"""Operations that are methods of a tensor with the same arguments."""
OF_TORCH = frozenset({"cat", "maximum", "minimum", "stack", "where"})
"""Operations that are functions of torch with the same arguments."""
FUNCTIONS = frozenset({
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "conv1d", "conv2d", "conv3d", "gelu",
    "hardtanh", "layer_norm", "leaky_relu", "linear", "log_softmax", "max_pool1d", "max_pool2d", "pad", "pixel_shuffle",
    "scaled_dot_product_attention",
})  # fmt: skip
"""Operations that are functions of torch.nn.functional with the same arguments."""
WITHOUT_EFFECT = frozenset({
    "aten.alias.default", "aten.alpha_dropout.default", "aten.detach.default", "aten.detach_.default",
    "aten.dropout.default", "aten.feature_dropout.default", "aten.lift_fresh_copy.default",
})  # fmt: skip
"""Operations that give their input, in a network that is not trained."""
CHECKS = ("_assert", "sym_constrain", "_guards")
OPEN_END = 2**63 - 1
Named = Callable[[Node], str]


def is_check(node: Node) -> bool:
    """Whether the operation only checks what was known when the network was captured."""
    name = str(node.target).removeprefix("aten.")
    return name.startswith(CHECKS) or "_assert" in name


def expression(node: Node, named: Named) -> str:
    """What computes the value of `node`, an operation. named: the expression of each earlier value.

    Raises:
        InputError: the operation is of another library than torch, or one that runs other programs.
    """
    target, args = node.target, [argument(value, named) for value in node.args]
    if target is operator.getitem:
        return f"{args[0]}[{args[1]}]"
    if isinstance(target, torch._ops.OpOverload):
        return _operation(target, node, args, named)
    name = getattr(target, "__name__", str(target))
    module = getattr(target, "__module__", "")
    if module in ("_operator", "operator") and name in INFIX:
        return f"{_bracketed(args[0])} {INFIX[name]} {_bracketed(args[1])}"
    if module in ("_operator", "operator", "math", "torch"):
        return f"{module.strip('_')}.{name}({', '.join(args)})"
    raise InputError(f"the network runs {name!r}, which has no form in plain Python; take the format pt2 or onnx")


def _operation(target: Any, node: Node, args: list[str], named: Named) -> str:
    library, _, name = target._schema.name.partition("::")
    if library != "aten":
        raise InputError(
            f"the network runs {target._schema.name!r}, an operator that torch alone does not have; take the format "
            "pt2 or onnx"
        )
    given = [*args, *(f"{key}={argument(value, named)}" for key, value in node.kwargs.items())]
    if str(target) in WITHOUT_EFFECT:
        return args[0]
    if name in INFIX and len(given) == 2:
        return f"{_bracketed(args[0])} {INFIX[name]} {_bracketed(args[1])}"
    if name == "slice":
        return _slice(*args)
    if name == "select":
        return f"{args[0]}.select({', '.join(args[1:])})"
    if name == "sym_size":
        return f"{args[0]}.shape[{args[1]}]"
    if name == "silu_":
        return f"functional.silu({args[0]}, inplace=True)"
    if name == "silu":
        return f"functional.silu({args[0]})"
    if name in METHODS:
        return f"{args[0]}.{name}({', '.join(given[1:])})"
    if name in OF_TORCH:
        return f"torch.{name}({', '.join(given)})"
    if name in FUNCTIONS:
        return f"functional.{name}({', '.join(given)})"
    return f"torch.ops.{target}({', '.join(given)})"


def _slice(value: str, axis: str = "0", start: str = "None", end: str = "None", step: str = "1") -> str:
    """A stretch of one axis in the form of an index."""
    if not axis.isdigit() or int(axis) > 3:
        return f"torch.ops.aten.slice.Tensor({value}, {axis}, {start}, {end}, {step})"
    begin = "" if start in ("0", "None") else start
    stop = "" if end in (str(OPEN_END), "None") else end
    stride = "" if step == "1" else f":{step}"
    if not begin and not stop and not stride:
        return value
    return f"{value}[{':, ' * int(axis)}{begin}:{stop}{stride}]"


def argument(value: Any, named: Named) -> str:
    """An argument of an operation."""
    if isinstance(value, Node):
        return named(value)
    if isinstance(value, list | tuple):
        inner = ", ".join(argument(part, named) for part in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {argument(part, named)}" for key, part in value.items()) + "}"
    if isinstance(value, float) and not isfinite(value):
        return "float('nan')" if value != value else f"float('{'' if value == inf else '-'}inf')"
    if isinstance(value, slice):
        return f"slice({', '.join(argument(part, named) for part in (value.start, value.stop, value.step))})"
    if isinstance(value, torch.dtype | torch.memory_format | torch.layout):
        return str(value)
    if isinstance(value, torch.device):
        return f"torch.device({str(value)!r})"
    if value is None or isinstance(value, bool | int | float | complex | str):
        return repr(value)
    raise InputError(
        f"an operation takes a {type(value).__name__}, which has no form in plain Python; take the format pt2 or onnx"
    )


def _bracketed(text: str) -> str:
    return text if text.replace("_", "").replace(".", "").isalnum() else f"({text})"
