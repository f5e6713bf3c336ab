"""The commands: each does its step, keeps a record, and says errors in one line."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import nbformat
import pytest
import torch
from pymatgen.core import Lattice, Structure
from typer.testing import CliRunner

from matdesign import shell
from matdesign.cli import app
from matdesign.crystals.batch import Crystals
from matdesign.crystals.io.files import read, write
from matdesign.errors import DataError
from matdesign.generators.contract import Generator
from matdesign.generators.diffusion import Diffusion
from matdesign.loop.campaign import Campaign
from matdesign.loop.campaign_file import read_campaign
from matdesign.loop.function_oracle import FunctionOracle
from matdesign.loop.latent_search import LatentSearch
from matdesign.loop.learning import RewardWeighted
from matdesign.loop.results import Column, Results


def call(*words: object, code: int = 0) -> str:
    """Run a command in this process and return all that it printed."""
    outcome = CliRunner().invoke(app, [str(w) for w in words])
    assert outcome.exit_code == code, outcome.output
    return outcome.output


@pytest.fixture(scope="module")
def salts() -> Crystals:
    made = [
        Structure(Lattice.cubic(edge), pair, [[0, 0, 0], [0.5, 0.5, 0.5]])
        for pair, edge in (
            (["Cs", "Cl"], 4.1),
            (["Cs", "Br"], 4.3),
            (["Cs", "O"], 3.6),
            (["Tl", "I"], 4.2),
        )
    ]
    return Crystals.from_structures(made)


@pytest.fixture
def file(salts: Crystals, tmp_path: Path) -> Path:
    path = tmp_path / "salts.parquet"
    write(salts, path)
    return path


@pytest.fixture(scope="module")
def model(salts: Crystals, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch_model = Diffusion.for_data(salts, width=16, layers=1, heads=2, steps=3)
    return Path(torch_model.save(tmp_path_factory.mktemp("models") / "tiny"))


class Toy:
    """An oracle that fails the first crystal and calls the others stable."""

    def __init__(self, weights: str = "0.3.0", **settings: object) -> None:
        self.name = f"toy {weights} {settings['workers']}"

    def evaluate(self, crystals: Crystals) -> Results:
        above = torch.full((len(crystals),), 0.01)
        above[0] = torch.nan
        reason = ("exploded", *[""] * (len(crystals) - 1))
        column = {"energy_above_hull": Column(above, "eV/atom")}
        return Results(crystals, column, reason, oracle=self.name)


def test_help_names_every_step() -> None:
    text = call("--help")
    steps = ("sample", "check", "relax", "report", "campaign", "design", "models")
    for name in (*steps, "datasets"):
        assert name in text
        assert call(name, "--help")


def test_starting_the_command_is_cheap() -> None:
    """`--help` loads none of the packages that only some steps need."""
    code = (
        "import sys, matdesign.cli;"
        "print(sorted({'pandas', 'chgnet', 'lightning', 'ase', 'nglview', 'matplotlib'}"
        "& set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.stdout.strip() == "[]", shown.stderr


def test_sample_writes_crystals_and_their_record(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "made.parquet"
    text = call("sample", "--model", model, "-n", 5, "--seed", 3, "--out", out)
    assert "seed 3" in text and f"wrote {out} (5 crystals)" in text
    made = shell.read([out])
    assert len(made) == 5 and made.info["seed"] == 3 and made.info["steps"] == 3
    again = tmp_path / "again.parquet"
    call("sample", "--model", model, "-n", 5, "--seed", 3, "--out", again)
    assert torch.equal(read(again).frac, read(out).frac)


def test_sample_with_a_wish_is_guided(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "made.parquet"
    words = ["sample", "--model", model, "-n", 3, "--seed", 0, "--out", out]
    text = call(*words, "-w", "without=Tl", "-w", "min-distance=0.01")
    assert "drawn met every constraint" in text and "without Tl" in text
    assert not any("Tl" in formula for formula in read(out).formulas)
    assert shell.read([out]).info["guide"]["asked"] == 3


def test_check_reports_and_keeps_those_that_meet_all(
    file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "met.cif"
    text = call("check", file, "-w", "neutral", "-w", "without=Tl,Pb", "--out", out)
    assert "2 of 4 crystals meet every constraint" in text
    assert "without Pb and Tl" in text
    assert read(out).formulas == ("CsCl", "CsBr")


def test_check_several_files(file: Path, salts: Crystals, tmp_path: Path) -> None:
    cif = tmp_path / "one.cif"
    write(salts[:1], cif)
    assert "4 of 5 crystals" in call("check", file, cif, "--want", "neutral")


def test_relax_then_report(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matdesign.PotentialOracle", Toy)
    met, relaxed = tmp_path / "met.parquet", tmp_path / "relaxed.parquet"
    call("check", file, "-w", "neutral", "--out", met)
    text = call("relax", met, "--out", relaxed, "--workers", 3)
    assert "2 of 3 crystals evaluated by toy 0.3.0 3" in text and "exploded" in text
    kept = shell.read_results(relaxed)
    assert kept.ok.tolist() == [False, True, True]
    assert kept.reason == ("exploded", "", "") and kept.oracle == "toy 0.3.0 3"
    assert kept.energy_above_hull.isnan().tolist() == [True, False, False]
    page = tmp_path / "out" / "report.html"
    text = call(
        *("report", relaxed, "--out", page, "--proposed", file, "-w", "neutral"),
        *("--title", "Salts"),
    )
    assert f"wrote {page} and 4 CIF files" in text
    html = page.read_text()
    assert "<h1>Salts</h1>" in html and "exploded" in html
    assert len(list((tmp_path / "out" / "crystals").glob("*.cif"))) == 4


class Size(FunctionOracle):
    """An oracle that a store can make again."""

    def __init__(self) -> None:
        super().__init__(lambda one: one.volume / len(one), VOLUME, name="size 1")

    def to_dict(self) -> dict[str, str]:
        return {}

    @classmethod
    def from_dict(cls, words: dict[str, str]) -> "Size":
        return cls(**words)


VOLUME = {"volume_per_atom": "angstrom^3"}


def test_a_campaign_is_shown_and_resumed(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matdesign.Size", Size, raising=False)
    oracle = Size()
    where, settings = tmp_path / "c.db", {"objective": "volume_per_atom", "batch": 2}
    loop = Campaign(Generator.load(model), None, oracle, where, budget=0, **settings)
    assert "oracle calls 0 of 0" in call(
        "campaign", "status", where
    )  # while it is open
    assert "another process" in call("campaign", "resume", where, code=2)
    loop.close()
    text = call("campaign", "resume", where, "--budget", 3)
    assert "estimate: 3 oracle calls" in text and "GiB" in text
    assert "iteration 0:" in text and "oracle calls 3 of 3" in text
    assert "volume_per_atom" in call("campaign", "status", where)
    page = tmp_path / "page.html"
    assert f"wrote {page}" in call("campaign", "report", where, "--out", page)
    assert "volume_per_atom so far" in page.read_text()
    words = ("campaign", "report", where, "--out", tmp_path / "none.html", "--judge")
    assert "no judge 'luck'" in call(*words, "luck", code=2)
    assert "does not compute the objective" in call(*words, "judge-band-gap", code=2)
    assert not (tmp_path / "none.html").exists()
    call("campaign", "report", where, "--out", page, "--hit", 999)
    assert "<b>3</b> different hits" in page.read_text()
    assert "does not exist" in call("campaign", "status", tmp_path / "none.db", code=2)


TOML = """
pool = "{pool}"
want = ["without=Tl"]
oracle = "experiment"
columns = {{capacity = "mAh/g"}}
objective = "-capacity"
select = "expected_improvement"
budget = 3
batch = 2
store = "{store}"
"""


def test_a_campaign_by_hand(file: Path, tmp_path: Path) -> None:
    """From a TOML file over a table that is filled in, twice, to the end."""
    pool, toml, store = tmp_path / "pool", tmp_path / "cell.toml", tmp_path / "cell.db"
    write(read(file), pool)
    toml.write_text(TOML.format(pool=pool, store=store))
    text = call("campaign", "run", toml)
    assert "lowest -capacity by cell" in text and "next: matdesign campaign ask" in text
    words = call("campaign", "run", toml, code=2).replace("\n", " ")
    assert "holds a campaign already" in words and "matdesign campaign resume" in words
    words = call("campaign", "resume", toml, code=2).replace("\n", " ")
    assert "matdesign campaign run" in words
    out = tmp_path / "asked"
    call("campaign", "ask", store, "--out", out)
    table = out.with_suffix(".csv")
    head, first, second = table.read_text().splitlines()
    assert (
        head == "id,formula,parent,capacity (mAh/g),reason"
        and "Tl" not in first + second
    )
    assert {f"{one.split(',')[0]}.cif" for one in (first, second)} == {
        one.name for one in out.glob("*.cif")
    }
    assert "told 0 results, 0 kept as told before" in call(
        "campaign", "tell", store, table
    )
    two = [
        head.replace("reason", "price (euro),reason"),
        f"{first}3,",
        f"{second[:-1]}",
    ]
    table.write_text("\n".join(two))  # one is known in part, one row is cut
    assert "0 kept as told before, 2 incomplete" in call(
        "campaign", "tell", store, table
    )
    table.write_text("\n".join(two).replace(",", ";"))
    assert "with commas" in call("campaign", "tell", store, table, code=2)
    first = f"{first.removesuffix(',')[:-1]},120.55,"
    table.write_text("\n".join([head, first, second]))
    words = call("campaign", "ask", store, "--out", out, code=2)
    assert "is not told yet" in words and "120.55" in table.read_text()
    assert "told 1 results, 0 kept as told before" in call(
        "campaign", "tell", store, table
    )
    second = second.removesuffix(",,") + ",,cracked in the furnace"
    table.write_text("\n".join([head, first, second]))
    assert "told 1 results, 1 kept as told before" in call(
        "campaign", "tell", store, table
    )
    text = call("campaign", "status", store)
    with closing(Campaign.view(store)) as loop:
        assert loop.table()["capacity"][0] == 120.55  # not rounded
        assert loop.select.start == 2  # its first batch
    assert "120.5" in text and "cracked" in text and "oracle calls 2 of 3" in text
    call("campaign", "ask", store, "-n", 1, "--out", tmp_path / "more.xyz")
    assert len(read(tmp_path / "more.xyz")) == 1
    table.write_text(f"{head}\n9-9,CsCl,,3,")
    told = ("campaign", "tell", store, table)
    assert "not asked about: [('9-9', 'CsCl')]" in call(*told, code=2)
    table.write_text(f"{head}\n0-0,KBr,,3,")  # told already, as another crystal
    assert "not asked about: [('0-0', 'KBr')]" in call(*told, code=2)
    other = (tmp_path / "more.csv").read_text().strip().split("\n")[1].split(",")[0]
    table.write_text(f"{head}\n{other},KBr,,3,")  # another campaign's crystal
    assert f"not asked about: [('{other}', 'KBr')]" in call(*told, code=2)
    table.write_text(f"{(tmp_path / 'more.csv').read_text().strip()[:-1]}many,")
    assert "not a number" in call("campaign", "tell", store, table, code=2)
    (pool / "a-new-one.cif").write_text(next(pool.glob("*.cif")).read_text())
    assert "other crystals than it did" in call("campaign", "resume", store, code=2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('generators = "x"', "cannot say generators = 'x'. Known are generator: name"),
        ("budget = 'many'", "cannot say budget = 'many'"),
        ("budget = 'many'", "It is the oracle calls in all."),
        ("budget =", "cannot be read as TOML"),
        ("budget =", "goes on with `matdesign campaign resume STORE`"),
        ("budget = 3", "needs either a generator or a pool; got budget."),
        ("pool = '.'\nguide = true", "needs a generator where there is a guide"),
        (
            "pool = '.'\noracle = 'experiment'\ncolumns = {{gap = 3}}",
            "needs units of columns as text",
        ),
        ('pool = "p"\noracle = "experiment"', "needs columns, for an experiment only"),
        ('pool = "p"\noracle = "dft"', 'needs oracle = "potential" or "experiment"'),
        ('pool = "p"\ngate = 0.1', "needs select where there is a gate"),
        ('generator = "no-such-model"', "no-such-model"),
        ('generator = "{model}"\nselect = "luck"', "no acquisition 'luck'"),
        ('generator = "{model}"\nwant = ["pretty"]', "unknown constraint 'pretty'"),
        ('generator = "{model}"\nbatch = 0', "1 or more; got"),
        ('generator = "{model}"\nobjective = "gap"', "does not compute the objective"),
    ],
)
def test_a_file_that_makes_no_campaign_says_why(
    text: str, says: str, model: Path, tmp_path: Path
) -> None:
    toml = tmp_path / "c.toml"
    toml.write_text(text.format(model=model))
    assert says in call("campaign", "run", toml, code=2).replace("\n", " ")
    assert not (tmp_path / "c.db").exists()


def test_a_file_says_guide_learner_and_seed(model: Path, tmp_path: Path) -> None:
    toml = tmp_path / "c.toml"
    words = f'generator = "{model}"\nwant = ["without=Tl", "density=1:9"]\nguide = true'
    toml.write_text(f"{words}\nlearn = 2\nseed = 7\nbudget = 0")
    loop = read_campaign(toml)
    made = Campaign.view(tmp_path / "c.db")
    assert repr(made) == repr(loop) and "seed 7" in repr(loop) and loop.learn_every == 2
    loop.close()
    again = Campaign.resume(tmp_path / "c.db")  # the guide is made again, too
    assert repr(again) == repr(loop) and repr(again.guide) == repr(loop.guide)
    assert again.guide.method is None and isinstance(again.learn, RewardWeighted)
    with pytest.raises(DataError, match="only looked at"):
        made.store.finish(0, {})
    again.close()


def test_a_file_learns_in_the_way_that_its_model_takes(tmp_path: Path) -> None:
    toml = tmp_path / "c.toml"
    toml.write_text('generator = "vae-perovskites"\nlearn = 2\nbudget = 0')
    with closing(read_campaign(toml)) as loop:
        assert isinstance(loop.learn, LatentSearch)
    toml.write_text(
        'generator = "coupling-flow-perovskites"\nlearn = 2\nstore = "x.db"'
    )
    with pytest.raises(
        DataError, match="no learner can teach a CouplingFlow: RewardWeighted takes"
    ):
        read_campaign(toml)


def test_evaluate_prints_the_judgement(file: Path) -> None:
    text = call("evaluate", file, "--reference", file)
    assert "structural validity" in text and "novelty" in text


PARTIAL = """data_x
_cell_length_a 4
_cell_length_b 4
_cell_length_c 4
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_label
_atom_site_occupancy
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Li1 0.5 0 0 0
"""


@pytest.fixture
def folder(salts: Crystals, tmp_path: Path) -> Path:
    """Four good files, a bad one, and one that is no crystal's."""
    made = tmp_path / "made"
    write(salts.replace(ids=("a", "b", "c", "d")), made)
    (made / "half.cif").write_text(PARTIAL)
    (made / "notes.txt").write_text("nothing")
    return made


