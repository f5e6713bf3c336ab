"""Files: round trips in every format; refusals name the file and the remedy."""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter
from pymatgen.io.vasp import Poscar

from matdesign.constraints.composition import Composition
from matdesign.crystals.batch import Crystals
from matdesign.crystals.elements import atomic_number, is_pattern, parse_formula
from matdesign.crystals.io.files import (
    file_format,
    from_ase,
    read,
    read_parquet,
    to_ase,
    write,
    write_parquet,
)
from matdesign.crystals.io.poscar import parse_poscar
from matdesign.crystals.symmetry.find import spacegroup
from matdesign.errors import DataError

SALT = Structure.from_spacegroup(
    "Fm-3m", Lattice.cubic(5.64), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]
)
RUTILE = Structure.from_spacegroup(
    "P4_2/mnm",
    Lattice.tetragonal(4.594, 2.959),
    ["Ti", "O"],
    [[0, 0, 0], [0.3053, 0.3053, 0]],
)
TRICLINIC = Structure(
    Lattice.from_parameters(4.1, 5.2, 6.3, 81, 94, 103),
    ["Li", "O", "H", "O"],
    [[0.1, 0.2, 0.3], [0.9, 0.35, 0.61], [0.123, 0.77, 0.5], [0.4, 0.4, 0.02]],
)


def batch() -> Crystals:
    return Crystals.from_structures(
        [SALT, RUTILE, TRICLINIC],
        properties={"band_gap": torch.tensor([5.0, math.nan, 0.25])},
        units={"band_gap": "eV"},
        labels={
            "prototype": ("rocksalt", "rutile", ""),
            "split": ("train", "val", "test"),
        },
        ids=["salt", "rutile", "odd one"],
    )


def same(one: Crystals, two: Crystals, tolerance: float = 1e-5) -> None:
    assert torch.equal(one.species, two.species)
    assert torch.allclose(one.lattice, two.lattice, atol=tolerance)
    apart = one.frac - two.frac
    assert (apart - apart.round()).abs().max() < tolerance


# ---- round trips ---------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["cif", "extxyz", "parquet"])
def test_round_trip_of_several_in_one_file(tmp_path: Path, ending: str) -> None:
    crystals = batch()
    [path] = write(crystals, tmp_path / f"made.{ending}")
    back = read(path)
    # CIF stores lengths and angles: the orientation is the reader's
    if ending == "cif":
        assert [s.lattice.abc for s in back] == [
            pytest.approx(s.lattice.abc, abs=1e-4) for s in crystals
        ]
        back = back.replace(lattice=crystals.lattice)
        assert back.ids == ("salt", "rutile", "odd_one")
    same(back, crystals)
    assert back.info == {"source": [str(path)]}


def test_parquet_keeps_every_column(tmp_path: Path) -> None:
    crystals = batch()
    back = read_parquet(write_parquet(crystals, tmp_path / "made.parquet"))
    assert back.ids == crystals.ids and back.labels == crystals.labels
    assert back.units == {"band_gap": "eV"}
    want = crystals.properties["band_gap"]
    assert torch.equal(back.properties["band_gap"].isnan(), want.isnan())
    assert back.properties["band_gap"][2].item() == 0.25
    assert torch.equal(back.frac, crystals.frac)
    assert torch.equal(back.lattice, crystals.lattice)
    part = read_parquet(tmp_path / "made.parquet", rows=("split", "val"))
    assert part.ids == ("rutile",) and part.species.shape == (1, 6)


def test_poscar_begins_with_the_id_where_there_is_one(tmp_path: Path) -> None:
    one = batch()[[0]]
    for ids, comment in ((("a\n b",), "a b NaCl"), ((), "NaCl")):
        [file] = write(one.replace(ids=ids), tmp_path / "x.vasp")
        assert file.read_text().splitlines()[0] == comment


