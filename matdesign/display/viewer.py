"""Look at crystals: one object for a live notebook, a static page and a file on disk."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matdesign.crystals.batch import Crystals
from matdesign.display import picture, scene
from matdesign.display.pages import Live, page, to_json
from matdesign.display.scene import Images
from matdesign.errors import DataError, ShapeError
from matdesign.tables import render

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from matdesign.generators.control import State

STILL = (
    "A still picture. Where it stays, the viewer that turns cannot be shown here: "
    'view(...).save("crystal.html") makes a file that turns in any browser.'
)

MOST_FRAMES = 200


class CrystalView(Live):
    """Crystals to turn, step through and play.

    Under a kernel this is a live nglview widget. Everywhere else it is HTML that carries
    its own data: on a page of the book, in a report, or in a file made with `save`. Without
    WebGL or JavaScript a drawing stays. All three show the same atoms, bonds and colours.

    Args:
        structures: the crystals, one per frame.
        labels: one line of text per frame; formula and space group when left out.
        caption: text under the viewer.
        images: periodic copies to draw: on the cell's `"boundary"` or `"none"`.
        bonds: draw bonds (the rule is in `scene.bonds`).
        options: `height` (pixels), `start` (frame), `interval` (milliseconds), `refit`
            (zoom on every frame; else one scale for all), `slider` (its name for a screen
            reader), `name`.
    """

    OPTIONS = ("height", "start", "interval", "refit", "slider", "name", "sliders")

    def __init__(
        self,
        structures: Sequence["Structure"],
        labels: Sequence[str] | None = None,
        *,
        caption: str = "",
        images: Images = "boundary",
        bonds: bool = True,
        **options: Any,
    ) -> None:
        if not structures:
            raise DataError(
                "nothing to show: got no crystals. Give at least one; a filter before "
                "this may have dropped them all."
            )
        if labels is not None and len(labels) != len(structures):
            raise ShapeError(
                f"labels must name every crystal: got {len(labels)} for "
                f"{len(structures)}. Give one each, or none."
            )
        if unknown := sorted(set(options) - set(self.OPTIONS)):
            raise DataError(
                f"view has no option {unknown[0]!r}; choose from {', '.join(self.OPTIONS)}."
            )
        self.structures = list(structures)
        self.images, self.bonds = images, bonds
        self.labels = [str(one) for one in labels] if labels is not None else None
        self.caption = caption
        symbols = sorted({str(site.specie.symbol) for s in structures for site in s})
        kinds = {symbol: n for n, symbol in enumerate(symbols)}
        frames = [
            scene.frame(one, kinds, images=images, with_bonds=bonds)
            for one in structures
        ]
        described: dict[int, str] = {}
        for n, one in enumerate(structures):
            label = self.labels[n] if self.labels else ""
            if not label or n in (0, len(structures) - 1):
                described[n] = scene.describe(one)
            frames[n]["label"] = label or scene.label(one, n, len(structures))
            words = described.get(n) or (
                f"{one.composition.reduced_formula}, {scene.cell_text(one)}."
            )
            frames[n]["alt"] = f"{label}: {words}" if label else words
        first, last = described[0], described[len(frames) - 1]
        many = f"{len(frames)} crystals to step through. First: {first} Last: {last}"
        self.alt = many if len(frames) > 1 else first
        self.data: dict[str, Any] = {
            "species": scene.species_table(symbols),
            "frames": frames,
            "options": {"orientation": picture.camera(), **options},
        }

    def __repr__(self) -> str:
        first = self.structures[0].composition.reduced_formula
        n = len(self.structures)
        return f"CrystalView({first})" if n == 1 else f"CrystalView({n} from {first})"

    def to_html(self) -> str:
        """Return the viewer as HTML with its data inside.

        The page needs `standalone_assets()` once, as a report and a saved file have them.
        """
        options, frames = self.data["options"], self.data["frames"]
        start, height = int(options.get("start", 0)), int(options.get("height", 340))
        species = self.data["species"]
        drawing = picture.draw(frames[start], species, self.alt, height=height)
        caption = self.caption or (self.labels or [""])[0] * (len(frames) == 1)
        return render(
            "viewer",
            name=options.get("name", ""),
            height=height,
            data=to_json(self.data),
            alt=self.alt,
            still=STILL,
            drawing=drawing,
            species=species,
            inline=False,
            beside=frames[start].get("beside", ""),
            caption=caption,
        )

    def save(self, path: str | Path) -> Path:
        """Write one HTML file that opens from disk, offline; return its path."""
        made = Path(path)
        made.write_text(page(repr(self), self.to_html()), encoding="utf-8")
        return made

    def widget(self) -> Any:
        """Return the live widget: nglview, with a player when there are several frames."""
        return LiveViewer(self.data).box()


def view(
    crystals: "Crystals | Structure | Iterable[Structure]",
    labels: Sequence[str] | None = None,
    supercell: int | tuple[int, int, int] | None = None,
    *,
    caption: str = "",
    **options: Any,
) -> CrystalView:
    """Return a viewer for one crystal or many; several get a player that zooms on each.

    Args:
        crystals: a batch, a pymatgen structure, or several structures.
        labels: one line per crystal.
        supercell: cells to draw along a, b and c, for example `(2, 2, 2)` or `2`.
        caption: text under the viewer.
        options: see `CrystalView`; `refit=False` draws all crystals in one scale.

    Raises:
        DataError: no crystal, a coordinate that is not a number, or too many atoms.
        ShapeError: labels do not fit, or a supercell is not three whole numbers.

    Example:
        >>> from pymatgen.core import Lattice, Structure
        >>> iron = Structure(Lattice.cubic(2.87), ["Fe", "Fe"], [[0, 0, 0], [0.5] * 3])
        >>> view(iron, supercell=2).alt[:28]
        'Crystal structure of Fe: cub'
    """
    rows, total = _rows(crystals)
    if total > len(rows):
        if labels is not None:
            labels = labels[: len(rows)]
        caption = f"{caption} First {len(rows)} of {total} crystals.".strip()
    made = CrystalView(
        [one * _repeats(supercell) for one in rows] if supercell else rows,
        labels,
        caption=caption,
        **{"refit": len(rows) > 1, **options},
    )
    if supercell and len(rows) == 1:
        cells = " x ".join(map(str, _repeats(supercell)))
        made.alt = f"{scene.describe(rows[0])} Drawn as {cells} cells."
        made.data["frames"][0]["alt"] = made.alt
    return made


def film(
    states: "Iterable[State]",
    *,
    every: int = 1,
    which: int = 0,
    **options: Any,
) -> CrystalView:
    """Return a player that shows one crystal while a generator makes it.

    No periodic copies are drawn, since atoms cross the boundary.

    Args:
        states: what `model.trajectory(...)` yields; an empty cell is not drawn.
        every: keep every so many states; the last is always kept.
        which: which crystal of the batch.
        options: see `CrystalView`.
    """
    if every < 1:
        raise DataError(f"every must be 1 or more; got {every}.")
    kept: list[tuple[float, Structure]] = []
    last: State | None = None
    for n, last in enumerate(states):
        if n % every == 0 and len(last.crystals[which]):
            kept.append((float(last.t), last.crystals[which]))
            last = None
    if last is not None:
        kept.append((float(last.t), last.crystals[which]))
    if not kept:
        raise DataError(
            "nothing to show: the trajectory gave no states. Ask for steps."
        )
    labels = [f"t = {t:.2f}  {one.composition.reduced_formula}" for t, one in kept]
    settings = {"slider": "generative time", "interval": 120, **options}
    return CrystalView([one for _, one in kept], labels, images="none", **settings)


# ---- under a kernel -------------------------------------------------------------------


class LiveViewer:
    """One nglview widget that redraws frames of a scene."""

    def __init__(self, data: dict[str, Any]) -> None:
        import nglview

        self.data = data
        self.started = False
        self.refit = bool(data["options"].get("refit"))
        self.widest = max(scene.reach(frame) for frame in data["frames"])
        self.widget = nglview.NGLWidget(
            height=f"{data['options'].get('height', 340)}px"
        )
        self.widget.camera = "orthographic"
        self.draw(data["frames"][int(data["options"].get("start", 0))])

    def draw(self, frame: dict[str, Any]) -> None:
        """Show a frame: add the new shape first, then drop the old, so nothing flickers."""
        call = self.widget._remote_call
        extent = scene.reach(frame) if self.refit else self.widest
        shapes = scene.shapes(frame, self.data["species"], extent=extent)
        # A redraw is sent once; only the first picture is kept for a page that reloads.
        call(
            "addShape",
            target="Widget",
            args=["crystal", shapes],
            fire_once=self.started,
        )
        if self.started:
            call("removeComponent", target="Stage", args=[0], fire_once=True)
            if self.refit:
                call("autoView", target="Stage", args=[0], fire_once=True)
            return
        look = {"clipDist": 0, "fogNear": 100, "fogFar": 100}
        call("setParameters", target="Stage", args=[look])
        call("autoView", target="Stage", args=[0])
        call("rotate", target="viewerControls", args=[picture.camera()])
        self.started = True

    def below(self, frame: dict[str, Any]) -> str:
        """Return what stands under the widget; a drawing until nglview has loaded."""
        species, drawing = self.data["species"], ""
        if not self.widget.loaded:
            drawing = picture.draw(frame, species, frame["alt"])
        shown = {"species": species, "beside": frame.get("beside", "")}
        return render("legend", inline=True, drawing=drawing, still=STILL, **shown)

    def box(self) -> Any:
        """Return the widget with its legend, and a player for several frames."""
        import ipywidgets

        frames, options = self.data["frames"], self.data["options"]
        start = int(options.get("start", 0))
        name = options.get("slider", "crystal")
        slider = ipywidgets.IntSlider(
            value=start, max=len(frames) - 1, description=name, readout=False
        )
        below = ipywidgets.HTML(self.below(frames[start]))
        label = ipywidgets.Label(frames[start]["label"])
        save = ipywidgets.Button(
            icon="download", tooltip="save as a picture (PNG)", layout={"width": "3rem"}
        )
        save.on_click(lambda _: self.widget.download_image("crystal.png"))

        def write(_: Any = None) -> None:
            label.value = frames[slider.value]["label"]
            below.value = self.below(frames[slider.value])

        def move(_: Any) -> None:
            self.draw(frames[slider.value])
            write()

        self.widget.observe(write, "loaded")
        slider.observe(move, "value")
        if len(frames) == 1:
            return ipywidgets.VBox([self.widget, below, save])
        play = ipywidgets.Play(
            value=start, max=slider.max, interval=options.get("interval", 150)
        )
        ipywidgets.jslink((play, "value"), (slider, "value"))
        row = ipywidgets.HBox([play, slider, label, save])
        return ipywidgets.VBox([self.widget, row, below])


# ---- small things ---------------------------------------------------------------------


def _rows(crystals: Any) -> tuple[list["Structure"], int]:
    from pymatgen.core import Structure

    if isinstance(crystals, Structure):
        return [crystals], 1
    if isinstance(crystals, Crystals):
        return list(crystals[:MOST_FRAMES]), len(crystals)
    rows = list(crystals)
    for one in rows:
        if not isinstance(one, Structure):
            raise DataError(
                f"view shows Crystals or pymatgen structures; got {type(one).__name__}. "
                "Convert with Crystals.from_structures."
            )
    return rows[:MOST_FRAMES], len(rows)


def _repeats(supercell: int | tuple[int, int, int]) -> tuple[int, int, int]:
    given = (supercell,) * 3 if isinstance(supercell, int) else tuple(supercell)
    if len(given) != 3 or any(not isinstance(n, int) or n < 1 for n in given):
        raise ShapeError(
            f"supercell must be three whole numbers from 1; got {supercell!r}. "
            "Write (2, 2, 2), or 2 for all three."
        )
    return given[0], given[1], given[2]
