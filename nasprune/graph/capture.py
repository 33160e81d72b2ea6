"""Capturing a model with torch.export, without leaving a mark on it."""

from __future__ import annotations

import contextlib
import io
import logging
import operator
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves

from nasprune.common.calls import plain_attention, removed_after
from nasprune.common.inputs import PLAIN, Inputs
from nasprune.common.outputs import check_outputs, check_values, leaves_of
from nasprune.common.untouched import undisturbed
from nasprune.errors import InputError, NaspruneError, TraceError
from nasprune.graph.outside import same_tensor
from nasprune.graph.program import Program
from nasprune.graph.refine import name_real_modules, observe_sizes

REGIONS = ("wrap_with_autocast", "wrap_with_set_grad_enabled")
LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))
"""Folders of code that is not the user's."""
OF_A_PART = "trace a part that has no data-dependent code with scope=, for example scope='backbone'"


def submodule(model: nn.Module, scope: str | None) -> nn.Module:
    """The part of the model that `scope` names; the model itself for `None`."""
    if scope is None:
        return model
    try:
        return model.get_submodule(scope)
    except AttributeError:
        children = ", ".join(name for name, _ in model.named_children()) or "none"
        raise InputError(f"expected scope to name a submodule, got {scope!r}; top-level ones: {children}") from None


def scoped_inputs(model: nn.Module, inputs: Inputs, scope: str) -> Inputs:
    """What the submodule receives when the whole model runs on `inputs`."""
    seen: list[Inputs] = []
    module = submodule(model, scope)

    def watch(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if not seen:
            seen.append(Inputs(args, kwargs).clone())

    handle = module.register_forward_pre_hook(watch, with_kwargs=True)
    try:
        with undisturbed(model):
            inputs.clone().call(model)
    finally:
        handle.remove()
    if not seen:
        raise InputError(f"scope {scope!r} is never run by the model on these inputs; name a submodule that is")
    return seen[0]


def capture(model: nn.Module, inputs: Inputs) -> Program:
    """The program of `model` on `inputs`.

    Raises:
        TraceError: the model cannot be exported as one graph; the message has the operation and the line.
        InputError: the model itself does not run on `inputs`.
    """
    with undisturbed(model), plain_attention(), quiet():
        try:
            outputs = inputs.clone().call(model)  # what it keeps from its first run is then made of real tensors
            check_outputs(outputs)
            check_values(inputs.tensors, outputs)
            with flat(model, outputs):
                exported = _export(model, inputs)
        except NaspruneError:
            raise
        except Exception as error:  # torch.export raises whatever the user's code or its own passes raise
            failure: Exception = error
        else:
            failure = TraceError()
    if not isinstance(failure, TraceError):
        check_runs(model, inputs, failure)
        raise TraceError(explain(failure)) from failure
    inline_regions(exported.graph_module)
    name_real_modules(exported.graph_module, model)
    first_names = _first_names(model)
    state = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers(remove_duplicate=False))
    params: dict[str, str] = {}
    constants: dict[str, Tensor] = {}
    names: list[str] = []
    for spec in exported.graph_signature.input_specs:
        if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
            params[spec.arg.name] = first_names.get(str(spec.target), str(spec.target))
        elif spec.kind is InputKind.USER_INPUT:
            names.append(spec.arg.name)
        else:
            value = exported.constants.get(str(spec.target))
            if not isinstance(value, Tensor):
                raise TraceError(
                    f"the model holds a constant {spec.target!r} that is no tensor; nasprune cannot trace it"
                )
            name = next((name for name, own in state.items() if same_tensor(own, value)), None)
            if name is None:
                constants[spec.arg.name] = value.detach()
            else:  # read by another way, such as a list
                params[spec.arg.name] = first_names[name]
    leaves = {place: state[name].detach() for place, name in params.items() if name in state} | constants
    buffers = frozenset(first_names.get(name, name) for name in exported.graph_signature.inputs_to_buffers.values())
    keywords = tuple(exported.call_spec.in_spec.child(1).context)
    observe_sizes(exported.graph_module, leaves | dict(zip(names, inputs.ordered(keywords).leaves, strict=True)))
    return Program(exported.graph_module, params, constants, tuple(names), buffers, keywords)


