"""Inverse materials design: say what a crystal must be, let a model propose crystals that are so.

Names load when first used, so that `import matdesign as design` stays quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Crystals": "crystals.batch",
    "SoftCrystals": "crystals.batch",
    "Encoded": "crystals.symmetry.encoded",
    "Layout": "crystals.symmetry.layout",
    "encode": "crystals.symmetry.encoded",
    "read": "crystals.io.files",
    "write": "crystals.io.files",
    "load": "crystals.data.sets",
    "split": "crystals.data.splits",
    "datasets": "crystals.data.sets",
    "Generator": "generators.contract",
    "VAE": "generators.vae",
    "CouplingFlow": "generators.coupling_flow",
    "FlowMatching": "generators.flow_matching",
    "Autoregressive": "generators.autoregressive",
    "Diffusion": "generators.diffusion",
    "PropertyNetwork": "predictors.network",
    "fit": "generators.trainer",
    "training": "generators.trainer",
    "Run": "generators.trainer",
    "load_model": "generators.shipped",
    "models": "generators.shipped",
    "load_predictor": "predictors.shipped",
    "property_networks": "predictors.shipped",
    "Constraint": "constraints.base",
    "check": "constraints.checks",
    "check_constraint": "constraints.checking",
    "OnlyElements": "constraints.elements",
    "RequiredElements": "constraints.elements",
    "Composition": "constraints.composition",
    "ChargeNeutral": "constraints.charge",
    "MinDistance": "constraints.distance",
    "Between": "constraints.between",
    "Density": "constraints.between",
    "VolumePerAtom": "constraints.between",
    "NumberOfAtoms": "constraints.between",
    "SpaceGroup": "constraints.spacegroups",
    "CrystalSystem": "constraints.spacegroups",
    "ElectronegativityOrder": "constraints.charge",
    "Coordination": "constraints.coordination",
    "Diffraction": "constraints.diffraction",
    "Motif": "constraints.motif",
    "Property": "constraints.predicted",
    "Novelty": "constraints.novelty",
    "NovelFormula": "constraints.novelty",
    "Guide": "guidance.guide",
    "Potential": "loop.potential",
    "PotentialOracle": "loop.oracle",
    "Results": "loop.results",
    "ASEOracle": "loop.oracle",
    "Hull": "loop.hull",
    "Campaign": "loop.campaign",
    "TimeHead": "predictors.time_head",
    "judge": "loop.second_opinion",
    "evaluate": "metrics.evaluator",
    "Evaluation": "metrics.evaluator",
    "Protocol": "metrics.evaluator",
    "compare": "metrics.evaluator",
    "Predictions": "metrics.prediction",
    "evaluate_prediction": "metrics.prediction",
    "guidance_table": "teach.guide_table",
    "view": "display.viewer",
    "film": "display.viewer",
    "explore": "display.sliders",
    "report": "display.reporting",
    "source": "display.listing",
    "about": "environment",
    "device": "environment",
    "scale": "environment",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from matdesign.constraints.base import Constraint
    from matdesign.constraints.between import (
        Between,
        Density,
        NumberOfAtoms,
        VolumePerAtom,
    )
    from matdesign.constraints.charge import ChargeNeutral, ElectronegativityOrder
    from matdesign.constraints.checking import check_constraint
    from matdesign.constraints.checks import check
    from matdesign.constraints.composition import Composition
    from matdesign.constraints.coordination import Coordination
    from matdesign.constraints.diffraction import Diffraction
    from matdesign.constraints.distance import MinDistance
    from matdesign.constraints.elements import OnlyElements, RequiredElements
    from matdesign.constraints.motif import Motif
    from matdesign.constraints.novelty import NovelFormula, Novelty
    from matdesign.constraints.predicted import Property
    from matdesign.constraints.spacegroups import CrystalSystem, SpaceGroup
    from matdesign.crystals.batch import Crystals, SoftCrystals
    from matdesign.crystals.data.sets import datasets, load
    from matdesign.crystals.data.splits import split
    from matdesign.crystals.io.files import read, write
    from matdesign.crystals.symmetry.encoded import Encoded, encode
    from matdesign.crystals.symmetry.layout import Layout
    from matdesign.display.listing import source
    from matdesign.display.reporting import report
    from matdesign.display.sliders import explore
    from matdesign.display.viewer import film, view
    from matdesign.environment import about, device, scale
    from matdesign.generators.autoregressive import Autoregressive
    from matdesign.generators.contract import Generator
    from matdesign.generators.coupling_flow import CouplingFlow
    from matdesign.generators.diffusion import Diffusion
    from matdesign.generators.flow_matching import FlowMatching
    from matdesign.generators.shipped import load_model, models
    from matdesign.generators.trainer import Run, fit, training
    from matdesign.generators.vae import VAE
    from matdesign.guidance.guide import Guide
    from matdesign.loop.campaign import Campaign
    from matdesign.loop.hull import Hull
    from matdesign.loop.oracle import ASEOracle, PotentialOracle
    from matdesign.loop.potential import Potential
    from matdesign.loop.results import Results
    from matdesign.loop.second_opinion import judge
    from matdesign.metrics.evaluator import Evaluation, Protocol, compare, evaluate
    from matdesign.metrics.prediction import Predictions, evaluate_prediction
    from matdesign.predictors.network import PropertyNetwork
    from matdesign.predictors.shipped import load_predictor, property_networks
    from matdesign.predictors.time_head import TimeHead
    from matdesign.teach.guide_table import guidance_table
