"""Architecture search for structured pruning of PyTorch models.

Every public name is resolved on first use (PEP 562), so that `import nasprune` loads neither torch nor any plugin.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasprune.base import Batch as Batch
    from nasprune.base import BudgetedSpace as BudgetedSpace
    from nasprune.base import Candidate as Candidate
    from nasprune.base import ConsumerGram as ConsumerGram
    from nasprune.base import Controller as Controller
    from nasprune.base import Criterion as Criterion
    from nasprune.base import EvaluationTask as EvaluationTask
    from nasprune.base import Evaluator as Evaluator
    from nasprune.base import LayerUnits as LayerUnits
    from nasprune.base import OpScorer as OpScorer
    from nasprune.base import OpTask as OpTask
    from nasprune.base import ScoreContext as ScoreContext
    from nasprune.base import SpaceBuilder as SpaceBuilder
    from nasprune.budget import Budget as Budget
    from nasprune.budget import Cost as Cost
    from nasprune.checkpoint import load as load
    from nasprune.checkpoint import save as save
    from nasprune.cost.flops import predict as predict
    from nasprune.data import DataSplits as DataSplits
    from nasprune.errors import BudgetError as BudgetError
    from nasprune.errors import InputError as InputError
    from nasprune.errors import NaspruneError as NaspruneError
    from nasprune.errors import PlanError as PlanError
    from nasprune.errors import PluginError as PluginError
    from nasprune.errors import TraceError as TraceError
    from nasprune.errors import UnknownNameError as UnknownNameError
    from nasprune.errors import VerificationError as VerificationError
    from nasprune.finetune import finetune as finetune
    from nasprune.graph.model import AxisSlice as AxisSlice
    from nasprune.graph.model import Block as Block
    from nasprune.graph.model import CoupledGroup as CoupledGroup
    from nasprune.graph.model import ModelGraph as ModelGraph
    from nasprune.graph.model import OpNode as OpNode
    from nasprune.graph.trace import trace as trace
    from nasprune.plan import PrunePlan as PrunePlan
    from nasprune.registry import search_space as search_space
    from nasprune.registry import supernet_space as supernet_space
    from nasprune.removal import removal_scores as removal_scores
    from nasprune.report import FrontPoint as FrontPoint
    from nasprune.report import GroupOutcome as GroupOutcome
    from nasprune.report import Proof as Proof
    from nasprune.report import SearchReport as SearchReport
    from nasprune.report import Trial as Trial
    from nasprune.report import pareto_front as pareto_front
    from nasprune.search import SearchResult as SearchResult
    from nasprune.search import search as search
    from nasprune.space import BlockChoice as BlockChoice
    from nasprune.space import Decision as Decision
    from nasprune.space import OpChoice as OpChoice
    from nasprune.space import SearchSpace as SearchSpace
    from nasprune.space import WidthChoice as WidthChoice
    from nasprune.supernet.genotype import Gene as Gene
    from nasprune.supernet.genotype import Genotype as Genotype
    from nasprune.supernet.operations import OPERATIONS as OPERATIONS
    from nasprune.supernet.operations import FactorizedReduce as FactorizedReduce
    from nasprune.supernet.operations import ReLUConvBN as ReLUConvBN
    from nasprune.supernet.scoring import batch_statistics as batch_statistics
    from nasprune.supernet.scoring import open_gates as open_gates
    from nasprune.supernet.scoring import repeatable as repeatable
    from nasprune.supernet.scoring import weights_of as weights_of
    from nasprune.supernet.spaces import CellTopology as CellTopology
    from nasprune.supernet.spaces import OpCosts as OpCosts
    from nasprune.supernet.spaces import Site as Site
    from nasprune.supernet.spaces import Size as Size
    from nasprune.supernet.spaces import SupernetSpace as SupernetSpace
    from nasprune.supernet.storage import load_architecture as load_architecture
    from nasprune.supernet.storage import load_supernet as load_supernet
    from nasprune.supernet.storage import save_architecture as save_architecture
    from nasprune.supernet.storage import save_supernet as save_supernet
    from nasprune.supernet.supernet import Supernet as Supernet
    from nasprune.surgery import build as build
    from nasprune.verify import verify as verify

# Module -> the public names that live there; the imports above say the same to type checkers and editors.
_HOMES = {
    "base": "Batch BudgetedSpace Candidate ConsumerGram Controller Criterion EvaluationTask Evaluator LayerUnits "
    "OpScorer OpTask ScoreContext SpaceBuilder",
    "budget": "Budget Cost",
    "checkpoint": "load save",
    "cost.flops": "predict",
    "data": "DataSplits",
    "errors": "BudgetError InputError NaspruneError PlanError PluginError TraceError "
    "UnknownNameError VerificationError",
    "finetune": "finetune",
    "graph.model": "AxisSlice Block CoupledGroup ModelGraph OpNode",
    "graph.trace": "trace",
    "plan": "PrunePlan",
    "registry": "search_space supernet_space",
    "removal": "removal_scores",
    "report": "FrontPoint GroupOutcome Proof SearchReport Trial pareto_front",
    "search": "SearchResult search",
    "space": "BlockChoice Decision OpChoice SearchSpace WidthChoice",
    "supernet.genotype": "Gene Genotype",
    "supernet.operations": "FactorizedReduce OPERATIONS ReLUConvBN",
    "supernet.scoring": "batch_statistics open_gates repeatable weights_of",
    "supernet.spaces": "CellTopology OpCosts Site Size SupernetSpace",
    "supernet.storage": "load_architecture load_supernet save_architecture save_supernet",
    "supernet.supernet": "Supernet",
    "surgery": "build",
    "verify": "verify",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)

try:
    __version__ = version("nasprune")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'nasprune' has no attribute {name!r}; public names: {', '.join(__all__)}")
    value = getattr(import_module(f"nasprune.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps `nasprune.search` the function: importing the submodule of that name would otherwise overwrite it."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
