"""Every family away from the CPU: no tensor is made without the device of its model.

The other device is one that every machine has: tensors that lie on the CPU and say that
they do not. What breaks on a GPU breaks on it: a tensor made without a device meets one
that lies elsewhere, a generator of the CPU draws for it, or numpy is handed one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

from matdesign.constraints.distance import MinDistance
from matdesign.constraints.elements import OnlyElements
from matdesign.crystals.symmetry.encoded import encode
from matdesign.generators.autoregressive import Autoregressive
from matdesign.generators.coupling_flow import CouplingFlow
from matdesign.generators.diffusion import Diffusion
from matdesign.generators.flow_matching import FlowMatching
from matdesign.generators.trainer import fit
from matdesign.generators.vae import VAE
from matdesign.guidance.guide import Guide

DEVICE = torch.device("xpu")
"""The name that such tensors give. Nothing in the package asks for this device."""

CPU = torch.device("cpu")


class DeviceMix(AssertionError):
    """Tensors or generators of two devices met in one operation."""


class Elsewhere(torch.Tensor):
    """A tensor that says it lies on `DEVICE`."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


class _Factories(TorchFunctionMode):
    """Tensors made on `DEVICE`, and moved there and back."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


class Source(torch.Generator):
    """A generator that says where it draws."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls, "cpu")
        made.where = torch.device(device)
        return made

    @property
    def device(self):
        return self.where


def _call(func: Any, args: Any, kwargs: Any) -> Any:
    """Check where the arguments lie, compute on the CPU, and say where the result lies."""
    name = getattr(func, "__name__", "")
    if func is torch.device:
        return func(*args, **kwargs)
    tensors = [
        x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)
    ]
    there = [x for x in tensors if isinstance(x, Elsewhere)]
    target = kwargs.get("device")
    if name == "to" and len(args) > 1:
        given = args[1].device if isinstance(args[1], torch.Tensor) else args[1]
        target = given if isinstance(given, (str, torch.device)) else target
    if name in ("cpu", "numpy", "__array__") or name == "type_as":
        target = args[1].device if name == "type_as" else CPU
    if name in ("numpy", "__array__") and there:
        raise DeviceMix("numpy cannot read a tensor of another device: .cpu() first")
    moving = name in ("to", "cpu", "type_as", "copy_", "__get__", "__set__", "set_data")
    here = [x for x in tensors if not isinstance(x, Elsewhere) and x.dim()]
    if name in ("__getitem__", "__setitem__"):  # only an index may lie on the CPU
        whole = [args[0], *args[2:]]
        here = [x for x in here if any(x is one for one in whole)]
    if there and here and not moving:
        raise DeviceMix(
            f"{name}: {[tuple(x.shape) for x in there]} lie on {DEVICE}, "
            f"{[tuple(x.shape) for x in here]} on the CPU"
        )
    where = torch.device(target) if target is not None else DEVICE if there else CPU
    rng = kwargs.get("generator")
    if isinstance(rng, Source) and rng.where != where:
        raise DeviceMix(f"{name}: a generator of {rng.where} draws for {where}")
    args, kwargs = tree_map_only(
        (torch.device, str),
        lambda x: CPU if str(x) == str(DEVICE) else x,
        (args, kwargs),
    )
    with torch._C.DisableTorchFunction():
        made = func(*args, **kwargs)
    if isinstance(made, torch.device):
        return DEVICE if there else made
    in_place = name.endswith("_") and not name.endswith("__")
    if in_place and isinstance(args[0], torch.Tensor):
        return args[0]
    kind = Elsewhere if where == DEVICE else torch.Tensor
    return tree_map_only(torch.Tensor, lambda x: x.as_subclass(kind), made)


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """Let tensors be made on, and moved to, `DEVICE`."""
    before, torch.Generator = torch.Generator, Source
    try:
        with _Factories():
            yield DEVICE
    finally:
        torch.Generator = before


def move(model: nn.Module) -> nn.Module:
    """Move a model's weights and buffers there."""
    for part in model.modules():
        for name, one in part._parameters.items():
            if one is not None:
                kept = one.detach().as_subclass(Elsewhere)
                part._parameters[name] = nn.Parameter(kept, one.requires_grad)
        for name, one in part._buffers.items():
            if one is not None:
                part._buffers[name] = one.as_subclass(Elsewhere)
    return model


FAMILIES = [VAE, CouplingFlow, FlowMatching, Autoregressive, Diffusion]
BOTH = pytest.mark.parametrize("representation", ["cell", "symmetric"])
ALL = pytest.mark.parametrize("family", FAMILIES)


def untrained(family, crystals, representation):
    small = {"width": 16, "heads": 2}
    return family.for_data(crystals, representation=representation, seed=0, **small)


@ALL
@BOTH
def test_a_loss_meets_no_tensor_of_the_cpu(family, representation, eight):
    model, data = (
        untrained(family, eight, representation),
        encode(eight, representation),
    )
    torch.manual_seed(0)  # of dropout
    here = model.loss(data, seed=0)
    with elsewhere() as device:
        torch.manual_seed(0)
        there = move(model).loss(data.to(device), seed=0)
        assert there.total.device == device
        there.total.backward()
    assert torch.equal(there.total.as_subclass(torch.Tensor), here.total)


@ALL
@BOTH
def test_sampling_meets_no_tensor_of_the_cpu(family, representation, eight):
    model = untrained(family, eight, representation)
    with elsewhere() as device:
        made = move(model).sample(2, n_atoms=2, steps=2, seed=0)
        assert made.device == device and len(made) == 2


@ALL
@BOTH
def test_guided_sampling_meets_no_tensor_of_the_cpu(family, representation, eight):
    model = untrained(family, eight, representation)
    guide = Guide(OnlyElements("Na", "Cl", "Mg", "O") & MinDistance(1.0))
    with elsewhere() as device:
        made = move(model).sample(2, n_atoms=2, guide=guide, steps=2, seed=0)
        assert made.device == device


@pytest.mark.parametrize("family", [VAE, CouplingFlow, FlowMatching, Autoregressive])
@BOTH
def test_a_likelihood_meets_no_tensor_of_the_cpu(family, representation, eight):
    model, data = (
        untrained(family, eight, representation),
        encode(eight, representation),
    )
    with elsewhere() as device:
        few = {"steps": 2} if family is FlowMatching else {}
        there = move(model).log_prob(data.to(device), **few)
        assert there.device == device and there.shape == (8,)


# ---- with a GPU ----------------------------------------------------------------------


@pytest.mark.gpu
@ALL
@BOTH
def test_a_gpu_trains_samples_and_is_guided(family, representation, eight):
    model, data = (
        untrained(family, eight, representation),
        encode(eight, representation),
    )
    model.to("cuda")
    fit(model, data, steps=3, batch_size=4, seed=0)
    assert model.loss(data.to("cuda"), seed=0).total.isfinite()
    guide = Guide(OnlyElements("Na", "Cl", "Mg", "O"))
    for options in ({}, {"guide": guide}):
        one, two = (model.sample(4, seed=1, **options) for _ in range(2))
        assert torch.equal(one.species, two.species)
        assert torch.equal(one.frac, two.frac)
    if family is not Diffusion:
        assert model.log_prob(data.to("cuda")).isfinite().all()
