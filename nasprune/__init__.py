"""Architecture search for structured pruning of PyTorch models.

Every public name is resolved on first use (PEP 562), so that `import nasprune` loads neither torch nor any plugin.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nasprune.base import Batch as Batch
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
    from nasprune.calibration.kernel_entropy import kernel_indicator as kernel_indicator
    from nasprune.calibration.removal import removal_scores as removal_scores
    from nasprune.cli.compare import ComparedRun as ComparedRun
    from nasprune.cli.compare import compare as compare
    from nasprune.cli.watching import progress as progress
    from nasprune.codec.compressed import Compressed as Compressed
    from nasprune.codec.compressed import compress as compress
    from nasprune.codec.compressed import decompress as decompress
    from nasprune.common.inputs import Inputs as Inputs
    from nasprune.cost.budget import Budget as Budget
    from nasprune.cost.budget import Cost as Cost
    from nasprune.cost.flops import predict as predict
    from nasprune.cut.compose import compose as compose
    from nasprune.cut.plan import PrunePlan as PrunePlan
    from nasprune.cut.proof import Proof as Proof
    from nasprune.cut.surgery import build as build
    from nasprune.cut.verify import verify as verify
    from nasprune.data import DataSplits as DataSplits
    from nasprune.deploy.export import Exported as Exported
    from nasprune.deploy.export import export as export
    from nasprune.deploy.quantise import Quantised as Quantised
    from nasprune.deploy.quantise import quantise as quantise
    from nasprune.deploy.semi_structured import SemiStructured as SemiStructured
    from nasprune.deploy.semi_structured import semi_structured as semi_structured
    from nasprune.errors import BudgetError as BudgetError
    from nasprune.errors import InputError as InputError
    from nasprune.errors import NaspruneError as NaspruneError
    from nasprune.errors import PlanError as PlanError
    from nasprune.errors import PluginError as PluginError
    from nasprune.errors import TraceError as TraceError
    from nasprune.errors import UnknownNameError as UnknownNameError
    from nasprune.errors import VerificationError as VerificationError
    from nasprune.graph.drawn import draw as draw
    from nasprune.graph.model import AxisSlice as AxisSlice
    from nasprune.graph.model import Block as Block
    from nasprune.graph.model import CoupledGroup as CoupledGroup
    from nasprune.graph.model import ModelGraph as ModelGraph
    from nasprune.graph.model import OpNode as OpNode
    from nasprune.run.checkpoint import read_report as read_report
    from nasprune.run.checkpoint import save as save
    from nasprune.run.hub import from_pretrained as from_pretrained
    from nasprune.run.hub import push_to_hub as push_to_hub
    from nasprune.run.names import search_space as search_space
    from nasprune.run.plots import Plot as Plot
    from nasprune.run.report import FrontPoint as FrontPoint
    from nasprune.run.report import GroupOutcome as GroupOutcome
    from nasprune.run.report import SearchReport as SearchReport
    from nasprune.run.result import SearchResult as SearchResult
    from nasprune.run.search import search as search
    from nasprune.run.sweep import sweep as sweep
    from nasprune.run.trace import trace as trace
    from nasprune.space.budgeted import BudgetedSpace as BudgetedSpace
    from nasprune.space.choices import BlockChoice as BlockChoice
    from nasprune.space.choices import Decision as Decision
    from nasprune.space.choices import OpChoice as OpChoice
    from nasprune.space.choices import SearchSpace as SearchSpace
    from nasprune.space.choices import WidthChoice as WidthChoice
    from nasprune.space.trials import Trial as Trial
    from nasprune.space.trials import pareto_front as pareto_front
    from nasprune.sparse.clusters import KernelNet as KernelNet
    from nasprune.sparse.clusters import share_kernels as share_kernels
    from nasprune.sparse.contract import SparseLayer as SparseLayer
    from nasprune.sparse.contract import Sparsifier as Sparsifier
    from nasprune.strategies.contract import LiveBlock as LiveBlock
    from nasprune.strategies.contract import LiveScale as LiveScale
    from nasprune.strategies.contract import LiveSlots as LiveSlots
    from nasprune.strategies.contract import LiveWeight as LiveWeight
    from nasprune.strategies.contract import Strategy as Strategy
    from nasprune.strategies.contract import StrategyTask as StrategyTask
    from nasprune.strategies.learnable import learnable as learnable
    from nasprune.strategies.magnitudes import lamp_scores as lamp_scores
    from nasprune.strategies.noise import log_uniform_kl as log_uniform_kl
    from nasprune.strategies.noise import log_uniform_slope as log_uniform_slope
    from nasprune.strategies.norms import by_scales as by_scales
    from nasprune.strategies.norms import norm_scales as norm_scales
    from nasprune.strategies.norms import shrink_scales as shrink_scales
    from nasprune.strategies.prune import Trained as Trained
    from nasprune.strategies.prune import prune as prune
    from nasprune.strategies.pruner import Pruned as Pruned
    from nasprune.strategies.pruner import Pruner as Pruner
    from nasprune.strategies.pruner import pruner as pruner
    from nasprune.supernet.folders import load as load
    from nasprune.supernet.genotype.genotype import Gene as Gene
    from nasprune.supernet.genotype.genotype import Genotype as Genotype
    from nasprune.supernet.genotype.naming import supernet_space as supernet_space
    from nasprune.supernet.genotype.operations import OPERATIONS as OPERATIONS
    from nasprune.supernet.genotype.operations import FactorizedReduce as FactorizedReduce
    from nasprune.supernet.genotype.operations import ReLUConvBN as ReLUConvBN
    from nasprune.supernet.genotype.spaces import CellTopology as CellTopology
    from nasprune.supernet.genotype.spaces import OpCosts as OpCosts
    from nasprune.supernet.genotype.spaces import Site as Site
    from nasprune.supernet.genotype.spaces import Size as Size
    from nasprune.supernet.genotype.spaces import SupernetSpace as SupernetSpace
    from nasprune.supernet.score.noise import without_noise as without_noise
    from nasprune.supernet.score.paths import draw_paths as draw_paths
    from nasprune.supernet.score.proxies import ReluCodes as ReluCodes
    from nasprune.supernet.score.proxies import codes_along as codes_along
    from nasprune.supernet.score.proxies import flow_of_ones as flow_of_ones
    from nasprune.supernet.score.proxies import flows_along as flows_along
    from nasprune.supernet.score.proxies import positive_weights as positive_weights
    from nasprune.supernet.score.proxies import unlabelled_images as unlabelled_images
    from nasprune.supernet.score.scoring import batch_statistics as batch_statistics
    from nasprune.supernet.score.scoring import open_gates as open_gates
    from nasprune.supernet.score.scoring import repeatable as repeatable
    from nasprune.supernet.score.scoring import weights_of as weights_of
    from nasprune.supernet.score.surrogate import main_effects as main_effects
    from nasprune.supernet.score.surrogate import normal_scores as normal_scores
    from nasprune.supernet.score.surrogate import ranks as ranks
    from nasprune.supernet.storage import load_architecture as load_architecture
    from nasprune.supernet.storage import load_supernet as load_supernet
    from nasprune.supernet.storage import save_architecture as save_architecture
    from nasprune.supernet.storage import save_supernet as save_supernet
    from nasprune.supernet.supernet import Supernet as Supernet
    from nasprune.train.detection import Detection as Detection
    from nasprune.train.finetune import finetune as finetune
    from nasprune.train.polish import Polished as Polished
    from nasprune.train.polish import PolishStep as PolishStep
    from nasprune.train.polish import polish as polish
    from nasprune.train.targets import ModelTask as ModelTask
    from nasprune.train.targets import TrainingTask as TrainingTask

# Module -> the public names that live there; the imports above say the same to type checkers and editors.
_HOMES = {
    "base": "Batch Candidate ConsumerGram Controller Criterion EvaluationTask Evaluator LayerUnits "
    "OpScorer OpTask ScoreContext SpaceBuilder",
    "calibration.kernel_entropy": "kernel_indicator",
    "calibration.removal": "removal_scores",
    "codec.compressed": "Compressed compress decompress",
    "cli.compare": "ComparedRun compare",
    "cli.watching": "progress",
    "common.inputs": "Inputs",
    "cost.budget": "Budget Cost",
    "cost.flops": "predict",
    "cut.compose": "compose",
    "cut.plan": "PrunePlan",
    "cut.proof": "Proof",
    "cut.surgery": "build",
    "cut.verify": "verify",
    "data": "DataSplits",
    "deploy.export": "Exported export",
    "deploy.quantise": "Quantised quantise",
    "deploy.semi_structured": "SemiStructured semi_structured",
    "errors": "BudgetError InputError NaspruneError PlanError PluginError TraceError "
    "UnknownNameError VerificationError",
    "graph.drawn": "draw",
    "graph.model": "AxisSlice Block CoupledGroup ModelGraph OpNode",
    "run.checkpoint": "read_report save",
    "run.hub": "from_pretrained push_to_hub",
    "run.names": "search_space",
    "run.plots": "Plot",
    "run.report": "FrontPoint GroupOutcome SearchReport",
    "run.result": "SearchResult",
    "run.search": "search",
    "run.sweep": "sweep",
    "run.trace": "trace",
    "space.budgeted": "BudgetedSpace",
    "space.choices": "BlockChoice Decision OpChoice SearchSpace WidthChoice",
    "space.trials": "Trial pareto_front",
    "strategies.contract": "LiveBlock LiveScale LiveSlots LiveWeight Strategy StrategyTask",
    "sparse.clusters": "KernelNet share_kernels",
    "sparse.contract": "SparseLayer Sparsifier",
    "strategies.learnable": "learnable",
    "strategies.magnitudes": "lamp_scores",
    "strategies.noise": "log_uniform_kl log_uniform_slope",
    "strategies.prune": "Trained prune",
    "strategies.pruner": "Pruned Pruner pruner",
    "strategies.norms": "by_scales norm_scales shrink_scales",
    "supernet.genotype.genotype": "Gene Genotype",
    "supernet.genotype.operations": "FactorizedReduce OPERATIONS ReLUConvBN",
    "supernet.genotype.spaces": "CellTopology OpCosts Site Size SupernetSpace",
    "supernet.genotype.naming": "supernet_space",
    "supernet.score.noise": "without_noise",
    "supernet.score.paths": "draw_paths",
    "supernet.score.proxies": "ReluCodes codes_along flow_of_ones flows_along positive_weights unlabelled_images",
    "supernet.score.surrogate": "main_effects normal_scores ranks",
    "supernet.score.scoring": "batch_statistics open_gates repeatable weights_of",
    "supernet.folders": "load",
    "supernet.storage": "load_architecture load_supernet save_architecture save_supernet",
    "supernet.supernet": "Supernet",
    "train.detection": "Detection",
    "train.finetune": "finetune",
    "train.polish": "Polished PolishStep polish",
    "train.targets": "ModelTask TrainingTask",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOME_OF:
        raise AttributeError(f"module 'nasprune' has no attribute {name!r}; public names: {', '.join(__all__)}")
    value = getattr(import_module(f"nasprune.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("nasprune")
    except PackageNotFoundError:  # a checkout that was not installed
        return "0+unknown"


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