def test_evaluate_counts_unreadable_files_as_failed(folder: Path) -> None:
    text = call("evaluate", folder, code=1)
    assert "5 crystals" in text and "structural validity 4/5" in text
    assert "half.cif has partial occupancy" in text
    assert "files that could not be read: 1" in text
    files = sorted(folder.glob("*.cif"))
    assert "structural validity 4/5" in call("evaluate", *files, code=1)
    (folder / "half.cif").unlink()
    assert "structural validity 4/4" in call("evaluate", folder)


def test_check_and_relax_go_on_where_a_file_cannot_be_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("matdesign.PotentialOracle", Toy)
    out = tmp_path / "met.cif"
    words = ("-w", "neutral", "--out", out, "--symmetrize")
    text = call("check", folder, *words, code=1)
    assert "3 of 4 crystals meet" in text and "half.cif" in text
    assert out.read_text().count("Pm-3m") == 3
    assert read(out).ids == ("a", "b", "d")
    text = call("relax", folder, "--out", tmp_path / "relaxed.parquet", code=1)
    assert "3 of 4 crystals evaluated" in text and "half.cif" in text
    assert len(shell.read_results(tmp_path / "relaxed.parquet")) == 4
    out = tmp_path / "relaxed.cif"
    call("relax", folder, "--out", out, "--symmetrize", code=1)
    assert out.read_text().count("Pm-3m") == 4