def test_folder_gets_one_file_per_crystal(tmp_path: Path) -> None:
    crystals = batch().replace(ids=("a/../b", "a/../b", "x"))
    for kind, ending in (("cif", ".cif"), ("poscar", ".vasp"), ("xyz", ".xyz")):
        made = write(crystals, tmp_path / kind, kind)
        assert [p.name for p in made] == [
            f"a_.._b{ending}",
            f"a_.._b-2{ending}",
            f"x{ending}",
        ]
        assert all(p.parent == tmp_path / kind for p in made)
        back = read(str(tmp_path / kind / f"*{ending}"))
        assert sorted(back.formulas) == sorted(crystals.formulas)
    unnamed = write(batch().replace(ids=()), tmp_path / "unnamed")
    assert [p.name for p in unnamed] == [
        "0000-NaCl.cif",
        "0001-TiO2.cif",
        "0002-LiHO2.cif",
    ]


def test_poscar_agrees_with_pymatgen_both_ways(tmp_path: Path) -> None:
    [ours] = write(TRICLINIC, tmp_path / "POSCAR")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = Poscar.from_file(ours).structure
        Poscar(TRICLINIC).write_file(tmp_path / "CONTCAR")
    matcher = StructureMatcher(scale=False, ltol=1e-4, stol=1e-4, angle_tol=1e-2)
    assert matcher.fit(theirs, TRICLINIC)
    assert matcher.fit(read(ours)[0], TRICLINIC)
    assert matcher.fit(read(tmp_path / "CONTCAR")[0], TRICLINIC)


@pytest.mark.parametrize(
    ("scale", "unit"), [("2.0", 0.5), ("-125.0", 0.2), ("2 2 2", 0.5), ("1.0", 1.0)]
)
def test_poscar_scale_and_cartesian(tmp_path: Path, scale: str, unit: float) -> None:
    edge = 5 * unit
    path = tmp_path / "POSCAR_scaled"
    rows = f"{edge} 0 0\n0 {edge} 0\n0 0 {edge}"
    sites = f"0 0 0 T T F\n{edge / 2} {edge / 4} 0 F F F"
    path.write_text(f"x\n{scale}\n{rows}\nCs Cl\n1 1\nSelective\nCartesian\n{sites}\n")
    one = read(path)[0]
    assert one.lattice.abc == pytest.approx((5, 5, 5), abs=1e-4)
    assert one.frac_coords[1] == pytest.approx([0.5, 0.25, 0], abs=1e-5)


def test_symmetric_cif_is_expanded(tmp_path: Path) -> None:
    path = tmp_path / "symmetric.cif"
    path.write_text(str(CifWriter(RUTILE, symprec=0.01)))
    assert "P4_2/mnm" in path.read_text()
    assert StructureMatcher().fit(read(path)[0], RUTILE) and len(read(path)[0]) == 6


def test_written_cif_is_p1_unless_symmetrized(tmp_path: Path) -> None:
    [plain] = write(SALT, tmp_path / "plain.cif")
    [symmetric] = write(SALT, tmp_path / "symmetric.cif", symmetrize=True)
    assert "'P 1'" in plain.read_text() and "Fm-3m" in symmetric.read_text()
    assert plain.read_text().count("Na+") == 0
    assert len(read(plain)[0]) == len(read(symmetric)[0]) == 8
    assert StructureMatcher().fit(read(symmetric)[0], SALT)


def test_p1_cif_keeps_order_and_stacked_atoms(tmp_path: Path) -> None:
    """pymatgen merges equal sites; a generated crystal must come back as it is."""
    stacked = Structure(
        Lattice.cubic(4), ["O", "Ti", "O"], [[0] * 3, [0.5] * 3, [0] * 3]
    )
    back = read(write(stacked, tmp_path / "stacked.cif")[0])
    assert back.species[0].tolist() == [8, 22, 8]


def test_uncertainties_isotopes_and_charges_are_read(tmp_path: Path) -> None:
    path = tmp_path / "ice.cif"
    path.write_text(
        cif(["D1 D 0.1(2) 0.2 0.3", "O1 O2- 0.5 0.50(1) 0.5"], length="4.0(1)")
    )
    one = read(path)[0]
    assert [s.specie.symbol for s in one] == ["H", "O"]
    assert one.lattice.a == pytest.approx(4.0) and one[0].frac_coords[
        0
    ] == pytest.approx(0.1)


