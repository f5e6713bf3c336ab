"""`Family`: what the package's own generators take from a training set, all alike."""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.symmetry.encoded import Encoded, Representation, encode
from matdesign.generators.conditions import Condition, properties_of
from matdesign.generators.contract import Generator
from matdesign.generators.control import Scales, scales_of


class Family(Generator):
    """A generator with the scales and elements of its data.

    A subclass takes keywords of its own, with defaults, and hands on all others.

    Args:
        own: `locals()` of the subclass's constructor: its own keywords.
        elements: atomic numbers that may appear.
        size_histogram: number of training crystals with 0, 1, 2, ... atoms.
        representation: "cell", every atom free; or "symmetric", by space group and
            Wyckoff positions; None takes the usual one.
        properties: name -> [mean, standard deviation] of what can be asked for.
        **scales: of the lattice code; see `Scales`.

    Attributes:
        usual: the representation where none is asked for.
    """

    usual: ClassVar[Representation] = "cell"

    def __init__(
        self,
        own: dict[str, Any],
        *,
        elements: Sequence[int],
        size_histogram: Sequence[int],
        representation: Representation | None = None,
        properties: dict[str, list[float]] | None = None,
        **scales: Sequence[float],
    ) -> None:
        representation = representation or self.usual
        config = {**locals(), **scales, **own}
        for name in ("self", "own", "data", "scales", "__class__"):
            config.pop(name, None)
        super().__init__(config, size_histogram)
        self.scales = Scales(elements, **scales)

    @classmethod
    def for_data(
        cls,
        train: Crystals | Encoded,
        *,
        representation: Representation | None = None,
        seed: int | torch.Generator | None = 0,
        **options: Any,
    ) -> Self:
        """Return an untrained model for a training set of primitive, reduced cells.

        Args:
            train: its elements, cell sizes, lattices, symmetries and properties set what
                the model knows.
            representation: "cell" or "symmetric"; None takes the family's usual one; of
                no effect where `train` is encoded.
            seed: of the initial weights.
            **options: keywords of the constructor, such as `width`.

        Raises:
            DataError: the training set is empty.
        """
        data = train
        if not isinstance(data, Encoded):
            data = encode(data, representation or cls.usual)
        facts = {**scales_of(data), "representation": data.representation, **options}
        facts.setdefault("properties", properties_of(data))
        model = cls(**facts)
        model.count(data)
        model.reset(seed)
        return model

    def count(self, data: Encoded) -> None:
        """Take what is counted in a training set and not learned: nothing, as a rule."""

    def nothing(self, n: int) -> Condition:
        """Return the condition that leaves everything open for n crystals."""
        return Condition.nothing(n, len(self.properties), self.device)

    @abc.abstractmethod
    def reset(self, seed: int | torch.Generator | None) -> None:
        """Draw all weights anew from a seed."""
