"""Names -> implementations: built-ins, installed packages, bundled files, `--plugins DIR`; imported when asked for.

Look-up order: built-ins; entry points in the groups `nasprune.criteria` and so on, one for each kind; the files bundled
with the package, or the sibling folders `plugins/` and `search_spaces/` where a `pyproject.toml` stands beside them;
folders given by the user. The current directory is never searched. A plugin file is named after its method and holds
one implementation: `DIR/criteria/NAME.py`, or `DIR/NAME.py`. A name that two of these declare is an error when it is
asked for. The user's own `module:attribute` or `file.py:attribute` works in the place of any name; as an evaluator it
may be a plain function of the network. `search_spaces/` holds two kinds, told apart by what a file declares.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from nasprune.common.alone import alone
from nasprune.common.blame import told
from nasprune.common.declared import check_declared
from nasprune.common.factories import find_factory
from nasprune.common.options import Named, parse_named
from nasprune.errors import InputError, NaspruneError, PluginError, UnknownNameError

BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
Plugins = str | Path | Sequence[str | Path] | None


@dataclass(frozen=True)
class Kind:
    """One extension point.

    base: the class to implement, "module:attribute", or `None` for a function `build`. adapter: what makes an
    implementation of a plain function, as "module:attribute", where functions are taken.
    """

    name: str
    singular: str
    base: str | None
    folder: str
    adapter: str | None = None

    @property
    def contract(self) -> str:
        """What a plugin file must hold, in words."""
        if self.base is None:
            return "a function `build`"
        return f"exactly one class that implements `nasprune.{self.base.partition(':')[2]}`"


KINDS = {
    kind.name: kind
    for kind in (
        Kind("criteria", "criterion", "nasprune.base:Criterion", "plugins/criteria"),
        Kind("controllers", "controller", "nasprune.base:Controller", "plugins/controllers"),
        Kind(
            "evaluators",
            "evaluator",
            "nasprune.base:Evaluator",
            "plugins/evaluators",
            "nasprune.evaluators.function:evaluator_of",
        ),
        Kind("strategies", "strategy", "nasprune.strategies.contract:Strategy", "plugins/strategies"),
        Kind("op_scorers", "scorer of operations", "nasprune.base:OpScorer", "plugins/op_scorers"),
        Kind("sparsifiers", "sparsifier", "nasprune.sparse.contract:Sparsifier", "plugins/sparsifiers"),
        Kind("op_rules", "op rule", "nasprune.graph.rules:OpRule", "plugins/op_rules"),
        Kind("search_spaces", "search space", None, "search_spaces"),
        Kind("supernet_spaces", "supernet space", "nasprune.supernet.genotype.spaces:SupernetSpace", "search_spaces"),
    )
}

BUILT_IN = {
    "criteria": {
        "l1": "nasprune.criteria.l1:L1",
        "l2": "nasprune.criteria.l2:L2",
        "random": "nasprune.criteria.random:RandomScore",
    },
    "controllers": {
        "auto": "nasprune.controllers.auto:Auto",
        "uniform": "nasprune.controllers.uniform:Uniform",
        "global": "nasprune.controllers.threshold:GlobalThreshold",
        "random": "nasprune.controllers.random:RandomSearch",
        "evolution": "nasprune.controllers.evolution:Evolution",
        "sensitivity": "nasprune.controllers.sensitivity:Sensitivity",
        "nni:TPE": "nasprune.controllers.nni:NniTPE",
        "nni:Evolution": "nasprune.controllers.nni:NniEvolution",
        "nni:Random": "nasprune.controllers.nni:NniRandom",
        "optuna:TPE": "nasprune.controllers.optuna:OptunaTPE",
        "optuna:NSGA2": "nasprune.controllers.optuna:OptunaNSGA2",
    },
    "evaluators": {
        "importance": "nasprune.evaluators.importance:Importance",
        "accuracy": "nasprune.evaluators.accuracy:Accuracy",
        "kl": "nasprune.evaluators.kl:KL",
        "loss": "nasprune.evaluators.loss:Loss",
    },
    "sparsifiers": {"obs": "nasprune.sparse.obs:OBS", "nettrim": "nasprune.sparse.nettrim:NetTrim"},
    "op_scorers": {
        "flops_order": "nasprune.supernet.score.scorers.flops_order:FlopsOrder",
        "random": "nasprune.supernet.score.scorers.random:RandomOps",
        "alpha": "nasprune.supernet.score.scorers.alpha:Alpha",
        "perturbation": "nasprune.supernet.score.scorers.perturbation:Perturbation",
    },
}


@dataclass(frozen=True)
class Entry:
    """A name and where it comes from. Nothing is imported before `load`."""

    kind: str
    name: str
    origin: str
    _load: Callable[[], Any] = field(repr=False, compare=False)

    def load(self) -> Any:
        """The class, or the `build` function of a search space.

        Raises:
            PluginError: it cannot be imported or is not an implementation of its kind; names origin and cause.
        """
        try:
            found = self._load()
        except (PluginError, InputError):
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"the {KINDS[self.kind].singular} {self.name!r} from {self.origin} cannot be loaded: {told(error)}"
            ) from error
        adapter = KINDS[self.kind].adapter
        if adapter is not None and callable(found) and not inspect.isclass(found):
            return _attribute(adapter)(found, self.name)
        if not _implements(found, KINDS[self.kind]):
            raise PluginError(f"{self.origin} gives {found!r} for {self.name!r}; expected {KINDS[self.kind].contract}")
        return found


def entries(kind: str, plugins: Plugins = None) -> list[Entry]:
    """Everything declared for one kind, in look-up order; plugin files are parsed but not run.

    Args:
        kind: a name in `KINDS`.
        plugins: a folder of plugin files, or several.

    Raises:
        InputError: a folder does not exist. UnknownNameError: there is no such kind.
    """
    if kind not in KINDS:
        raise UnknownNameError("kind of plugin", kind, KINDS)
    return [*_built_in(kind), *_installed(kind), *_bundled(kind), *_given(kind, plugins)]


def find(kind: str, name: str, plugins: Plugins = None, *, own: bool = True) -> Entry:
    """The one entry called `name`, or the user's own `module:attribute` or `file.py:attribute`.

    Args:
        own: whether the user gave the name. One that was read from a file is `own=False`: it is looked up among what
            is registered, and nothing that it names is imported otherwise.

    Raises:
        UnknownNameError: nothing is called so. PluginError: two origins declare the name.
    """
    known = entries(kind, plugins)
    found = [entry for entry in known if entry.name == name]
    if len(found) > 1:
        origins = " and by ".join(entry.origin for entry in found)
        raise PluginError(f"the {KINDS[kind].singular} {name!r} is declared twice, by {origins}; remove or rename one")
    if found:
        return found[0]
    if own and ".py:" in name:
        return Entry(kind, name, f"`{name}`", partial(find_factory, name, what=KINDS[kind].singular))
    module, colon, attribute = name.partition(":")
    if own and colon and attribute and not any(entry.name.startswith(f"{module}:") for entry in known):
        return Entry(kind, name, f"`{name}`", partial(_attribute, name))
    raise UnknownNameError(KINDS[kind].singular, name, (entry.name for entry in known))


def load(kind: str, name: str, plugins: Plugins = None) -> Any:
    """`find`, then `Entry.load`."""
    return find(kind, name, plugins).load()


def with_options(
    kind: str, spec: str, plugins: Plugins, shared: Sequence[str] = (), *, own: bool = True
) -> tuple[Any, Callable[[], Any], dict[str, Any]]:
    """The class that `spec` names, a constructor with the options given to it, and those given among `shared`.

    own: as `find` takes it.

    Raises:
        UnknownNameError: it, or one of the options, does not exist. InputError: an option is of another kind than the
        plugin declares, or the plugin refuses it.
    """
    named = parse_named(spec)
    found = find(kind, named.name, plugins, own=own).load()
    common = {option: value for option, value in named.options.items() if option in shared}
    given = {option: value for option, value in named.options.items() if option not in shared}
    known = [name for name, value in inspect.signature(found).parameters.items() if value.kind in BY_NAME]
    for option in given:
        if option not in known:
            raise UnknownNameError(f"`{named.name}` option", option, [*known, *shared])
    check_declared(named.name, found, given)
    make = partial(found, **given)
    try:
        make()
    except (TypeError, ValueError) as error:
        raise InputError(f"the {KINDS[kind].singular} {spec!r} refuses its options: {error}") from error
    return found, make, common


def with_keywords(kind: str, spec: str, plugins: Plugins, taken: Sequence[str]) -> tuple[Any, dict[str, Any]]:
    """The class or function that `spec` names, and the options given to it; `taken` are arguments that are no options.

    Raises:
        UnknownNameError: it, or one of the options, does not exist. InputError: an option is of another kind than the
        plugin declares.
    """
    named = parse_named(spec) if "(" in spec.rpartition(":")[2] else Named(spec)
    found = load(kind, named.name, plugins)
    parameters = inspect.signature(found).parameters
    known = [name for name, value in parameters.items() if value.kind in BY_NAME and name not in taken]
    for option in named.options:
        if option not in known:
            raise UnknownNameError(f"`{named.name}` option", option, known)
    check_declared(named.name, found, named.options)
    return found, named.options


def with_its(options: Mapping[str, Any], make: Callable[..., Any], spec: str, *args: Any, **kwargs: Any) -> Any:
    """What `make` gives with the options that were written behind its name.

    Raises:
        InputError: it refuses them.
    """
    try:
        return make(*args, **kwargs, **options)
    except (TypeError, ValueError) as error:
        if not options or isinstance(error, NaspruneError):
            raise
        raise InputError(f"{spec!r} refuses its options: {error}; give others") from error


def _built_in(kind: str) -> Iterator[Entry]:
    for name, path in BUILT_IN.get(kind, {}).items():
        yield Entry(kind, name, "built-in", partial(_attribute, path))


def _installed(kind: str) -> Iterator[Entry]:
    for point in _points(f"nasprune.{kind}", tuple(sys.path)):
        yield Entry(kind, point.name, _package(point), point.load)


@cache
def _points(group: str, path: tuple[str, ...]) -> Sequence[EntryPoint]:
    """The entry points of packages on the import path, by name. All packages are read for it, so once."""
    return sorted(entry_points(group=group), key=lambda point: point.name)


def _package(point: EntryPoint) -> str:
    return f"package {point.dist.name if point.dist is not None else point.module}"


def _bundled(kind: str) -> Iterator[Entry]:
    package = Path(__file__).resolve().parent
    roots = [package / "_bundled"]
    if (package.parent / "pyproject.toml").is_file():
        roots.append(package.parent)
    root = next((root for root in roots if root.is_dir()), None)
    if root is not None:
        yield from _own(kind, root / KINDS[kind].folder)


def _given(kind: str, plugins: Plugins) -> Iterator[Entry]:
    folders = [plugins] if isinstance(plugins, str | Path) else list(plugins or ())
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise InputError(f"the plugin folder {str(folder)!r} does not exist or is no folder; give the path of one")
        yield from _own(kind, folder.resolve() / Path(KINDS[kind].folder).name)
        yield from _declared(kind, folder.resolve())


def _own(kind: str, folder: Path) -> Iterator[Entry]:
    """The files in a folder of this kind: all of them, unless the folder is shared with another kind."""
    shared = sum(other.folder == KINDS[kind].folder for other in KINDS.values()) > 1
    yield from _declared(kind, folder) if shared else _files(kind, folder)


def _declared(kind: str, folder: Path) -> Iterator[Entry]:
    return (entry for entry in _files(kind, folder) if _declares(Path(entry.origin), KINDS[kind]))


def _files(kind: str, folder: Path) -> Iterator[Entry]:
    for path in sorted(folder.glob("*.py")):
        if not path.name.startswith("_"):
            yield Entry(kind, path.stem, str(path), partial(_from_file, path, KINDS[kind]))


def _declares(path: Path, kind: Kind) -> bool:
    """Whether the source of a plugin file declares an implementation of `kind`; one that does not parse may be any."""
    return _source_declares(path.read_bytes(), kind)


@lru_cache(maxsize=256)
def _source_declares(source: bytes, kind: Kind) -> bool:
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return True
    if kind.base is None:
        return any(isinstance(node, ast.FunctionDef) and node.name == "build" for node in tree.body)
    base = kind.base.partition(":")[2]
    bases = [expression for node in tree.body if isinstance(node, ast.ClassDef) for expression in node.bases]
    return any(ast.unparse(expression).rpartition(".")[2] == base for expression in bases)


def _from_file(path: Path, kind: Kind) -> Any:
    module = _run_file(path)
    if kind.base is None:
        return getattr(module, "build", None)
    own = (value for value in vars(module).values() if getattr(value, "__module__", None) == module.__name__)
    found = [value for value in own if _implements(value, kind)]
    if len(found) != 1:
        names = ", ".join(value.__name__ for value in found) or "none"
        raise PluginError(f"the plugin file {path} must hold {kind.contract}, found {names}")
    return found[0]


def _run_file(path: Path) -> ModuleType:
    name = f"nasprune_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    with alone():
        return sys.modules[name] if name in sys.modules else _run_anew(path, name)


def _run_anew(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _attribute(path: str) -> Any:
    module, _, attribute = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in attribute.split("."):
        found = getattr(found, part)
    return found


def _implements(value: Any, kind: Kind) -> bool:
    if kind.base is None:
        return callable(value)
    base = _attribute(kind.base)
    return inspect.isclass(value) and issubclass(value, base) and not inspect.isabstract(value)
