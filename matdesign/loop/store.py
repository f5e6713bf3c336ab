"""The store of a campaign: an ASE database in which nothing is lost.

Every step is a row, written whole or not at all, so that a process killed at any moment
leaves a store that can be continued.  ASE's own tools read it too:
`ase db campaign.db kind=evaluation --sort energy_above_hull`.

Rows, told apart by the key `kind`:

==============  ========================================================================
kind            what it holds
==============  ========================================================================
`campaign`      one row; `data["settings"]`: a JSON text with seed, budget, batch,
                objective, oracle, constraints, package version
`crystal`       one per proposed crystal, the atoms as proposed; `iteration`, `place` in the
                iteration, `key` (hash of the crystal), `decision` ("selected",
                "passed over", "duplicate" or "rejected"), `reason`; the lineage: `model`
                with checksum of the weights, `draw` (its seed), `guide`, `parent` (what a
                pool or substitution made it from); `predicted`, `predicted_std` by a
                selector; `data`: the exact numbers, frac and lattice in float32
`evaluation`    one per call of the oracle, the atoms as relaxed; `iteration`, `place`,
                `key`, `ok` (0 or 1), `reason`, `seconds` (the cost), `oracle`, and every
                column of `Results` whose value is known and whose name ASE allows;
                `data` as above, and `data["result"]`: a JSON text with all columns,
                their units and standard deviations
`iteration`          one per finished iteration: `iteration`, `draw` (seed of the generator) and the
                counts `proposed`, `passed`, `fresh`, `selected`, `usable`, `seconds`,
                `version` of the generator where it learns
==============  ========================================================================

The `crystal` rows of an iteration are written together, before anything is evaluated, each
`evaluation` as soon as it is there; the `iteration` row closes the iteration.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from matdesign.crystals.batch import Crystals
from matdesign.crystals.matching import reduced
from matdesign.errors import DataError
from matdesign.loop.locks import lock_database, lock_file
from matdesign.loop.results import Results

if TYPE_CHECKING:
    import ase

KEYS = ("kind", "iteration", "place", "key", "ok", "reason", "seconds", "oracle")
"""What every evaluation has; a column of such a name is in its data only."""


@dataclass(frozen=True)
class Proposal:
    """One proposed crystal and what was decided about it.

    Args:
        crystal: a batch of one.
        place: in the iteration.
        decision: "selected", "passed over" (sound and new), "duplicate" or "rejected".
        reason: why; "" for one that was selected as it came.
        parent: id of what it was made from; "" where there is none.
        predicted: the objective by a selector's surrogate; NaN where it did not say.
        predicted_std: its standard deviation.
    """

    crystal: Crystals
    place: int
    decision: str
    reason: str = ""
    parent: str = ""
    predicted: float = math.nan
    predicted_std: float = math.nan

    @property
    def key(self) -> str:
        """Hash of the crystal."""
        return crystal_keys(self.crystal)[0]


class Store:
    """Rows of one campaign in an ASE database.

    Args:
        where: a file ending in .db (SQLite), or a URL such as
            postgresql://user:password@host/name (needs the package ase-db-backends).
        read_only: to look at it, also while another process writes.

    Raises:
        DataError: the ending is unknown, the folder missing, or another process writes
            to the same file.
    """

    def __init__(self, where: str | Path, *, read_only: bool = False) -> None:
        import ase.db

        connect: Any = ase.db.connect

        self.where, self.read_only = str(where), read_only
        self._lock: Any = None
        if "://" in self.where:
            try:
                self._db: Any = connect(self.where)
                self._lock = None if read_only else lock_database(self._db, self.name)
            except ImportError as error:
                raise DataError(
                    f"{self.name} needs a database driver that is not "
                    f"installed ({error}). Run `pip install ase-db-backends psycopg2-"
                    "binary`, or give a file name ending in .db."
                ) from None
            except DataError:
                raise
            except Exception as error:
                raise DataError(
                    f"{self.name} cannot be reached ({error}). Check host and password."
                ) from None
            return
        path = Path(self.where)
        if path.suffix != ".db":
            raise DataError(
                f"a store is a file ending in .db or a database URL; got {where!r}. A TOML "
                "file is begun with `matdesign campaign run`."
            )
        needed = path if read_only else path.absolute().parent
        if not needed.exists():
            raise DataError(f"no store {path}: {needed} does not exist.")
        self._lock = None if read_only else lock_file(path)
        # SQLite locks its file itself; ASE's lock file would outlive a killed process
        plain = {"type": "db", "use_lock_file": False}
        if not path.exists():  # whole or not at all, also where it is killed right here
            ready = path.with_suffix(".db-new")
            ready.unlink(missing_ok=True)
            connect(ready, **plain).count()
            ready.rename(path)
        self._db = connect(path, **plain)
        try:
            self._db.count()
        except Exception as error:
            self.close()
            raise DataError(
                f"{path} is not a campaign store ({error}). Give another name, or "
                "move that file away."
            ) from None

    @property
    def name(self) -> str:
        """Where the store is, without a password."""
        return self.where.split("@")[-1]

    def settings(self) -> dict[str, Any] | None:
        """Return the campaign's settings, or None in a new store."""
        for row in self._db.select(kind="campaign"):
            return json.loads(row.data["settings"])
        return None

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Write the campaign's settings, replacing older ones."""
        data = {"settings": json.dumps(settings)}
        with self._writing():
            for row in self._db.select(kind="campaign"):
                self._db.update(row.id, data=data)
                return
            self._db.write(None, kind="campaign", data=data)

    def propose(
        self, iteration: int, proposals: Sequence[Proposal], **lineage: str | int
    ) -> None:
        """Write all proposals of an iteration with decisions and lineage, all or none."""
        with self._writing():
            for one in proposals:
                said = {"predicted": one.predicted, "predicted_std": one.predicted_std}
                more = {k: v for k, v in said.items() if math.isfinite(v)}
                texts = {**lineage, "parent": one.parent}
                more |= {k: _text(v) for k, v in texts.items() if v != ""}
                self._db.write(
                    _atoms(one.crystal),
                    kind="crystal",
                    iteration=iteration,
                    place=one.place,
                    key=one.key,
                    decision=one.decision,
                    reason=_text(one.reason),
                    data=_exact(one.crystal),
                    **more,
                )

    def evaluated(self, iteration: int, asked: Proposal, result: Results) -> Evaluation:
        """Write what the oracle said of one crystal, and return what will be read."""
        n, kept = int(asked.crystal.n_atoms[0]), result.structures
        species, frac = kept.species[:, :n], kept.frac[:, :n].float()
        narrow = Crystals(species, frac, kept.lattice.float())
        result = Results.from_dict(narrow, result.to_dict())  # as it will be read
        known = {k: v.values[0].item() for k, v in result.columns.items()}
        shown = {k: v for k, v in known.items() if math.isfinite(v) and _allowed(k)}
        text = json.dumps(result.to_dict())
        with self._writing():
            self._db.write(
                _atoms(result.structures),
                kind="evaluation",
                iteration=iteration,
                place=asked.place,
                key=asked.key,
                ok=int(result.ok[0]),
                reason=_text(result.reason[0]),
                seconds=float(result.seconds[0]),
                oracle=_text(result.oracle),
                data={**_exact(result.structures), "result": text},
                **shown,
            )
        return Evaluation(iteration, asked.place, asked.key, result)

    def finish(self, iteration: int, counts: dict[str, int | float | str]) -> None:
        """Close an iteration."""
        with self._writing():
            self._db.write(None, kind="iteration", iteration=iteration, **counts)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """All writes inside are one transaction: they become visible together or not."""
        if self.read_only:
            raise DataError(f"{self.name} is only looked at; use Campaign.resume.")
        try:
            with self._db:
                yield
        except (OSError, sqlite3.Error) as problem:
            raise DataError(
                f"nothing more can be written to {self.name} ({problem}). What is there is "
                "whole: make room on the disk, then Campaign.resume goes on from it."
            ) from problem

    def proposals(self, iteration: int) -> list[Proposal]:
        """Return the proposals of an iteration in their places; empty when none are there."""
        rows = self._rows("place", kind="crystal", iteration=iteration)
        names = ("place", "decision", "reason", "predicted", "predicted_std", "parent")
        kept = [{k: _words(row[k]) for k in names if k in row} for row in rows]
        return [Proposal(_crystal(row), **k) for row, k in zip(rows, kept, strict=True)]

    def evaluations(self) -> list[Evaluation]:
        """Return all evaluations by iteration and place."""
        rows = self._rows("iteration", "place", kind="evaluation")
        return [Evaluation(x.iteration, x.place, x.key, _result(x)) for x in rows]

    def originals(self) -> dict[str, Crystals]:
        """Return every selected crystal as it was proposed, by its key."""
        rows = self._rows("place", kind="crystal", decision="selected")
        return {row.key: _crystal(row) for row in rows}

    def offered(self) -> dict[str, str]:
        """Return the key of every proposed crystal -> what was decided last."""
        rows = self._rows("iteration", "place", kind="crystal")
        return {row.key: row.decision for row in rows}

    def iterations(self, **wanted: int) -> list[dict[str, Any]]:
        """Return the rows of finished iterations in order: all, or `iteration=5`."""
        rows = self._rows("iteration", kind="iteration", **wanted)
        return [dict(row.key_value_pairs) for row in rows]

    def decisions(self) -> list[dict[str, Any]]:
        """Return the keys of every proposed crystal, with `id` and reduced `formula`."""
        found = []
        for row in self._rows("iteration", "place", kind="crystal"):
            numbers = torch.tensor(row.numbers.tolist(), dtype=torch.long)
            name, [formula] = f"{row.iteration}-{row.place}", reduced(numbers[None])
            said = {k: _words(v) for k, v in row.key_value_pairs.items()}
            found.append({"reason": "", **said, "id": name, "formula": formula})
        return found

    def _rows(self, *order: str, **wanted: Any) -> list[Any]:
        columns = ["id", "numbers", "key_value_pairs"]
        with self._db:  # else ASE connects anew for every row
            rows = [*self._db.select(columns=columns, **wanted)]
        return sorted(rows, key=lambda row: [row[name] for name in order])

    def count(self, kind: str) -> int:
        """Return how many rows of a kind there are."""
        return int(self._db.count(kind=kind))

    def close(self) -> None:
        """Let other processes write."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __repr__(self) -> str:
        kinds = ("crystal", "evaluation", "iteration")
        counts = ", ".join(f"{self.count(kind)} {kind}s" for kind in kinds)
        return f"Store({self.name}: {counts})"


@dataclass(frozen=True)
class Evaluation:
    """One call of the oracle.

    Args:
        iteration: that proposed the crystal.
        place: in that iteration.
        key: of the crystal as proposed.
        result: a table of one row.
    """

    iteration: int
    place: int
    key: str
    result: Results

    @property
    def name(self) -> str:
        """What tables call the crystal."""
        return f"{self.iteration}-{self.place}"


def crystal_keys(crystals: Crystals) -> list[str]:
    """Return a hash per crystal: equal for equal atoms, coordinates and cells.

    Bit-equal float32 numbers count as equal; padding does not matter. Crystals that
    are merely similar are found by matching structures instead.
    """
    keys = []
    for i in range(len(crystals)):
        exact = _exact(crystals, i)
        parts = (exact[name].tobytes() for name in ("numbers", "frac", "lattice"))
        keys.append("c" + hashlib.sha256(b"|".join(parts)).hexdigest()[:24])
    return keys


def _exact(crystals: Crystals, i: int = 0) -> dict[str, Any]:
    """A crystal bit for bit; ASE's own columns go through Cartesian coordinates."""
    keep = crystals.mask[i]
    return {
        "numbers": crystals.species[i][keep].cpu().numpy().astype(np.int64),
        "frac": crystals.frac[i][keep].detach().cpu().numpy().astype(np.float32),
        "lattice": crystals.lattice[i].detach().cpu().numpy().astype(np.float32),
    }