def test_blocks_without_atoms_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "two.cif"
    sites = ["Fe1 Fe 0 0 0"]
    text = (
        "data_global\n_journal_year 2020\n" + cif(sites) + cif(sites, header="second")
    )
    path.write_text(text)
    assert read(path).ids == ("x", "second")


def test_several_paths_and_formats_in_order(tmp_path: Path) -> None:
    a = write(SALT, tmp_path / "a.cif")[0]
    b = write(batch(), tmp_path / "b.parquet")[0]
    c = write(RUTILE, tmp_path / "c.vasp")[0]
    assert read([a, b, str(c)]).formulas == ("NaCl", "NaCl", "TiO2", "LiHO2", "TiO2")


def test_ase_round_trip_keeps_properties() -> None:
    crystals = batch()
    atoms = to_ase(crystals)
    assert atoms[0].info["prototype"] == "rocksalt" and atoms[0].pbc.all()
    assert np.allclose(atoms[2].get_volume(), TRICLINIC.volume, rtol=1e-6)
    same(from_ase(atoms), crystals)


def test_extended_xyz_keeps_ids_labels_properties_and_units(tmp_path: Path) -> None:
    crystals = batch().replace(
        ids=("0012", "mp-2", 'say "x" \\ y'),
        properties={"energy": torch.tensor([-1.5, math.nan, 2.0]), "n": torch.ones(3)},
        units={"energy": "eV"},
        labels={"prototype": ("225", "rutile", ""), "flag": ("T", "F", "a b")},
    )
    back = read(write(crystals, tmp_path / "made.extxyz")[0])
    assert back.ids == crystals.ids and back.labels == crystals.labels
    assert back.units == {"energy": "eV"} and set(back.properties) == {"energy", "n"}
    assert back.properties["energy"].nan_to_num(9).tolist() == [-1.5, 9, 2]
    same(back, crystals)


def test_numbers_and_words_of_ase_atoms_are_kept() -> None:
    atoms = to_ase(batch())[:2]
    atoms[0].info = {"energy": -3.0, "source": "a", "id": 7}
    atoms[1].info = {"gap": 1.0}
    back = from_ase(atoms)
    assert back.labels == {"source": ("a", "")} and back.ids == ("7", "atoms 1")
    assert back.properties["energy"][0] == -3 and back.properties["energy"][1].isnan()
    assert back.properties["gap"].nan_to_num(9).tolist() == [9, 1]


def test_blank_lines_between_frames_end_nothing(tmp_path: Path) -> None:
    path = tmp_path / "three.extxyz"
    path.write_text("\n" + XYZ + "\n\n" + XYZ.replace("Fe", "Cu") + "\n" + XYZ)
    assert read(path).formulas == ("Fe", "Cu", "Fe")


@pytest.mark.parametrize("isotope", ["D", "T"])
def test_hydrogen_of_another_mass_is_hydrogen_everywhere(
    tmp_path: Path, isotope: str
) -> None:
    (tmp_path / "a.vasp").write_text(POSCAR.replace("Fe", isotope))
    (tmp_path / "b.xyz").write_text(XYZ.replace("Fe", isotope))
    (tmp_path / "c.cif").write_text(cif([f"{isotope}1 {isotope} 0 0 0"]))
    for name in ("a.vasp", "b.xyz", "c.cif"):
        assert set(read(tmp_path / name).species.flatten().tolist()) == {1}
    assert atomic_number(isotope) == 1
    assert parse_formula(f"{isotope}2O") == parse_formula("H2O")
    assert not is_pattern(f"{isotope}2O") and is_pattern("DX2")
    assert Composition(f"{isotope}HO").amounts == Composition("H2O").amounts


