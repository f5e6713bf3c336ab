"""Closed loops from a shell: `matdesign campaign run FILE.toml`, `ask`, `tell`, ..."""

from __future__ import annotations

import csv
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

import matdesign as design
from matdesign import shell
from matdesign.errors import DataError
from matdesign.loop.campaign_file import number, read_campaign

app = typer.Typer(help="Closed loops: propose, evaluate, learn.", no_args_is_help=True)
Where = Annotated[str, typer.Argument(help="File or database URL of the campaign.")]
Scheduler = Annotated[str | None, typer.Option(help="Dask cluster, tcp://host:8786.")]


def _go_on(loop: design.Campaign, scheduler: str | None) -> None:
    from matdesign.loop.estimate import estimate

    oracle = getattr(loop.oracle, "oracle", loop.oracle)  # the one that relaxes
    if scheduler and not hasattr(oracle, "executor"):
        raise DataError(f"{oracle!r} does not compute on a cluster.")
    oracle.executor = scheduler
    typer.echo(f"{loop!r}\n{estimate(loop)}")
    if isinstance(loop.oracle, design.Experiment):
        typer.echo(f"next: matdesign campaign ask {loop.store.name}")
        return
    for iteration in loop:
        typer.echo(repr(iteration))
    typer.echo(loop.table().to_string(max_rows=10))


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="TOML; a wrong key shows all keys.")],
    scheduler: Scheduler = None,
) -> None:
    """Begin the campaign of a TOML file, say what it will cost, and run it."""
    with closing(read_campaign(file)) as loop:
        _go_on(loop, scheduler)


@app.command()
def resume(
    store: Where,
    budget: Annotated[int | None, typer.Option(help="A larger one.")] = None,
    scheduler: Scheduler = None,
) -> None:
    """Go on with a campaign that was stopped or killed, or has a larger budget."""
    with closing(design.Campaign.resume(store, budget=budget)) as loop:
        _go_on(loop, scheduler)


@app.command()
def status(store: Where) -> None:
    """Say how a campaign stands, also while another process runs it."""
    with closing(design.Campaign.view(store)) as loop:
        typer.echo(f"{loop!r}\n{loop.table().to_string(max_rows=10)}")


@app.command()
def report(
    store: Where,
    out: Annotated[Path, typer.Option("--out", "-o")] = Path("build/campaign.html"),
    reference: shell.Reference = None,
    judge: Annotated[
        str | None,
        typer.Option(help="Evaluates the best again: r2scan, or a property network."),
    ] = None,
    hit: Annotated[
        float | None, typer.Option(help="Highest objective of a hit, sign included.")
    ] = None,
) -> None:
    """Write a page of figures, failures and finalists, also while the campaign runs."""
    known = shell.reference(reference)
    with closing(design.Campaign.view(store)) as loop:
        page = design.report_campaign(loop, out, known=known, judge=judge, hit=hit)
        typer.echo(f"wrote {page}")


@app.command()
def ask(
    store: Where,
    n: Annotated[int | None, typer.Option("-n", min=1, help="At most.")] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder of CIF files, or one .xyz file.")
    ] = Path("build/asked"),
) -> None:
    """Write crystals to make or compute, the same ones until told, and a table for it."""
    with closing(design.Campaign.resume(store)) as loop:
        crystals, columns = loop.ask(n), loop.oracle.columns
        if not len(crystals):
            raise DataError(loop.stopped or f"the budget of {loop.budget} is spent.")
    table = out.with_suffix(".csv")
    held = _read(table) if table.exists() else []
    filled = {row.get("id") for row in held if any([*row.values()][3:])}
    if filled & set(crystals.ids):
        raise DataError(f"{table} holds what is not told yet: tell it first.")
    shell.write(crystals, out)
    blank = [f"{name} ({unit})" if unit else name for name, unit in columns.items()]
    with table.open("w", newline="", encoding="utf-8") as sheet:
        rows = csv.writer(sheet)
        rows.writerow(["id", "formula", "parent", *blank, "reason"])
        parents = crystals.labels.get("parent", [""] * len(crystals))
        for row in zip(crystals.ids, crystals.formulas, parents, strict=True):
            rows.writerow([*row, *[""] * len(blank), ""])
    typer.echo(f"wrote {table}: fill in what was measured, or why it was not (reason)")


def _read(table: Path) -> list[dict[str, str]]:
    """Return the rows of a table of `ask`."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as sheet:
            return [*csv.DictReader(sheet, restval="")]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{table} cannot be read: {error}") from None


@app.command()
def tell(
    store: Where,
    results: Annotated[Path, typer.Argument(help="The table of `ask`, filled in.")],
) -> None:
    """Record what was measured; rows with an empty cell go on waiting, nan is unknown."""
    every = _read(results)
    if every and not {"id", "formula", "reason"} <= set(every[0]):
        raise DataError(f"{results} needs the columns of `ask`, with commas between.")
    heads = [name for name in [*every[0]][3:] if name != "reason"] if every else []
    rows = [row for row in every if row["reason"] or all(row[x] for x in heads)]
    with closing(design.Campaign.resume(store)) as loop:
        known = loop.table().reindex(columns=["id", "formula"])
        told = set(known.itertuples(index=False, name=None))
        new = [row for row in rows if (row["id"], row["formula"]) not in told]
        asked = loop.ask() if new else loop.best(0)
        names = [*zip(asked.ids, asked.formulas, strict=True)]
        pairs = [(row["id"], row["formula"]) for row in new]
        if strangers := [one for one in pairs if one not in names]:
            raise DataError(f"{results} has rows not asked about: {strangers}")
        if new:
            columns = {}
            for head in heads:
                name, _, unit = head.removesuffix(")").partition(" (")
                values: Any = [number(row[head] or "nan") for row in new]
                columns[name] = design.Column(values, unit)
            chosen = asked[[names.index(one) for one in pairs]]
            loop.tell(design.Results(chosen, columns, tuple(x["reason"] for x in new)))
        words = f"told {len(new)} results, {len(rows) - len(new)} kept as told before, "
        typer.echo(f"{words}{len(every) - len(rows)} incomplete\n{loop!r}")
