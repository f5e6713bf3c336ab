"""From latents to crystals: the instruments of a latent space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from matdesign.crystals import elements as periodic_table
from matdesign.crystals.batch import Crystals, generator
from matdesign.crystals.geometry import wrap
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.layout import Layout
from matdesign.errors import InfeasibleTarget, ShapeError
from matdesign.generators import von_mises
from matdesign.generators.control import Preview
from matdesign.generators.vae_geometry import Guess
from matdesign.generators.vae_latent import Latent, arc
from matdesign.generators.vae_plan import layout_of

if TYPE_CHECKING:
    from matdesign.generators.vae import VAE


def noisy(guess: Guess, layout: Layout, spread: float, rng: torch.Generator) -> Guess:
    """Return a draw around a guess, its noise scaled by `spread`."""
    away = von_mises.draw(guess.kappa, rng) * spread
    noise = torch.randn(guess.x.shape, generator=rng, device=rng.device).to(guess.x)
    x = guess.x + spread * guess.log_std.exp() * noise * layout.code_free
    return guess._replace(u=wrap(guess.u + away) * layout.free, x=x)


@torch.no_grad()
def decode(
    model: VAE,
    z: Tensor,
    *,
    n_atoms: int | Sequence[int] | Tensor | None = None,
    conditions: dict[str, Any] | None = None,
    seed: int | torch.Generator | None = 0,
    temperature: float = 0.0,
) -> Crystals:
    """Return the crystals of latent vectors.

    Args:
        model: a trained autoencoder.
        z: latents, shape (crystals, size).
        n_atoms: atoms per cell; "cell" models draw it from the training set where it
            is not given, "symmetric" ones read it from z.
        conditions: hard and learned wishes, as in `sample`.
        seed: of the small latents of the orbits; every crystal gets the same ones, so
            that crystals of nearby z differ by z alone.
        temperature: of letters and species; 0 takes the most probable.

    Raises:
        ShapeError: latents of another size.
        InfeasibleTarget: a latent whose skeleton breaks the wishes.
    """
    if z.ndim != 2 or z.shape[1] != model.prior.size:
        raise ShapeError(
            f"latents must be (crystals, {model.prior.size}); got {tuple(z.shape)}. "
            "model.latent(crystals) gives them."
        )
    rng = generator(seed, model.device)
    request = model.request(len(z), n_atoms, conditions)
    wishes = model.wishes(request, rng)
    asked = model.embedding(request.condition)
    z = z.to(model.device)
    made = model.skeleton.draw(
        z,
        asked,
        wishes,
        model.scales.allowed,
        rng,
        temperature=temperature,
    )
    if not bool(made.met.all()):
        bad = int((~made.met).nonzero()[0])
        raise InfeasibleTarget(
            f"the most probable crystal of latent {bad} cannot meet the wishes. Raise "
            "temperature, or leave wishes out."
        )
    layout, species = layout_of(made, cells=model.representation == "cell")
    own = torch.randn(
        (1, model.skeleton.largest * 4, model.geometry.own.in_features),
        generator=rng,
        device=model.device,
    )
    own = own[:, : species.shape[1]] * layout.orbits[..., None]
    guesses = model.geometry(
        layout, species, Latent(z, own), asked, model.scales, passes=None
    )
    hot = nn.functional.one_hot(species, periodic_table.MAX_Z + 1).to(z)
    u, code = guesses[-1].u, model.scales.clamp(guesses[-1].x)
    return Preview(layout, model.scales, species, hot, u, code).soft().harden()


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

    Equation:
        p(z) = 1/K sum_k q(z | x_k)

    Args:
        model: a trained autoencoder.
        crystals: K of them, as a rule a part of the training set.

    Source:
        Tomczak and Welling 2018, arXiv:1705.07120. We take training crystals where
        they learn pseudo-inputs.
    """
    data = model.prepare(crystals)
    asked = model.embedding(model.nothing(len(data)))
    q = model.encoder(data, model.scales, model._origin(data.layout), asked).whole
    made = type(model)(**{**model.config, "components": len(data)})
    state = {k: v for k, v in model.state_dict().items() if "prior." not in k}
    made.load_state_dict(state, strict=False)
    made.prior.mean.copy_(q.mean)
    made.prior.log_std.copy_(q.log_std)
    made.prior.weight.weight.zero_()
    made.prior.weight.bias.zero_()
    made.record = {**model.record}
    return made.to(model.device).eval()