def test_nothing_readable_is_an_error(folder: Path) -> None:
    text = call("evaluate", folder / "half.cif", code=2)
    assert "partial occupancy" in text
    for path in folder.glob("?.cif"):
        path.write_text("x")
    assert "none of 5 files can be read" in call("evaluate", folder, code=2)


def test_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "prototypes" in call("datasets")
    assert call("models").strip()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["check", "missing.cif", "-w", "neutral"], "missing.cif"),
        (["check", "{file}"], "needs a constraint"),
        (["check", "{file}", "-w", "pretty"], "unknown constraint 'pretty'"),
        (["check", "{file}", "-w", "only=Xx"], "Xx"),
        (["check", "{file}", "-w", "density=5:2"], "swap the ends"),
        (["check", "{file}", "-w", "density=5"], "LOW:HIGH"),
        (["check", "{file}", "-w", "density=a:b"], "not a number"),
        (
            ["check", "{file}", "-w", "only=Fe", "--out", "none.cif"],
            "no crystal is left",
        ),
        (
            ["sample", "--model", "{model}", "-w", "only=O", "-w", "require=Ti"],
            "Ti is req",
        ),
        (["sample", "--model", "no-such-model"], "no-such-model"),
        (["evaluate", "{file}", "--reference", "no-such-set"], "no-such-set"),
        (["design", "missing.ipynb"], "missing.ipynb"),
        (["report", "broken.cif"], "broken.cif"),
    ],
)
def test_errors_are_one_line_and_exit_code_two(
    words: list[str],
    says: str,
    file: Path,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.cif").write_text("data_x\n_cell_length_a 3\n")
    given = [word.format(file=file, model=model) for word in words]
    outcome = CliRunner().invoke(app, given)
    assert outcome.exit_code == 2
    assert outcome.stderr.startswith("matdesign: ") and says in outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert isinstance(outcome.exception, SystemExit)


def test_a_damaged_record_is_named(file: Path) -> None:
    assert shell.read_results(file) is None
    shell.record_path(file).write_text('{"results": {"oracle": "x"}}')
    with pytest.raises(DataError, match=r"salts\.record\.json"):
        shell.read_results(file)
    shell.record_path(file).write_text("{")
    with pytest.raises(DataError, match=r"salts\.record\.json"):
        shell.read([file])


def notebook(folder: Path, *sources: str) -> Path:
    book = nbformat.v4.new_notebook()
    book.cells.append(nbformat.v4.new_markdown_cell("# Title\n\n## Step one"))
    book.cells += [nbformat.v4.new_code_cell(text) for text in sources]
    path = folder / "nb" / "small.ipynb"
    path.parent.mkdir()
    nbformat.write(book, path)
    return path


def test_design_runs_a_notebook_in_its_folder(tmp_path: Path) -> None:
    import os

    code = "import os; open('made.txt', 'w').write(os.environ['MATDESIGN_STATIC'])"
    path = notebook(tmp_path, code, "print(6 * 7)")
    before = path.read_bytes()
    text = call("design", path, "--out", tmp_path / "done.ipynb")
    assert "Step one" in text and "done;" in text
    assert (path.parent / "made.txt").read_text() == "1"
    done = json.loads((tmp_path / "done.ipynb").read_text())
    assert done["cells"][2]["outputs"][0]["text"] == ["42\n"]
    assert path.read_bytes() == before, "the notebook itself stays without outputs"
    assert "MATDESIGN_STATIC" not in os.environ


def test_design_alone_runs_the_quickstart_of_the_checkout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from matdesign.teach import workbook

    seen = []
    monkeypatch.setattr(workbook, "run", lambda *which, say: seen.append(which))
    call("design")
    root = Path(__file__).resolve().parents[1]
    assert seen == [
        (root / "notebooks/quickstart.ipynb", root / "build/quickstart.ipynb")
    ]


def test_a_failing_cell_stops_design_with_its_error(tmp_path: Path) -> None:
    path = notebook(tmp_path, "1 / 0", "print('never')")
    outcome = CliRunner().invoke(
        app, ["design", str(path), "--out", f"{tmp_path}/d.ipynb"]
    )
    assert outcome.exit_code == 2
    assert "small.ipynb stopped: ZeroDivisionError" in outcome.stderr
    done = json.loads((tmp_path / "d.ipynb").read_text())
    assert done["cells"][1]["outputs"][0]["ename"] == "ZeroDivisionError"
    assert done["cells"][2]["outputs"] == []


def test_design_needs_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matdesign.teach import workbook

    monkeypatch.setattr(workbook, "__file__", str(tmp_path / "lib" / "workbook.py"))
    outcome = CliRunner().invoke(app, ["design"])
    assert outcome.exit_code == 2 and "in a checkout" in outcome.stderr
