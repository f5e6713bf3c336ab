"""`Family`: what the package's own generators take from a training set, all alike."""

from __future__ import annotations

import abc
from typing import Any, ClassVar, Self

import torch

from matdesign.crystals import elements as periodic_table
from matdesign.crystals.batch import Crystals
from matdesign.crystals.symmetry.encoded import Encoded, Representation, encode
from matdesign.generators.conditions import Condition, properties_of
from matdesign.generators.contract import Generator
from matdesign.generators.control import Scales, scales_of
from matdesign.generators.templates import Templates


class Family(Generator):
    """A generator with the scales, elements and, where it uses them, templates of its data.

    Args:
        config: keywords of the subclass, as it was called.

    Attributes:
        usual: the representation where none is asked for.
        templated: whether the layouts of a "symmetric" model are those of its data.
    """

    usual: ClassVar[Representation] = "cell"
    templated: ClassVar[bool] = False

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config, config["size_histogram"])
        means = (config[f"code_{of}"] for of in ("mean", "std", "low", "high"))
        self.scales = Scales(config["elements"], *means)
        shape = config.get("templates")
        self.templates = None if shape is None else Templates(*shape)

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
        properties = facts.setdefault("properties", properties_of(data))
        templates = None
        if cls.templated and data.representation == "symmetric":
            templates = Templates.of(data, properties)
            facts["templates"] = templates.shape
        model = cls(**facts)
        model.templates = templates
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

    def describe(self) -> dict[str, str]:
        """Return lines for `repr`."""
        names = periodic_table.symbols()
        seen = [names[z] for z in self.config["elements"]]
        shown = " ".join(seen[:12]) + (" ..." if len(seen) > 12 else "")
        kept = ("representation", "width", "layers", "heads", "couplings", "bins")
        sizes = ", ".join(f"{k} {self.config[k]}" for k in kept if k in self.config)
        return {"elements": f"{len(seen)}: {shown}", "network": sizes}
