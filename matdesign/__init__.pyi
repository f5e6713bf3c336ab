"""The public names for type checkers; a test holds them to those of `__init__.py`."""

from matdesign.constraints.base import Constraint as Constraint
from matdesign.constraints.between import Between as Between
from matdesign.constraints.between import Density as Density
from matdesign.constraints.between import NumberOfAtoms as NumberOfAtoms
from matdesign.constraints.between import VolumePerAtom as VolumePerAtom
from matdesign.constraints.charge import ChargeNeutral as ChargeNeutral
from matdesign.constraints.charge import (
    ElectronegativityOrder as ElectronegativityOrder,
)
from matdesign.constraints.checking import check_constraint as check_constraint
from matdesign.constraints.checks import check as check
from matdesign.constraints.composition import Composition as Composition
from matdesign.constraints.coordination import Coordination as Coordination
from matdesign.constraints.diffraction import Diffraction as Diffraction
from matdesign.constraints.distance import MinDistance as MinDistance
from matdesign.constraints.elements import OnlyElements as OnlyElements
from matdesign.constraints.elements import RequiredElements as RequiredElements
from matdesign.constraints.motif import Motif as Motif
from matdesign.constraints.novelty import NovelFormula as NovelFormula
from matdesign.constraints.novelty import Novelty as Novelty
from matdesign.constraints.predicted import Property as Property
from matdesign.constraints.spacegroups import CrystalSystem as CrystalSystem
from matdesign.constraints.spacegroups import SpaceGroup as SpaceGroup
from matdesign.crystals.batch import Crystals as Crystals
from matdesign.crystals.batch import SoftCrystals as SoftCrystals
from matdesign.crystals.data.sets import datasets as datasets
from matdesign.crystals.data.sets import load as load
from matdesign.crystals.data.splits import split as split
from matdesign.crystals.io.files import read as read
from matdesign.crystals.io.files import write as write
from matdesign.crystals.symmetry.encoded import Encoded as Encoded
from matdesign.crystals.symmetry.encoded import encode as encode
from matdesign.crystals.symmetry.layout import Layout as Layout
from matdesign.display.listing import source as source
from matdesign.display.reporting import report as report
from matdesign.display.sliders import explore as explore
from matdesign.display.viewer import film as film
from matdesign.display.viewer import view as view
from matdesign.environment import about as about
from matdesign.environment import device as device
from matdesign.environment import scale as scale
from matdesign.generators.autoregressive import Autoregressive as Autoregressive
from matdesign.generators.contract import Generator as Generator
from matdesign.generators.coupling_flow import CouplingFlow as CouplingFlow
from matdesign.generators.diffusion import Diffusion as Diffusion
from matdesign.generators.flow_matching import FlowMatching as FlowMatching
from matdesign.generators.shipped import load_model as load_model
from matdesign.generators.shipped import models as models
from matdesign.generators.trainer import Run as Run
from matdesign.generators.trainer import fit as fit
from matdesign.generators.trainer import training as training
from matdesign.generators.vae import VAE as VAE
from matdesign.guidance.guide import Guide as Guide
from matdesign.loop.campaign import Campaign as Campaign
from matdesign.loop.hull import Hull as Hull
from matdesign.loop.oracle import ASEOracle as ASEOracle
from matdesign.loop.oracle import PotentialOracle as PotentialOracle
from matdesign.loop.potential import Potential as Potential
from matdesign.loop.results import Column as Column
from matdesign.loop.results import Results as Results
from matdesign.loop.second_opinion import judge as judge
from matdesign.metrics.evaluator import Evaluation as Evaluation
from matdesign.metrics.evaluator import Protocol as Protocol
from matdesign.metrics.evaluator import compare as compare
from matdesign.metrics.evaluator import evaluate as evaluate
from matdesign.metrics.prediction import Predictions as Predictions
from matdesign.metrics.prediction import evaluate_prediction as evaluate_prediction
from matdesign.predictors.network import PropertyNetwork as PropertyNetwork
from matdesign.predictors.shipped import load_predictor as load_predictor
from matdesign.predictors.shipped import property_networks as property_networks
from matdesign.predictors.time_head import TimeHead as TimeHead
from matdesign.teach.guide_table import guidance_table as guidance_table

__version__: str
