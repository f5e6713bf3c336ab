"""Inverse materials design: say what a crystal must be, let a model propose crystals that are so.

Names load when first used, so that `import matdesign as design` stays quick; what they are
says `__init__.pyi` to type checkers.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "crystals.batch": "Crystals SoftCrystals",
    "crystals.symmetry.encoded": "Encoded encode",
    "crystals.symmetry.layout": "Layout",
    "crystals.io.files": "read write",
    "crystals.data.sets": "load datasets",
    "crystals.data.splits": "split",
    "generators.contract": "Generator",
    "generators.vae": "VAE",
    "generators.coupling_flow": "CouplingFlow",
    "generators.flow_matching": "FlowMatching",
    "generators.autoregressive": "Autoregressive",
    "generators.diffusion": "Diffusion",
    "predictors.network": "PropertyNetwork",
    "generators.trainer": "fit training Run",
    "generators.shipped": "load_model models",
    "predictors.shipped": "load_predictor property_networks",
    "constraints.base": "Constraint",
    "constraints.checks": "check",
    "constraints.checking": "check_constraint",
    "constraints.elements": "OnlyElements RequiredElements",
    "constraints.composition": "Composition",
    "constraints.charge": "ChargeNeutral ElectronegativityOrder",
    "constraints.distance": "MinDistance",
    "constraints.between": "Between Density VolumePerAtom NumberOfAtoms",
    "constraints.spacegroups": "SpaceGroup CrystalSystem",
    "constraints.coordination": "Coordination",
    "constraints.diffraction": "Diffraction",
    "constraints.motif": "Motif",
    "constraints.predicted": "Property",
    "constraints.novelty": "Novelty NovelFormula",
    "guidance.guide": "Guide",
    "loop.potential": "Potential",
    "loop.oracle": "PotentialOracle ASEOracle Experiment",
    "loop.function_oracle": "FunctionOracle",
    "loop.table_oracle": "TableOracle",
    "loop.cascade": "Cascade Cached",
    "loop.voltage": "VoltageOracle",
    "loop.results": "Results Column",
    "loop.hull": "Hull",
    "loop.campaign": "Campaign",
    "loop.surrogate": "GaussianProcess Ensemble interval_coverage conformal_width",
    "loop.acquisition": "Bayesian",
    "loop.proposers": "Pool Substitution",
    "loop.latent_search": "LatentSearch",
    "loop.learning": "PolicyGradient RewardWeighted",
    "predictors.time_head": "TimeHead",
    "loop.second_opinion": "judge",
    "metrics.evaluator": "evaluate Evaluation Protocol compare",
    "metrics.prediction": "Predictions evaluate_prediction",
    "teach.guide_table": "guidance_table",
    "display.viewer": "view film",
    "display.sliders": "explore",
    "display.reporting": "report",
    "display.campaign_page": "Dashboard plot_campaign report_campaign",
    "display.listing": "source",
    "environment": "about device scale",
}
_PUBLIC = {name: place for place, names in _NAMES.items() for name in names.split()}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_PUBLIC[name]}")
    return globals().setdefault(name, getattr(module, name))


def __dir__() -> list[str]:
    return sorted(__all__)