@pytest.mark.parametrize("kind", ["cif", "vasp", "extxyz", "parquet"])
def test_a_left_handed_cell_keeps_its_hand(tmp_path: Path, kind: str) -> None:
    """Quartz P3_121 with a and b exchanged must not come back as P3_221."""
    quartz = Structure.from_spacegroup(
        "P3_121",
        Lattice.hexagonal(4.916, 5.405),
        ["Si", "O"],
        [[0.4697, 0, 1 / 3], [0.4135, 0.2669, 0.1191 + 1 / 3]],
    )
    order = [1, 0, 2]
    left = Structure(
        Lattice(quartz.lattice.matrix[order]),
        quartz.species,
        quartz.frac_coords[:, order],
    )
    assert np.linalg.det(left.lattice.matrix) < 0
    back = read(write(left, tmp_path / f"quartz.{kind}")[0])
    assert (
        spacegroup(back, 0.01).tolist()
        == spacegroup(Crystals.from_structures([quartz]), 0.01).tolist()
        == [152]
    )
    assert torch.linalg.det(back.lattice) > 0


# ---- refusals ------------------------------------------------------------------------


def cif(
    sites: list[str], *, length: str = "4.0", angle: str = "90", header: str = "x"
) -> str:
    """Return CIF text whose sites are `label type x y z`."""
    columns = ("label", "type_symbol", "fract_x", "fract_y", "fract_z")
    return "\n".join(
        [
            f"data_{header}",
            *(f"_cell_length_{a} {length}" for a in "abc"),
            f"_cell_angle_alpha {angle}",
            "_cell_angle_beta 90",
            "_cell_angle_gamma 90",
            "loop_",
            *(f" _atom_site_{c}" for c in columns),
            *sites,
            "",
        ]
    )


GOOD = cif(["Fe1 Fe 0 0 0"])
SYMMETRIC = GOOD.replace(
    "loop_\n _atom",
    "loop_\n_symmetry_equiv_pos_as_xyz\n'x, y, z'\n'-x, -y, -z'\n'x+1/2, y+1/2, "
    "z+1/2'\n"
    "loop_\n _atom",
)
PARTIAL = GOOD.replace("_fract_z\n", "_fract_z\n _atom_site_occupancy\n").replace(
    "Fe 0 0 0", "Fe 0 0 0 0.5"
)
MANY = cif([f"H{i} H 0 0 {i / 10_000}" for i in range(10_000)], length="400")
SYMMETRIC_MANY = cif([f"H{i} H 0 0.1 {i / 1000}" for i in range(900)]).replace(
    "loop_",
    "loop_\n_symmetry_equiv_pos_as_xyz\n"
    + "\n".join(f"'x+{i}/192,y,z'" for i in range(192))
    + "\nloop_",
)
POSCAR = "x\n1.0\n4 0 0\n0 4 0\n0 0 4\nFe\n2\nDirect\n0 0 0\n0.5 0.5 0.5\n"
XYZ = (
    "2\n"
    'Lattice="4 0 0 0 4 0 0 0 4" Properties=species:S:1:pos:R:3 pbc="T T T"\n'
    "Fe 0 0 0\nFe 2 2 2\n"
)

