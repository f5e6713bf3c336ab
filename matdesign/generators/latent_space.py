"""The instruments of a latent space: decode points, walk between them, draw a map."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.errors import InfeasibleTarget, ShapeError
from matdesign.generators.elbo import MixturePrior
from matdesign.generators.planning import Plan, draw_sizes
from matdesign.generators.vae import VAE


@torch.no_grad()
def decode(
    model: VAE,
    z: Tensor,
    *,
    n_atoms: int | Sequence[int] | Tensor | None = None,
    seed: int | torch.Generator | None = 0,
    temperature: float = 0.0,
) -> Crystals:
    """Return the crystals of latent vectors.

    Args:
        model: a trained autoencoder.
        z: latents, shape (crystals, size).
        n_atoms: atoms per cell; "cell" models draw it from the training set where it
            is not given, "symmetric" ones read it from z.
        seed: of the small latents of the orbits; every crystal gets the same ones, so
            that crystals of nearby z differ by z alone.
        temperature: of letters and species; 0 takes the most probable.

    Raises:
        ShapeError: latents of another size.
        InfeasibleTarget: a latent whose most probable sequence has no end.
    """
    if z.ndim != 2 or z.shape[1] != model.prior.size:
        raise ShapeError(
            f"latents must be (crystals, {model.prior.size}); got {tuple(z.shape)}. "
            "model.latent(crystals) gives them."
        )
    rng = generator(seed, model.device)
    request, z = model.request(len(z), n_atoms), z.to(model.device)
    asked = model.embedding(request.condition)
    sizes = draw_sizes(request, model.size_histogram, rng)
    layout, species, met = model.sequence.draw(
        z, asked, request, sizes, model.scales.allowed, rng, temperature=temperature
    )
    if not bool(met.all()):
        bad = int((~met).nonzero()[0])
        raise InfeasibleTarget(
            f"the most probable crystal of latent {bad} cannot be finished. Raise "
            "temperature, or ask for another number of atoms."
        )
    shape = (4 * model.sequence.largest, model.geometry.own.in_features)
    own = torch.randn(shape, generator=rng, device=model.device)
    own = own[: species.shape[1]] * layout.orbits[..., None]
    role, condition = torch.full_like(species, -1), request.condition.to(model.device)
    plan = Plan(layout, species, role, condition, latent=(z, own))
    *_, last = model.states(plan, model.default_steps, rng)
    return last.crystals


def walk(
    model: VAE,
    start: Crystals,
    end: Crystals,
    *,
    steps: int = 9,
    n_atoms: int | None = None,
    seed: int | torch.Generator | None = 0,
) -> Crystals:
    """Return crystals on the way between two, through the latent space.

    The way is an arc: straight lines would cross the middle, where the prior has
    next to no mass.

    Args:
        model: a trained autoencoder.
        start: one crystal.
        end: another.
        steps: crystals on the way, both ends counted.
        n_atoms: as in `decode`; "cell" models take the size of the first one.
        seed: as in `decode`.
    """
    a, b = model.latent(start[:1]), model.latent(end[:1])
    if n_atoms is None and model.representation == "cell":
        n_atoms = int(start.n_atoms[0])
    way = torch.linspace(0, 1, steps, device=a.device)[:, None]
    return decode(model, arc(a, b, way), n_atoms=n_atoms, seed=seed)


@torch.no_grad()
def with_mixture(model: VAE, crystals: Crystals | Encoded) -> VAE:
    """Return a copy whose prior is the mean of the posteriors of some crystals.

    It is a density like the normal one, so that the bound still holds, and it has no
    mass where the decoder was never trained.

    Args:
        model: a trained autoencoder.
        crystals: as a rule a part of the training set.

    Source:
        Tomczak and Welling 2018, arXiv:1705.07120. We take training crystals where
        they learn pseudo-inputs.
    """
    made = copy.deepcopy(model).eval()
    made.prior = MixturePrior(model.posterior(crystals).whole)
    made.config["components"] = len(made.prior.mean)
    return made


def arc(start: Tensor, end: Tensor, way: Tensor) -> Tensor:
    """Return points on the way from one latent to another, along an arc.

    Equation:
        z(s) = r(s) [sin((1 - s) w) a + sin(s w) b] / sin w,  w = angle of a and b,
        a, b of length 1, r(s) between the two lengths

    Args:
        start: shape (1, size).
        end: shape (1, size).
        way: s from 0 to 1, shape (points, 1).
    """
    lengths = start.norm(dim=1), end.norm(dim=1)
    a, b = start / lengths[0].clamp(min=1e-9), end / lengths[1].clamp(min=1e-9)
    angle = torch.acos((a * b).sum().clamp(-1 + 1e-6, 1 - 1e-6))
    length = torch.lerp(lengths[0], lengths[1], way)
    turned = torch.sin((1 - way) * angle) * a + torch.sin(way * angle) * b
    return length * turned / torch.sin(angle)


def flat_map(
    latents: Tensor, groups: Sequence[str] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return latents as points of a plane.

    Without groups along their two widest directions; with groups along the two that
    hold the groups apart best, measured in units of the spread within them.

    Equation:
        widest: largest eigenvalues of the covariance C;
        apart: largest eigenvalues of W^-1/2 B W^-1/2, C = W + B, W within groups

    Args:
        latents: shape (crystals, size).
        groups: name of each crystal's group.

    Returns:
        Points (crystals, 2); the directions, rows of length 1, (2, size), each signed so
        that its largest entry is positive; and the share of the variance along each, (2,).
    """
    centred = latents - latents.mean(0)
    spread, turn = centred, torch.eye(latents.shape[1]).to(latents)
    if groups is not None:
        middle = torch.zeros_like(centred)
        for name in sorted(set(groups)):
            mine = torch.tensor([one == name for one in groups])
            middle[mine] = centred[mine].mean(0)
        within = (centred - middle).T @ (centred - middle) / len(latents)
        size, axes = torch.linalg.eigh(within)
        turn = axes / size.clamp(min=1e-6).sqrt() @ axes.T
        spread = middle @ turn
    rows = torch.linalg.svd(spread, full_matrices=False)[2][:2] @ turn
    rows = rows / rows.norm(dim=1, keepdim=True)
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    rows = rows * largest.sign()
    points = centred @ rows.T
    return points, rows, points.square().sum(0) / centred.square().sum()
