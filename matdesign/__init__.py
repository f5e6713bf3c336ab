"""Inverse materials design: say what a crystal must be, let a model propose crystals that are so.

Names load when first used, so that `import matdesign as design` stays quick.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Crystals": "crystals.batch",
    "SoftCrystals": "crystals.batch",
    "Encoded": "crystals.encoded",
    "Layout": "crystals.layout",
    "encode": "crystals.encoded",
    "read": "crystals.io.files",
    "write": "crystals.io.files",
    "load": "crystals.datasets",
    "datasets": "crystals.datasets",
    "Generator": "generators.contract",
    "VAE": "generators.vae",
    "CouplingFlow": "generators.coupling_flow",
    "FlowMatching": "generators.flow_matching",
    "Autoregressive": "generators.autoregressive",
    "Diffusion": "generators.diffusion",
    "PropertyNetwork": "generators.property_network",
    "fit": "generators.fit",
    "fit_property": "generators.property_fit",
    "training": "generators.fit",
    "Run": "generators.fit",
    "load_model": "generators.shipped",
    "models": "generators.shipped",
    "load_predictor": "generators.shipped",
    "predictors": "generators.shipped",
    "Constraint": "constraints.base",
    "check": "constraints.check",
    "check_constraint": "constraints.checking",
    "OnlyElements": "constraints.elements",
    "RequiredElements": "constraints.elements",
    "Composition": "constraints.composition",
    "ChargeNeutral": "constraints.charge",
    "MinDistance": "constraints.distance",
    "Between": "constraints.between",
    "Density": "constraints.between",
    "VolumePerAtom": "constraints.between",
    "NumberOfAtoms": "constraints.size",
    "SpaceGroup": "constraints.spacegroups",
    "CrystalSystem": "constraints.spacegroups",
    "ElectronegativityOrder": "constraints.electronegativity",
    "Coordination": "constraints.coordination",
    "Diffraction": "constraints.diffraction",
    "Motif": "constraints.motif",
    "Property": "constraints.predicted",
    "Novelty": "constraints.novelty",
    "NovelFormula": "constraints.novelty",
    "Guide": "constraints.guide",
    "Potential": "loop.potential",
    "PotentialOracle": "loop.oracle",
    "ASEOracle": "loop.oracle",
    "Hull": "loop.hull",
    "Campaign": "loop.campaign",
    "TimeHead": "generators.time_head",
    "judge": "judge",
    "evaluate": "evaluate",
    "Evaluation": "evaluate",
    "Protocol": "evaluate",
    "compare": "evaluate",
    "Predictions": "metrics.prediction",
    "evaluate_prediction": "metrics.prediction",
    "guidance_table": "guidance_table",
    "view": "view",
    "film": "view",
    "explore": "view",
    "report": "report",
    "about": "about",
    "device": "about",
    "scale": "about",
    "source": "about",
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


class _Package(ModuleType):
    """This package; importing a submodule never hides the function of the same name.

    `from matdesign.evaluate import Evaluation` would otherwise set `design.evaluate` to
    the module instead of the function.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _PUBLIC and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


if TYPE_CHECKING:
    from matdesign.about import about, device, scale, source
    from matdesign.constraints.base import Constraint
    from matdesign.constraints.between import Between, Density, VolumePerAtom
    from matdesign.constraints.charge import ChargeNeutral
    from matdesign.constraints.check import check
    from matdesign.constraints.checking import check_constraint
    from matdesign.constraints.composition import Composition
    from matdesign.constraints.coordination import Coordination
    from matdesign.constraints.diffraction import Diffraction
    from matdesign.constraints.distance import MinDistance
    from matdesign.constraints.electronegativity import ElectronegativityOrder
    from matdesign.constraints.elements import OnlyElements, RequiredElements
    from matdesign.constraints.guide import Guide
    from matdesign.constraints.motif import Motif
    from matdesign.constraints.novelty import NovelFormula, Novelty
    from matdesign.constraints.predicted import Property
    from matdesign.constraints.size import NumberOfAtoms
    from matdesign.constraints.spacegroups import CrystalSystem, SpaceGroup
    from matdesign.crystals.batch import Crystals, SoftCrystals
    from matdesign.crystals.datasets import datasets, load
    from matdesign.crystals.encoded import Encoded, encode
    from matdesign.crystals.io.files import read, write
    from matdesign.crystals.layout import Layout
    from matdesign.evaluate import Evaluation, Protocol, compare, evaluate
    from matdesign.generators.autoregressive import Autoregressive
    from matdesign.generators.contract import Generator
    from matdesign.generators.coupling_flow import CouplingFlow
    from matdesign.generators.diffusion import Diffusion
    from matdesign.generators.fit import Run, fit, training
    from matdesign.generators.flow_matching import FlowMatching
    from matdesign.generators.property_fit import fit_property
    from matdesign.generators.property_network import PropertyNetwork
    from matdesign.generators.shipped import (
        load_model,
        load_predictor,
        models,
        predictors,
    )
    from matdesign.generators.time_head import TimeHead
    from matdesign.generators.vae import VAE
    from matdesign.guidance_table import guidance_table
    from matdesign.judge import judge
    from matdesign.loop.campaign import Campaign
    from matdesign.loop.hull import Hull
    from matdesign.loop.oracle import ASEOracle, PotentialOracle
    from matdesign.loop.potential import Potential
    from matdesign.metrics.prediction import Predictions, evaluate_prediction
    from matdesign.report import report
    from matdesign.view import explore, film, view