BAD: list[tuple[str, str | bytes, str]] = [
    (
        "partial.cif",
        PARTIAL,
        r"partial occupancy: site 0 \(Fe1\) is 0.5.*OrderDisordered",
    ),
    ("flat.cif", cif(["Fe1 Fe 0 0 0"], length="0.0"), "span a volume"),
    ("flat-angle.cif", cif(["Fe1 Fe 0 0 0"], angle="180"), "span a volume"),
    (
        "impossible.cif",
        cif(["Fe1 Fe 0 0 0"], angle="nan"),
        "span a volume|not a number",
    ),
    ("nan.cif", cif(["Fe1 Fe 0 nan 0"]), "site 0 has a coordinate.*not a number"),
    (
        "unknown-value.cif",
        cif(["Fe1 Fe 0 ? 0"]),
        "site 0 has a coordinate.*not a number",
    ),
    ("element.cif", cif(["Xx1 Xx 0 0 0"]), "unknown element: got 'Xx'"),
    ("many.cif", MANY, r"10,000 atoms.*limit of 1,000.*max_atoms"),
    ("wrong-operator.cif", SYMMETRIC_MANY, "operator .* cannot be read"),
    ("cut.cif", GOOD[: GOOD.index("loop_")], "lists no atoms.*cut short"),
    ("cut-row.cif", cif(["Fe1 Fe 0 0 0", "Fe2 Fe 0.5"]), "cut short|cannot be read"),
    ("no-cell.cif", GOOD.replace("_cell_length_b 4.0\n", ""), "no `_cell_length_b`"),
    (
        "missing.cif",
        GOOD + "_chemical_formula_sum 'Fe2 O3'\n",
        "formula is Fe2 O3.*are missing",
    ),
    ("words.cif", "this is no crystal at all\n", "cannot be read|no atoms"),
    ("binary.cif", bytes(range(256)) * 20, "binary file"),
    ("gzip.cif", b"\x1f\x8b\x08\x08\xff\xfe\x9c\x81" * 99, "binary file"),
    ("empty.cif", "  \n", "is empty"),
    ("cut.vasp", POSCAR[:20], "cut short"),
    (
        "cut-sites.vasp",
        POSCAR[: POSCAR.index("0.5")],
        "announces 2 sites.*lists 1",
    ),
    ("old.vasp", POSCAR.replace("Fe\n", ""), "names no elements|cut short"),
    ("old8.vasp", POSCAR.replace("Fe\n", "") + "0 0 0\n", "VASP 4 form"),
    ("nan.vasp", POSCAR.replace("0.5 0.5", "nan 0.5"), "site 1 has a coordinate"),
    ("flat.vasp", POSCAR.replace("0 0 4", "0 4 0"), "span a volume"),
    ("element.vasp", POSCAR.replace("Fe", "Qq"), "unknown element: got 'Qq'"),
    ("many.vasp", POSCAR.replace("\n2\n", "\n10000\n"), "10,000 atoms"),
    ("counts.vasp", POSCAR.replace("\n2\n", "\n1 1\n"), "one count per element"),
    (
        "mode.vasp",
        POSCAR.replace("Direct", "Sideways?"[::-1]),
        "`Direct` or `Cartesian`",
    ),
    ("scale.vasp", POSCAR.replace("1.0", "zero"), "cannot be read.*'zero'"),
    ("cut.xyz", XYZ[:-14], "cut short|cannot be read"),
    ("cut-second.xyz", XYZ + XYZ[:-10], "cut short.*frame 2 announces 2"),
    ("gap.xyz", XYZ.replace("0\nFe", "0\n\nFe") + XYZ, "must be|cannot be read"),
    ("gap-last.xyz", XYZ[:-9] + "\n\n", "cannot be read"),
    ("many.xyz", XYZ.replace("2\nL", "10000\nL"), "10,000 atoms"),
    ("huge.xyz", XYZ.replace("2\nL", "100000000000\nL"), "100,000,000,000 atoms"),
    ("endless.xyz", "9" * 5000 + XYZ, "must be a number of atoms"),
    ("arabic.xyz", XYZ.replace("2\nL", "\u0662\nL"), "must be a number of atoms"),
    ("plain.xyz", "2\n\nFe 0 0 0\nFe 2 2 2\n", "periodic in 0 of 3.*no crystal"),
    ("molecule.xyz", XYZ.replace("T T T", "F F F"), "periodic in 0 of 3.*no crystal"),
    ("flat.xyz", XYZ.replace("0 0 4", "0 4 0"), "span a volume"),
    ("element.xyz", XYZ.replace("Fe 0", "Qq 0"), "Qq|cannot be read"),
    ("nan.xyz", XYZ.replace("2 2 2", "nan 2 2"), "not a number"),
    ("words.xyz", "no crystal\n", "must be a number of atoms"),
    ("none.xyz", "0\n\n", "must be a number of atoms"),
    ("dash.xyz", XYZ.replace("2 2 2", "2\N{MIDDLE DOT}5 2 2"), "beyond ASCII"),
    (
        "digit.vasp",
        POSCAR.replace("0.5 0.5", "0\N{MIDDLE DOT}5 0.5"),
        "cannot be read.*0.5",
    ),
    ("bad.parquet", b"PAR1 nothing PAR1", "not a whole parquet file"),
    ("odd.txt", "x", "no reader for the ending '.txt'"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD, ids=[b[0] for b in BAD])
def test_bad_files_are_refused_by_name(
    tmp_path: Path, name: str, content: str | bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=message) as error:
        read(path)
    text = str(error.value)
    assert name in text or path.stem in text
    assert text.rstrip().endswith((".", ")", '"'))


def test_good_versions_of_the_bad_files_pass(tmp_path: Path) -> None:
    for name, text in (("a.cif", GOOD), ("b.vasp", POSCAR), ("c.xyz", XYZ)):
        (tmp_path / name).write_text(text)
        assert set(read(tmp_path / name).formulas) == {"Fe"}


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    kind=st.sampled_from(["cif", "symmetric.cif", "vasp", "xyz"]),
    at=st.floats(0, 1),
    length=st.integers(0, 80),
    text=st.text(alphabet="0123456789.-+eE'\";_#\n abcdFexyz()?nan", max_size=12),
)
def test_damaged_text_never_gives_another_error(
    tmp_path: Path, kind: str, at: float, length: int, text: str
) -> None:
    """Cut out and overwrite anything: a batch or a DataError, nothing else."""
    whole = {
        "cif": GOOD,
        "symmetric.cif": SYMMETRIC,
        "vasp": POSCAR,
        "xyz": XYZ,
    }[kind]
    start = int(at * len(whole))
    path = tmp_path / f"damaged.{kind}"
    path.write_text(whole[:start] + text + whole[start + length :])
    try:
        assert len(read(path)) >= 1
    except DataError as error:
        assert "damaged" in str(error)


