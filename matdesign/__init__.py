"""Inverse materials design: say what a crystal must be, let a model propose crystals that are so.

Names load when first used, so that `import matdesign as design` stays quick; what they are
says `__init__.pyi` to type checkers.
"""

from importlib import import_module
from typing import Any

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
    "fit_property": "predictors.fitting",
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
