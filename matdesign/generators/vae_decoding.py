"""From latents to crystals: frames of sampling, and the instruments of a latent space."""

from __future__ import annotations

from collections import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from matdesign.crystals import elements as periodic_table
from matdesign.crystals.batch import Crystals, SoftCrystals, generator
from matdesign.crystals.geometry import wrap
from matdesign.crystals.symmetry.encoded import Encoded
from matdesign.crystals.symmetry.layout import Layout
from matdesign.errors import InfeasibleTarget, ShapeError
from matdesign.generators import von_mises
from matdesign.generators.conditions import combine
from matdesign.generators.contract import State
from matdesign.generators.frames import LOOSE, Frame, States, Steer
from matdesign.generators.scales import Scales
from matdesign.generators.vae_geometry import GeometryDecoder, Guess
from matdesign.generators.vae_latent import Latent, arc
from matdesign.generators.vae_plan import layout_of

if TYPE_CHECKING:
    from matdesign.generators.vae import VAE


def guided(
    geometry: GeometryDecoder,
    layout: Layout,
    species: Tensor,
    latent: Latent,
    asked: Tensor,
    scales: Scales,
    passes: int,
    scale: float,
) -> abc.Generator[Guess, Steer | None, None]:
    """Yield the decoder's guesses, the cell with classifier-free guidance.

    Args:
        geometry: the decoder.
        layout: orbits and what of them is free.
        species: element of each orbit, shape (crystals, orbits).
        latent: of crystals and orbits.
        asked: what is asked of the crystals, as a vector.
        scales: of the training set.
        passes: passes that mend the guess.
        scale: 1 is the conditional decoder; see `Generator.sample`.
    """
    about = layout, species, latent
    told = geometry.guesses(*about, asked, scales, passes=passes)
    if scale in (0.0, 1.0) or not bool(asked.any()):
        yield from told
        return
    untold = geometry.guesses(*about, asked * 0.0, scales, passes=passes)
    one, null = next(told), next(untold)
    while True:
        steer = yield one._replace(x=combine(null.x, one.x, scale))
        try:
            one, null = told.send(steer), untold.send(steer)
        except StopIteration:
            return


def soft(scales: Scales, layout: Layout, species: Tensor, guess: Guess) -> SoftCrystals:
    """Return a guess written out as atoms.

    Args:
        scales: of the training set.
        layout: orbits.
        species: probability of each element of each orbit, (crystals, orbits, 104).
        guess: coordinates and cell.
    """
    index = layout.orbit[..., None].expand(-1, -1, species.shape[-1])
    belief = species.gather(1, index) * layout.mask[..., None]
    lattice = scales.lattice(scales.clamp(guess.x), layout)
    return SoftCrystals(belief, layout.expand(guess.u), lattice, layout.mask)


def noisy(guess: Guess, layout: Layout, spread: float, rng: torch.Generator) -> Guess:
    """Return a draw around a guess, its noise scaled by `spread`."""
    away = von_mises.draw(guess.kappa, rng) * spread
    noise = torch.randn(guess.x.shape, generator=rng, device=rng.device).to(guess.x)
    x = guess.x + spread * guess.log_std.exp() * noise * layout.code_free
    return guess._replace(u=wrap(guess.u + away) * layout.free, x=x)


def frames(
    model: VAE,
    layout: Layout,
    species: Tensor,
    latent: Latent,
    asked: Tensor,
    steps: int,
    scale: float,
    rng: torch.Generator,
) -> States:
    """Yield decoded crystals, from the middle of the latent space to the result.

    Args:
        model: the autoencoder.
        layout: orbits and what of them is free.
        species: element of each orbit, shape (crystals, orbits).
        latent: of crystals and orbits.
        asked: what is asked of the crystals, as a vector.
        steps: passes that mend the decoder's guess.
        scale: of classifier-free guidance.
        rng: source of the decoder's own noise.
    """
    middle = Latent(latent.whole * 0.0, latent.orbits)
    blank = model.geometry(layout, species, middle, asked, model.scales, passes=0)
    if scale not in (0.0, 1.0):
        model.evaluations += len(species) * (steps + 1)
    model.evaluations += len(species) * (steps + 2)
    hot = nn.functional.one_hot(species, periodic_table.MAX_Z + 1).to(latent.whole)
    yield State(1.0, 0, soft(model.scales, layout, hot, blank[0]))
    mended = guided(
        model.geometry, layout, species, latent, asked, model.scales, steps, scale
    )
    guess, steer = next(mended), None
    for i in range(1, steps + 2):
        if i > 1:
            guess = mended.send(steer)
        if i == steps + 1 and model.spread:
            guess = noisy(guess, layout, model.spread, rng)
        x = model.scales.clamp(guess.x)
        frame = Frame(layout, model.scales, species, hot, guess.u, x, LOOSE)
        steer = yield State(1 - i / (steps + 1), i, frame.soft(), frame)
        if steer is not None and steer.keep is not None:
            layout = layout.rows(steer.keep)
            species, hot = species[steer.keep], hot[steer.keep]


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
    asked = model.told(request.condition)
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
    return soft(model.scales, layout, hot, guesses[-1]).harden()


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
    asked = model.told(model._nothing(len(data)))
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