def test_limits_can_be_raised(tmp_path: Path) -> None:
    path = tmp_path / "large.cif"
    path.write_text(MANY)
    assert read(path, max_atoms=10_000).n_atoms.item() == 10_000
    with pytest.raises(DataError, match=r"large.cif is too large.*max_bytes="):
        read(path, max_bytes=1000)


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "rutile.cif").write_text(GOOD)
    with pytest.raises(
        DataError, match=r"rutil.cif was not found. Did you mean rutile"
    ):
        read(tmp_path / "rutil.cif")
    with pytest.raises(DataError, match="is a folder"):
        read(tmp_path)
    with pytest.raises(DataError, match="was not found"):
        read(str(tmp_path / "*.vasp"))


def test_writing_refuses_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds one crystal; got 3"):
        write(batch(), tmp_path / "POSCAR")
    with pytest.raises(DataError, match="unknown format 'pdb'"):
        write(batch(), tmp_path / "x", "pdb")
    with pytest.raises(DataError, match="cannot be called 'stress'"):
        named = batch().replace(properties={"stress": torch.ones(3)}, units={})
        write(named, tmp_path / "x.extxyz")
    stacked = Structure(Lattice.cubic(4), ["O", "O"], [[0] * 3, [0] * 3])
    with pytest.raises(DataError, match="no symmetry was found"):
        write(stacked, tmp_path / "x.cif", symmetrize=True)
    with pytest.raises(DataError, match="no file to read"):
        read([])
    odd = batch().replace(labels={"lattice": ("a", "b", "c")})
    with pytest.raises(DataError, match="cannot be called 'lattice'"):
        write(odd, tmp_path / "x.parquet")


def test_format_by_name() -> None:
    assert file_format("POSCAR.relaxed") == "poscar"
    assert file_format("x.CIF") == "cif" and file_format("folder", strict=False) is None


@pytest.mark.parametrize(
    ("line", "volume"),
    [
        ("1.0 2 x 2 x 2 supercell", 64),
        ("1 # 300 K, 1 atm", 64),
        ("1 2 3", 384),
        ("-8", 8),
    ],
)
def test_line_2_of_a_poscar_may_end_in_a_comment(line, volume):
    text = f"iron\n{line}\n4 0 0\n0 4 0\n0 0 4\nFe\n1\nDirect\n0 0 0\n"
    assert parse_poscar(text, "POSCAR", 10).volume == pytest.approx(volume)


@pytest.mark.parametrize("row", ["", "# 0 4 0", "0 4"])
def test_a_cell_row_that_is_no_row_is_refused(row):
    text = f"iron\n1\n4 0 0\n{row}\n0 0 4\nFe\n1\nDirect\n0 0 0\n"
    with pytest.raises(DataError, match="malformed"):
        parse_poscar(text, "POSCAR", 10)