def _export(model: nn.Module, inputs: Inputs) -> ExportedProgram:
    """A forward that catches exceptions of its own calls confuses the plain way of export: then the other is taken."""
    try:
        return torch.export.export(model, inputs.args, dict(inputs.kwargs), strict=False)
    except AssertionError as error:
        if "Unexpected key" not in str(error):
            raise
        return torch.export.export(model, inputs.args, dict(inputs.kwargs), strict=True)


def flat(model: nn.Module, outputs: Any) -> contextlib.AbstractContextManager[None]:
    """Inside, a model whose outputs hold what torch.export does not know gives the values in them instead."""
    if all(isinstance(leaf, PLAIN) for leaf in tree_leaves(outputs)):
        return contextlib.nullcontext()

    def values(_: nn.Module, __: tuple[Any, ...], given: Any) -> list[Any]:
        return [leaf for leaf in leaves_of(given) if isinstance(leaf, PLAIN)]

    return removed_after([model.register_forward_hook(values)])


def inline_regions(module: GraphModule) -> None:
    """Replaces regions that the code runs under `torch.autocast` or `torch.no_grad` by the operations inside them."""
    for node in list(module.graph.nodes):
        if getattr(node.target, "__name__", "") not in REGIONS:
            continue
        place = next(i for i, arg in enumerate(node.args) if isinstance(arg, Node) and arg.op == "get_attr")
        region = module.get_submodule(str(cast(Node, node.args[place]).target))
        if not isinstance(region, GraphModule):
            continue
        inline_regions(region)
        inputs = (inner for inner in region.graph.nodes if inner.op == "placeholder")
        known = cast(dict[Node, Node], dict(zip(inputs, node.args[place + 1 :], strict=True)))
        with module.graph.inserting_before(node):
            results: Any = module.graph.graph_copy(region.graph, known)
        for user in list(node.users):
            if user.target is operator.getitem:
                user.replace_all_uses_with(results[user.args[1]])
                module.graph.erase_node(user)
        if node.users:
            node.replace_all_uses_with(results)
        module.graph.erase_node(node)
    module.recompile()


def _first_names(model: nn.Module) -> dict[str, str]:
    """Every name of a parameter or buffer -> the first name of the same tensor: tied tensors count once."""
    first: dict[int, str] = {}
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {name: first.setdefault(id(value), name) for name, value in tensors}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """torch.export prints and logs its whole graph when it fails; the error says what matters."""
    level = logging.getLogger("torch").level
    logging.getLogger("torch").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch").setLevel(level)


def check_runs(model: nn.Module, inputs: Inputs, cause: Exception | None = None) -> None:
    """Raises InputError where not torch.export but the model fails on the inputs."""
    with undisturbed(model):
        try:
            inputs.clone().call(model)
        except Exception as error:
            raise InputError(
                f"the model does not run on inputs of shape {inputs}: {_first_line(error)}; check the input size"
            ) from cause


def explain(error: Exception, then: str = OF_A_PART) -> str:
    """One line: what failed, the line of the user's code that the message or the traceback names, and what to do."""
    lines = [line.strip() for line in str(error).splitlines()]
    places = [line for line in lines if line.startswith("File ") and "/torch/" not in line] or _called_at(error)
    place = f", at {places[-1].removeprefix('File ')}" if places else ""
    return f"torch.export cannot capture the model as one graph: {_first_line(error)}{place}; {then}"


def _called_at(error: Exception) -> list[str]:
    """The lines of code outside torch and nasprune that were running, the innermost last, as torch writes them."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(LIBRARIES) and Path(frame.filename).is_file()]
    return [f'File "{frame.filename}", line {frame.lineno}, in {frame.name}' for frame in own]


def _first_line(error: Exception) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text if len(text) <= 300 else f"{text[:300]}…"
