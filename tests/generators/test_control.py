"""Control of the sampling loop: silent when unused, and complete when crystals are kept."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals
from matdesign.crystals.geometry import torus_difference
from matdesign.generators import diffusion
from matdesign.generators.autoregressive import Autoregressive
from matdesign.generators.contract import Generator
from matdesign.generators.control import Control, State
from matdesign.generators.coupling_flow import CouplingFlow
from matdesign.generators.diffusion import Diffusion
from matdesign.generators.flow_matching import (
    FlowMatching,
    line_sde,
    torus_sde,
)
from matdesign.generators.vae import VAE

SMALL: dict[type[Generator], dict[str, Any]] = {
    FlowMatching: {"width": 16, "layers": 1, "heads": 2},
    Diffusion: {"width": 16, "layers": 1, "heads": 2},
    CouplingFlow: {"width": 16, "heads": 2, "couplings": 3},
    Autoregressive: {"width": 16, "layers": 1, "heads": 2},
    VAE: {"width": 16, "layers": 1, "heads": 2, "min_distance": 0.0},
}
FAMILIES = pytest.mark.parametrize("family", list(SMALL), ids=lambda f: f.__name__)
FORMULAS = ["NaCl", "MgO", "SrTiO3", "CsCl", "BaTiO3"]


def small(family: type[Generator], train: Crystals, **options: Any) -> Generator:
    """Return an untrained model whose weights all do something."""
    model = family.for_data(
        train, representation="cell", **SMALL[family], **options
    ).eval()
    if isinstance(model, Autoregressive):
        model.coordinate_temperature, model.tries = 1e-9, 1
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=random))
    return model


def last(
    model: Generator,
    control: dict[int, Control | None] | Control | None,
    wishes: dict[str, Any] | None = None,
    n: int = 5,
) -> State:
    """Return the last state; the control of each step is sent after it, or one always."""
    rng = torch.Generator().manual_seed(1)
    plan = model.plan(model.request(n, None, wishes), rng)
    states = model.states(plan, 4, rng)
    state = next(states)
    while True:
        sent = control.get(state.step) if isinstance(control, dict) else control
        try:
            state = states.send(sent)
        except StopIteration as end:
            return State(0.0, state.step, end.value)


def same(one: State, two: State) -> bool:
    a, b = one.soft, two.soft
    return all(
        torch.equal(getattr(a, name), getattr(b, name))
        for name in ("species", "frac", "lattice", "mask")
    )


@FAMILIES
def test_a_control_that_says_nothing_changes_no_bit(
    family: type[Generator], eight: Crystals
) -> None:
    model = small(family, eight)
    free = last(model, None)
    assert same(free, last(model, Control()))
    assert same(free, last(model, Control(keep=torch.arange(5))))
    plain = list(model.trajectory(5, seed=1, steps=4))[-1]
    assert same(free, plain)


@FAMILIES
@pytest.mark.parametrize("when", [1, 2])
def test_keeping_crystals_takes_along_all_that_they_are(
    family: type[Generator], when: int, eight: Crystals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without fresh noise, exchanged crystals end as exchanged results: also repeated."""
    monkeypatch.setattr(diffusion, "normal", lambda like, rng: torch.zeros_like(like))
    model = small(family, eight)
    wishes = {"composition": FORMULAS}
    free = last(model, None, wishes).soft
    keep = torch.tensor([2, 0, 4, 4, 1])
    kept = last(model, {when: Control(keep=keep)}, wishes).soft
    assert torch.equal(kept.mask, free.mask[keep])
    assert torch.equal(kept.species, free.species[keep])
    away = torus_difference(free.frac[keep], kept.frac) * kept.mask[..., None]
    assert float(away.abs().max()) < 1e-4
    assert torch.allclose(kept.lattice, free.lattice[keep], atol=1e-4)


@pytest.mark.parametrize("family", [FlowMatching, Diffusion])
def test_a_preview_that_is_always_replaced_is_reached(
    family: type[Generator], eight: Crystals
) -> None:
    """The velocity (score) is that of the replaced preview: it ends there."""
    model = small(family, eight)
    wishes = {"composition": FORMULAS}
    shape = last(model, None, wishes).preview
    u = torch.rand(shape.u.shape, generator=torch.Generator().manual_seed(2))
    u, code = u * shape.layout.free, 0.05 * torch.ones_like(shape.code)
    known = shape.layout.free
    end = last(model, Control(u=u, code=code, known=known), wishes).preview
    room = 1e-5 if family is FlowMatching else 0.05  # the last level's own noise
    if family is Diffusion:  # the network has the last word about coordinates
        model.network.reset(0)
        end = last(model, Control(u=u, code=code, known=known), wishes).preview
        assert float((torus_difference(end.u, u) * known).abs().max()) < room
    assert torch.allclose(end.code, code, atol=1e-5)


@pytest.mark.parametrize("family", [CouplingFlow, Autoregressive, VAE])
def test_one_shot_families_go_on_from_a_moved_cell(
    family: type[Generator], eight: Crystals
) -> None:
    model = small(family, eight)
    wishes = {"composition": FORMULAS}
    code = torch.full((5, 6), 0.4)
    end = last(model, {1: Control(code=code)}, wishes).preview
    if family is VAE:  # its passes mend the moved cell, so that it is not kept as it is
        free = last(model, None, wishes).preview
        assert not torch.allclose(end.code, free.code)
        assert not torch.allclose(end.u, free.u)
    else:
        assert torch.equal(end.code, code)


@pytest.mark.parametrize("family", [FlowMatching, Diffusion])
def test_logits_forbid_and_prefer(family: type[Generator], eight: Crystals) -> None:
    model = small(family, eight)
    rows = last(model, None)
    logits = torch.full(rows.preview.probabilities.shape, -torch.inf)
    logits[..., 8] = 0.0
    made = last(model, Control(logits=logits)).crystals
    assert bool((made.species[made.mask] == 8).all())


def test_the_sde_of_a_straight_path_keeps_its_marginals() -> None:
    """Displacements stay uniform, codes normal, at every time."""
    rng = torch.Generator().manual_seed(0)
    n, t, s = 20_000, 0.7, 0.5
    there = torch.full((n, 1, 3), 0.2)
    v = torch.rand(n, 1, 3, generator=rng) - 0.5
    moved = torus_difference(there, torus_sde(there, v, s, 0.2, rng)) / s
    cuts = torch.histc(moved, 10, -0.5, 0.5) / moved.numel()
    assert float((cuts - 0.1).abs().max()) < 0.006
    assert float((moved - v).abs().mean()) > 0.1
    clean = torch.full((n, 2), 1.5)
    x = (1 - t) * clean + t * torch.randn(n, 2, generator=rng)
    made = line_sde(x, clean, t, s, 0.2, rng)
    assert abs(float(made.mean()) - (1 - s) * 1.5) < 0.02
    assert abs(float(made.std()) - s) < 0.01
    still = line_sde(x, clean, t, s, 0.0, rng)
    assert torch.allclose(still, clean + s / t * (x - clean), atol=1e-5)


def test_previews_carry_gradients(eight: Crystals) -> None:
    model = small(FlowMatching, eight)
    preview = last(model, None, {"composition": FORMULAS}).preview
    u, code = preview.u.clone().requires_grad_(), preview.code.clone().requires_grad_()
    soft = preview.soft(u, code)
    (soft.density.sum() + soft.frac.square().sum()).backward()
    assert _some(u.grad) and _some(code.grad)


def _some(gradient: Tensor | None) -> bool:
    return (
        gradient is not None
        and bool(gradient.any())
        and math.isfinite(float(gradient.sum()))
    )
