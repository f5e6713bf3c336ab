"""The steps of the workbook as commands of a shell: `matdesign sample`, `check`, ..."""

import os
from pathlib import Path
from typing import Annotated

import typer

import matdesign
from matdesign import campaigns, shell
from matdesign.errors import DataError
from matdesign.loop.campaign_file import WANTS, constraint

app = typer.Typer(
    name="matdesign",
    cls=shell.PlainErrors,
    help="Inverse materials design from a shell. The steps, in order: sample, check, "
    "relax, report; `design` does all of them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(campaigns.app, name="campaign")

Want = Annotated[
    list[str],
    typer.Option("--want", "-w", help=f"A constraint; repeat for more: {WANTS}."),
]
Files = Annotated[
    list[Path],
    typer.Argument(help="Files or folders; exit code 1 where one cannot be read."),
]
Symmetrize = Annotated[bool, typer.Option(help="CIF with its space group, not P1.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="File to write.")]


@app.command()
def sample(
    model: Annotated[
        str, typer.Option(help="Shipped model, see `models`, or a folder of one.")
    ] = "autoregressive-prototypes",
    n: Annotated[int, typer.Option("-n", min=1, help="How many crystals.")] = 16,
    seed: Annotated[int | None, typer.Option(help="Fresh when left out.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Sampling steps.")] = None,
    atoms: Annotated[int | None, typer.Option(min=1, help="Atoms per cell.")] = None,
    out: Out = Path("build/sampled.parquet"),
    want: Want = [],  # noqa: B006
) -> None:
    """Draw new crystals from a trained model, all of which meet the constraints.

    A guide serves each constraint by the method that suits the model: elements, formula
    and charge as masks, so that nothing forbidden is drawn; others by a gradient, a
    projection or by drawing again. Every crystal is checked at the end, what misses is drawn
    again, and the counts are printed. Writes the crystals and, beside them, a record of
    seed and settings.
    """
    wanted = constraint(want)
    guide = matdesign.Guide(wanted) if wanted is not None else None
    trained = matdesign.load_model(model)
    made = trained.sample(n, seed=seed, steps=steps, n_atoms=atoms, guide=guide)
    info = made.info
    typer.echo(f"{made}\nseed {info['seed']}, {info['seconds']:.1f} s")
    if "guide" in info:
        log = info["guide"]
        typer.echo(f"guide: {log['met']} of {log['drawn']} drawn met every constraint")
        for name, count in log["met_each"].items():
            typer.echo(f"  {count:>6} of {log['drawn']}  {name}")
    shell.write(made, out)


@app.command()
def check(
    files: Files,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write those that meet all.")
    ] = None,
    symmetrize: Symmetrize = False,
    want: Want = [],  # noqa: B006
) -> None:
    """Say which crystals meet which constraints, and by how much the others miss.

    Prints one row per crystal and the count of each constraint; nothing is changed.
    """
    wanted = constraint(want)
    if wanted is None:
        raise DataError(
            "check needs a constraint, such as --want neutral or "
            "--want min-distance=1.4; see `matdesign check --help`."
        )
    crystals, failed = shell.read_each(files)
    found = matdesign.check(crystals, wanted)
    typer.echo(repr(found))
    if out is not None:
        shell.write(crystals[found.met], out, symmetrize)
    shell.say_failed(failed)


@app.command()
def relax(
    files: Files,
    out: Out = Path("build/relaxed.parquet"),
    workers: Annotated[
        int, typer.Option(min=1, help="Processes; one per core when left out.")
    ] = os.cpu_count() or 1,
    weights: Annotated[str, typer.Option(help="0.3.0 or r2scan.")] = "0.3.0",
    symmetrize: Symmetrize = False,
    scheduler: campaigns.Scheduler = None,
) -> None:
    """Relax crystals with the potential, and measure their distance to the hull.

    Worker processes relax several together, with a time limit; where one fails each is
    tried alone, and one that fails again is a row with its reason. Writes the relaxed
    crystals with energies and distances.
    """
    crystals, failed = shell.read_each(files)
    oracle = matdesign.PotentialOracle(weights, workers=workers, executor=scheduler)
    results = oracle.evaluate(crystals)
    typer.echo(repr(results))
    made = results.structures.replace(properties={}, units={})
    shell.write(made, out, symmetrize, results=results)
    shell.say_failed(failed)


@app.command()
def evaluate(
    files: Files,
    reference: shell.Reference = None,
) -> None:
    """Judge a batch: validity, uniqueness and, with a reference, novelty.

    Prints each figure with its 95 % interval, the most common failures and the settings.
    A file that cannot be read counts as one crystal without atoms, which fails.
    """
    known = shell.reference(reference)
    crystals, failed = shell.read_each(files)
    judged = matdesign.evaluate(shell.add_failed(crystals, failed), known)
    typer.echo(repr(judged))
    shell.say_failed(failed)


@app.command()
def report(
    file: Annotated[Path, typer.Argument(help="What `relax` wrote, or any crystals.")],
    out: Out = Path("build/report.html"),
    proposed: Annotated[
        Path | None, typer.Option(help="All crystals before `check`, to count them.")
    ] = None,
    reference: shell.Reference = None,
    title: Annotated[str, typer.Option(help="Heading.")] = "Designed crystals",
    want: Want = [],  # noqa: B006
) -> None:
    """Write a page with 3D crystals, a table and CIF files; it opens offline.

    The page counts what was proposed, what met the constraints and what lies near the
    hull, and shows every failure with its reason.
    """
    wanted = constraint(want)
    crystals, results = shell.read([file]), shell.read_results(file)
    judged = matdesign.evaluate(crystals, shell.reference(reference))
    everything = shell.read([proposed]) if proposed is not None else crystals
    page = matdesign.report(
        everything, results, judged, out, wanted=wanted, title=title
    )
    typer.echo(
        f"wrote {page} and {len(everything)} CIF files in {page.parent}/crystals"
    )


@app.command()
def design(
    notebook: Annotated[
        Path | None, typer.Argument(help="The workbook's quickstart when left out.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Executed copy; in build/ when left out."),
    ] = None,
) -> None:
    """Run the quickstart: propose new oxides, check, relax, rank, write a report.

    Executes the cells of notebooks/quickstart.ipynb without a display and leaves
    build/report.html. Another notebook can be named instead.
    """
    from matdesign.teach import workbook

    which = notebook or workbook.notebooks() / "quickstart.ipynb"
    build = which.resolve().parent.parent / "build"
    saved = out or build / which.name
    typer.echo(f"running {which.name}")
    workbook.run(which, saved, say=typer.echo)
    typer.echo(f"done; the notebook with its outputs: {saved}")
    page = build / "report.html"
    if page.exists():
        typer.echo(f"open in a browser: {page}")


@app.command()
def models() -> None:
    """List the trained models that are shipped."""
    typer.echo(repr(matdesign.models()))


@app.command()
def datasets() -> None:
    """List the data sets that can be loaded by name."""
    typer.echo("\n".join(matdesign.datasets()))


if __name__ == "__main__":
    app()
