"""The constraint on what a predictor says of a crystal."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from matdesign.constraints.between import Range
from matdesign.crystals.batch import Crystals, SoftCrystals
from matdesign.errors import DataError, UnitError

if TYPE_CHECKING:
    from matdesign.predictors.network import PropertyNetwork

Predictor = Callable[[Crystals | SoftCrystals], Tensor]
"""A function of crystals, finished or undecided, to values of shape (crystals,)."""


class Property(Range):
    """What a predictor says of a crystal lies in a closed range.

    The predictor is one of the trained networks by name, a `PropertyNetwork`, or any
    function of crystals. For gradients it must be differentiable on undecided crystals.
    The strict check asks the same predictor: it says what the predictor believes, not
    what is true. `judge` asks a second predictor that was trained apart.

    The violation is the distance to the nearer end, in the property's unit, and infinite
    where the predictor gives no number. Missing by the predictor's own error on held-out
    crystals costs one nat of reward (`scale`), by one unit where no card states an error.

    Args:
        predictor: name or folder of a trained network, the network, or a function; a
            `TimeHead` is one that knows how far to trust a preview.
        low: lower end, included; -inf for none.
        high: upper end, included; inf for none.
        name: which property; needed where a network predicts several, and for a function
            that has no `name` of its own.
        unit: of the ends. It must be a network's own unit; for a function it is what the
            results are in.

    Raises:
        DataError: no such network or property; an end is not a number.
        UnitError: the network predicts in another unit.
        InfeasibleTarget: low is above high.

    Example:
        >>> def height(crystals):
        ...     return crystals.lattice[:, 2, 2]
        >>> Property(height, 3, 5, name="height", unit="angstrom")
        predicted height from 3 to 5 angstrom
    """

    def __init__(
        self,
        predictor: str | Path | PropertyNetwork | Predictor,
        low: float = -math.inf,
        high: float = math.inf,
        *,
        name: str | None = None,
        unit: str | None = None,
    ) -> None:
        from matdesign.predictors.network import PropertyNetwork
        from matdesign.predictors.shipped import held_out_error, load_predictor

        if isinstance(predictor, str | Path):
            predictor = load_predictor(predictor)
        self.network = predictor if isinstance(predictor, PropertyNetwork) else None
        self._function = None if self.network is not None else predictor
        if self.network is not None:
            name, unit = _of_network(self.network, name, unit)
        else:
            name = name or getattr(predictor, "name", None)
            unit = unit or getattr(predictor, "unit", None)
        if not callable(predictor) or not name:
            raise DataError(
                "Property needs a network or a function of crystals, and a name for what "
                f"a function gives; got {predictor!r} and name={name!r}."
            )
        super().__init__(name, low, high, unit or "")
        self.learned = name if self.network is not None else ""
        self.predictor = predictor
        self.predictor_calls = 0
        """Crystals that the predictor has judged so far."""
        asked = self.network or getattr(predictor, "network", None)
        self.scale = held_out_error(asked, self.name) or 1.0

    @property
    def key(self) -> Hashable:
        """Predictor and property: two predictors may say different things."""
        return id(self.predictor), self.name

    def sentence(self) -> str:
        """Return for example "predicted band gap from 1 to 2 eV"."""
        return f"predicted {super().sentence()}"

    def value(self, crystals: Crystals | SoftCrystals) -> Tensor:
        """Return what the predictor says, in `unit`, shape (crystals,).

        Raises:
            DataError: a function gives another shape.
        """
        self.predictor_calls += len(crystals)
        if self.network is None:
            assert callable(self._function)
            found = self._function(crystals)
            if found.shape != (len(crystals),):
                raise DataError(
                    f"the function of {self.name} must give one value per crystal; got "
                    f"shape {tuple(found.shape)} for {len(crystals)} crystals."
                )
            return found
        if isinstance(crystals, SoftCrystals):
            return self.network.predict_soft(crystals, self.name)
        return self.network.predict(crystals)[self.name].to(crystals.frac)


def _of_network(
    network: PropertyNetwork, name: str | None, unit: str | None
) -> tuple[str, str]:
    """Return the property of a network and its unit."""
    name = network.named(name)
    own = network.units[network.properties.index(name)]
    if unit is not None and unit != own:
        raise UnitError(
            f"the network predicts {name} in {own}; got unit={unit!r}. Convert the ends, "
            "or leave the unit out."
        )
    return name, own
