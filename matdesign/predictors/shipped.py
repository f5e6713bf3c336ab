"""Trained property networks that come with the package."""

from __future__ import annotations

import json
from pathlib import Path

from matdesign.generators.shipped import Models, listed, weights_folder
from matdesign.paths import data_dir
from matdesign.predictors.network import PropertyNetwork


def property_networks() -> Models:
    """Return the trained property networks that `load_predictor` can load by name."""
    return listed(predicting=True)


def load_predictor(name: str | Path) -> PropertyNetwork:
    """Return a trained property network, on the CPU.

    Args:
        name: one of `property_networks()`, or a folder that `PropertyNetwork.save` wrote.

    Raises:
        DataError: no such network; weights missing, cut short or altered.
    """
    return PropertyNetwork.load(weights_folder(name, predicting=True))


def held_out_error(network: PropertyNetwork | None, name: str) -> float | None:
    """Return the mean absolute error on the test part that a network's card states.

    Args:
        network: any; None and those without a card of theirs give None.
        name: which property.
    """
    record = network.record if network is not None else {}
    path = data_dir() / "models" / str(record.get("name", "")) / "card.json"
    if not path.is_file():
        return None
    card = json.loads(path.read_bytes())
    if card["training"] != record or name not in card["test"]:
        return None
    return float(card["test"][name]["mae"]["value"])
