"""`Crystals`, the one batch type that every function takes and gives, and its soft form."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from matdesign.crystals import elements
from matdesign.crystals.io.checks import MAX_ATOMS, packed, unknown_element
from matdesign.errors import DataError, ShapeError

if TYPE_CHECKING:
    from pymatgen.core import Structure

ANGSTROM3_G = 1.66053906660
"""Mass of one u in one cubic angstrom, in g/cm^3."""


def generator(
    seed: int | torch.Generator | None, device: torch.device | str = "cpu"
) -> torch.Generator:
    """Return a random generator: the given one, one seeded, or one freshly seeded."""
    if isinstance(seed, torch.Generator):
        return seed
    made = torch.Generator(device=device)
    if seed is None:
        made.seed()
    else:
        made.manual_seed(seed)
    return made


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """Return tensors of several batches as one; zeros pad the second axis."""
    if tensors[0].ndim == 1:
        return torch.cat(list(tensors))
    width, pad = max(one.shape[1] for one in tensors), torch.nn.functional.pad
    rest = (0, 0) * (tensors[0].ndim - 2)
    return torch.cat([pad(one, (*rest, 0, width - one.shape[1])) for one in tensors])


@dataclass(frozen=True, eq=False)
class Crystals:
    """A batch of crystals as padded tensors that also behaves as a list of structures.

    Args:
        species: atomic numbers, 0 = padding, shape (crystals, sites).
        frac: fractional coordinates in [0, 1), shape (crystals, sites, 3).
        lattice: rows are a, b, c in angstrom, shape (crystals, 3, 3).
        properties: name -> values of shape (crystals,); NaN where unknown.
        units: name -> unit of each property.
        labels: name -> one word per crystal, such as its prototype; "" where unknown.
        ids: one name per crystal; empty where none were given.
        info: plain record about the batch as a whole (seed, model, seconds, ...).

    Raises:
        ShapeError: the tensors do not describe the same crystals and sites.

    Example:
        >>> from pymatgen.core import Lattice, Structure
        >>> salt = Structure.from_spacegroup(
        ...     "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
        ... )
        >>> batch = Crystals.from_structures([salt])
        >>> batch.n_atoms.tolist(), batch[0].composition.reduced_formula
        ([8], 'NaCl')
    """

    species: Tensor
    frac: Tensor
    lattice: Tensor
    properties: dict[str, Tensor] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    ids: tuple[str, ...] = ()
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.species.ndim != 2:
            raise ShapeError(
                f"species must be (crystals, sites); got {tuple(self.species.shape)}. "
                "Add a leading axis for a single crystal."
            )
        b, s = self.species.shape
        for name, got, want in (
            ("frac", self.frac.shape, (b, s, 3)),
            ("lattice", self.lattice.shape, (b, 3, 3)),
            *(
                (f"properties[{k!r}]", v.shape, (b,))
                for k, v in self.properties.items()
            ),
            *((f"labels[{k!r}]", (len(v),), (b,)) for k, v in self.labels.items()),
            ("ids", (len(self.ids) or b,), (b,)),
        ):
            if tuple(got) != want:
                raise ShapeError(
                    f"{name} does not fit species {(b, s)}: got {tuple(got)}, need {want}. "
                    "Build batches with Crystals.from_structures."
                )
        if s > 1 and bool((self.mask[:, 1:] & ~self.mask[:, :-1]).any()):
            raise ShapeError(
                "padding (species 0) comes last in every crystal; got an atom after it. "
                "Move the atoms to the front, or use Crystals.from_structures."
            )

    # ---- shape and derived quantities ------------------------------------------------

    @property
    def mask(self) -> Tensor:
        """True where a site exists, shape (crystals, sites)."""
        return self.species > 0

    @property
    def n_atoms(self) -> Tensor:
        """Atoms per crystal, shape (crystals,)."""
        return self.mask.sum(dim=1)

    @property
    def cart(self) -> Tensor:
        """Cartesian coordinates in angstrom, shape (crystals, sites, 3)."""
        return self.frac @ self.lattice

    @property
    def volume(self) -> Tensor:
        """Cell volume in cubic angstrom, shape (crystals,)."""
        return torch.linalg.det(self.lattice).abs()

    @property
    def mass(self) -> Tensor:
        """Cell mass in u, shape (crystals,)."""
        return elements.table("mass").to(self.lattice)[self.species].sum(dim=1)

    @property
    def density(self) -> Tensor:
        """Mass density in g/cm^3, shape (crystals,)."""
        return self.mass / self.volume * ANGSTROM3_G

    @property
    def device(self) -> torch.device:
        """Device that holds the tensors."""
        return self.species.device

    @property
    def formulas(self) -> tuple[str, ...]:
        """Reduced formula of every crystal, elements from the least electronegative."""
        import warnings

        from pymatgen.core import Composition

        names = elements.symbols()
        with warnings.catch_warnings():  # sorting asks for it; He and Pm have none
            warnings.filterwarnings("ignore", message="No Pauling electronegativity")
            return tuple(
                Composition(Counter(names[z] for z in row if z)).reduced_formula
                for row in self.species.tolist()
            )

    # ---- sequence behaviour ----------------------------------------------------------

    def __len__(self) -> int:
        return self.species.shape[0]

    @overload
    def __getitem__(self, which: int) -> Structure: ...
    @overload
    def __getitem__(self, which: slice | Tensor | Sequence[int]) -> Crystals: ...
    def __getitem__(
        self, which: int | slice | Tensor | Sequence[int]
    ) -> Structure | Crystals:
        if isinstance(which, slice):
            index = torch.arange(len(self))[which]
        else:
            index = torch.as_tensor(which)
            if not index.ndim:  # one crystal: an int of Python, numpy or torch
                return self.structure(int(index))
            if index.dtype == torch.bool:
                if index.shape != (len(self),):
                    raise ShapeError(
                        "a mask must have one entry per crystal: got "
                        f"{tuple(index.shape)} for {len(self)}. Compute it on this "
                        "batch."
                    )
                index = index.nonzero().squeeze(1)
            index = index.long()
        at = index.to(self.device)
        return dataclasses.replace(
            self,
            species=self.species[at],
            frac=self.frac[at],
            lattice=self.lattice[at],
            properties={k: v[at.to(v.device)] for k, v in self.properties.items()},
            labels={
                k: tuple(v[i] for i in index.tolist()) for k, v in self.labels.items()
            },
            ids=tuple(self.ids[i] for i in index.tolist()) if self.ids else (),
        )

    def __iter__(self) -> Iterator[Structure]:
        for i in range(len(self)):
            yield self.structure(i)

    def __repr__(self) -> str:
        if not len(self):
            return "Crystals(empty)"
        shown = ", ".join(self[:5].formulas) + (", ..." if len(self) > 5 else "")
        n = self.n_atoms
        return f"Crystals({len(self)} of {int(n.min())}-{int(n.max())} atoms: {shown})"

    # ---- conversions -----------------------------------------------------------------

    def structure(self, i: int) -> Structure:
        """Return crystal i as a pymatgen Structure with its properties attached."""
        from pymatgen.core import Lattice, Structure

        if not -len(self) <= i < len(self):
            raise IndexError(f"crystal {i} of {len(self)}")
        keep = self.mask[i].cpu()
        made = Structure(
            Lattice(self.lattice[i].detach().double().cpu().numpy()),
            self.species[i].cpu()[keep].tolist(),
            self.frac[i].detach().double().cpu()[keep].numpy(),
        )
        made.properties = {k: float(v[i]) for k, v in self.properties.items()}
        made.properties |= {k: v[i] for k, v in self.labels.items()}
        if self.ids:
            made.properties["id"] = self.ids[i]
        return made

    @classmethod
    def from_structures(
        cls,
        structures: Iterable[Structure],
        *,
        properties: dict[str, Tensor] | None = None,
        units: dict[str, str] | None = None,
        labels: dict[str, tuple[str, ...]] | None = None,
        ids: Sequence[str] = (),
        max_atoms: int | None = None,
    ) -> Crystals:
        """Return a batch from pymatgen structures, in their order.

        Coordinates are wrapped into [0, 1); nothing else is changed. `max_atoms` raises
        the limit on one cell (`checks.MAX_ATOMS`).

        Raises:
            DataError: a structure is disordered, empty, has a NaN or a zero volume.
        """
        rows = list(structures)

        def name(i: int) -> str:
            return ids[i] if i < len(ids) else f"structure {i}"

        for i, one in enumerate(rows):
            if not one.is_ordered:
                raise DataError(
                    f"{name(i)} has partial occupancy: got {one.composition.formula}, "
                    "one site shared by several elements or not full. Choose an ordered "
                    "model first, for example with pymatgen's "
                    "OrderDisorderedStructureTransformation."
                )
            for kind in one.species:
                # of a dummy species, Z is any integer
                if not 0 < getattr(kind, "Z", 0) <= elements.MAX_Z:
                    raise unknown_element(name(i), str(kind))
        return cls(
            **packed(
                [len(one) for one in rows],
                [kind.Z for one in rows for kind in one.species],
                [one.frac_coords for one in rows],
                [one.lattice.matrix for one in rows],
                name,
                max_atoms or MAX_ATOMS,
            ),
            properties=properties or {},
            units=units or {},
            labels=labels or {},
            ids=tuple(ids),
        )

    # ---- whole-batch operations ------------------------------------------------------

    def to(self, device: torch.device | str) -> Crystals:
        """Return the batch on a device."""
        return dataclasses.replace(
            self,
            species=self.species.to(device),
            frac=self.frac.to(device),
            lattice=self.lattice.to(device),
            properties={k: v.to(device) for k, v in self.properties.items()},
        )

    def replace(self, **changes: Any) -> Crystals:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    @staticmethod
    def cat(batches: Sequence[Crystals]) -> Crystals:
        """Return one batch from several; properties that not all have are dropped."""
        if not batches:
            raise ShapeError("nothing to join: got no batches. Give at least one.")
        named = all(one.ids or not len(one) for one in batches)
        properties = {
            k: torch.cat([one.properties[k] for one in batches])
            for k in batches[0].properties
            if all(k in one.properties for one in batches)
        }
        return Crystals(
            joined([one.species for one in batches]),
            joined([one.frac for one in batches]),
            joined([one.lattice for one in batches]),
            properties=properties,
            units={k: v for k, v in batches[0].units.items() if k in properties},
            labels={
                k: tuple(word for one in batches for word in one.labels[k])
                for k in batches[0].labels
                if all(k in one.labels for one in batches)
            },
            ids=tuple(i for one in batches for i in one.ids) if named else (),
        )

    def soft(self) -> SoftCrystals:
        """Return the same crystals with species as one-hot probabilities."""
        hot = torch.nn.functional.one_hot(self.species, elements.MAX_Z + 1)
        probabilities = hot.to(self.frac.dtype) * self.mask.unsqueeze(-1)
        return SoftCrystals(probabilities, self.frac, self.lattice, self.mask)


@dataclass(frozen=True, eq=False)
class SoftCrystals:
    """Crystals whose species are still undecided: what a sampler previews.

    Args:
        species: probability of each atomic number, shape (crystals, sites, 104);
            entry 0 and padded sites are zero.
        frac: fractional coordinates, shape (crystals, sites, 3).
        lattice: rows in angstrom, shape (crystals, 3, 3).
        mask: site exists, shape (crystals, sites).
        t: time of the state that previews them, from 1 (noise) to 0 (finished).
    """

    species: Tensor
    frac: Tensor
    lattice: Tensor
    mask: Tensor
    t: float = 0.0

    def __len__(self) -> int:
        return self.mask.shape[0]

    @property
    def volume(self) -> Tensor:
        """Cell volume in cubic angstrom, shape (crystals,)."""
        return torch.linalg.det(self.lattice).abs()

    @property
    def mass(self) -> Tensor:
        """Expected cell mass in u, shape (crystals,)."""
        return (self.species @ elements.table("mass").to(self.species)).sum(dim=1)

    @property
    def density(self) -> Tensor:
        """Expected mass density in g/cm^3, shape (crystals,)."""
        return self.mass / self.volume * ANGSTROM3_G

    def harden(self) -> Crystals:
        """Return crystals with the most probable element on every site."""
        return Crystals(self.species.argmax(-1) * self.mask, self.frac, self.lattice)