def _crystal(row: Any) -> Crystals:
    data = row.data
    return Crystals(
        torch.tensor(np.array(data["numbers"], dtype=np.int64))[None],
        torch.tensor(np.array(data["frac"], dtype=np.float32)).reshape(1, -1, 3),
        torch.tensor(np.array(data["lattice"], dtype=np.float32))[None],
    )


def _atoms(one: Crystals) -> ase.Atoms:
    import ase

    exact = _exact(one)  # what is not finite shows as 0 here, and exactly in data
    frac, lattice = (
        np.nan_to_num(exact[name].astype(np.float64), posinf=0.0, neginf=0.0)
        for name in ("frac", "lattice")
    )
    numbers = exact["numbers"]
    return ase.Atoms(numbers, positions=frac @ lattice, cell=lattice, pbc=True)


def _result(row: Any) -> Results:
    return Results.from_dict(_crystal(row), json.loads(row.data["result"]))


def _allowed(name: str) -> bool:
    from ase.db.core import reserved_keys

    return name not in reserved_keys and name not in KEYS


def _text(words: Any) -> Any:
    """Words as ASE accepts them: it refuses a text that could be a number."""
    if not isinstance(words, str):
        return words
    try:
        float(words)
    except ValueError:
        return f"({words})" if words in ("True", "False") else words
    return f"({words})"


def _words(text: Any) -> Any:
    """What `_text` was given."""
    plain = text[1:-1] if isinstance(text, str) else text
    return plain if plain != text and _text(plain) == text else text
