"""CIF: what a file states is what is read, or the file is refused with the reason."""

from collections import Counter
from pathlib import Path

import gemmi
import numpy as np
import pytest
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifFile, CifWriter

from matdesign.crystals.data.sets import load
from matdesign.crystals.io.cif import parse_cif
from matdesign.crystals.io.files import read
from matdesign.crystals.io.groups import groups, misfit
from matdesign.errors import DataError

CUBE = "5.64 5.64 5.64 90 90 90"
SILICON = "5.43 5.43 5.43 90 90 90"
HEXAGON = "2.95 2.95 4.68 90 90 120"
SALT = ["Na1 Na 0 0 0", "Cl1 Cl 0.5 0.5 0.5"]
EIGHTH = ["Si1 Si 0.125 0.125 0.125"]
CORUNDUM = ["Al1 Al 0 0 0.3523", "O1 O 0.3064 0 0.25"]
CORUNDUM_CELL = "4.759 4.759 12.991 90 90 120"
SYMBOL = "_symmetry_space_group_name_H-M"
CELL = ["length_a", "length_b", "length_c", "angle_alpha", "angle_beta", "angle_gamma"]
LOOP = "_atom_site_label _atom_site_type_symbol"


def cif(
    symmetry: str, sites: list[str], cell: str = CUBE, more: str = "", kinds: str = LOOP
) -> str:
    """Return CIF text; `symmetry` and `more` are items, `kinds` the first columns."""
    columns = [*kinds.split(), *(f"_atom_site_fract_{axis}" for axis in "xyz")]
    return "\n".join(
        [
            "data_x",
            symmetry,
            *(f"_cell_{name} {value}" for name, value in zip(CELL, cell.split())),
            more,
            "loop_",
            *columns,
            *sites,
            "",
        ]
    )


def hm(symbol: str) -> str:
    return f"{SYMBOL} '{symbol}'"


def one(text: str) -> Structure:
    ((_, structure),) = parse_cif(text, "x.cif", 1000)
    return structure


def operators(*triplets: str) -> str:
    return "\n".join(["loop_", "_symmetry_equiv_pos_as_xyz", *triplets])


def all_operators(symbol: str) -> str:
    found = gemmi.find_spacegroup_by_name(symbol).operations()
    return operators(*(op.triplet() for op in found))


MAGNETIC = "\n".join(
    [
        "_parent_space_group.name_H-M_alt 'P m -3 m'",
        "loop_\n_space_group_symop_magn_operation.xyz\nx,y,z,+1\n-x,-y,-z,+1",
        "loop_\n_space_group_symop_magn_centering.xyz\nx,y,z,+1\nx,y,z+1/2,-1",
    ]
)
TEXT_FIELD = "_publ_section_comment\n;\ndata_reduction was done\nloop_ of it\n;\n"

RIGHT = [
    # A. symmetry that is stated only by name, in one of its spellings
    ("old diamond", cif(hm("F d 3 m"), EIGHTH, SILICON), "Si8", 2.33),
    ("old rock salt", cif(hm("F m 3 m"), SALT), "Na4 Cl4", 2.16),
    ("closed up", cif(hm("Fm-3m"), SALT), "Na4 Cl4", 2.16),
    ("full symbol", cif(hm("F 4/m -3 2/m"), SALT), "Na4 Cl4", 2.16),
    ("number only", cif("_space_group_IT_number 225", SALT), "Na4 Cl4", 2.16),
    (
        "Hall symbol",
        cif("_symmetry_space_group_name_Hall '-F 4 2 3'", SALT),
        "Na4 Cl4",
        2.16,
    ),
    (
        "newer Hall symbol",
        cif("_space_group_name_Hall '-F 4 2 3'", SALT),
        "Na4 Cl4",
        2.16,
    ),
    (
        "name in capitals",
        cif("_Symmetry_Space_Group_Name_H-M 'F m -3 m'", SALT),
        "Na4 Cl4",
        2.16,
    ),
    (
        "dotted name",
        cif("_space_group.name_H-M_alt 'F m -3 m'", SALT),
        "Na4 Cl4",
        2.16,
    ),
    (
        "magnetic operators x centrings",
        cif(
            MAGNETIC,
            ["Mn1 Mn 0.1 0.2 0.1", "O1 O 0.3 0.4 0.2"],
            "4.2 4.2 8.4 90 90 90",
        ),
        "Mn4 O4",
        3.18,
    ),
    ("old perovskite", cif(hm("P m 3 m"), SALT, "4 4 4 90 90 90"), "Na1 Cl1", 1.52),
    ("old pyrite", cif(hm("P a 3"), ["Fe1 Fe 0 0 0"], CUBE), "Fe4", 2.07),
    ("C m c a", cif(hm("C m c a"), ["P1 P 0 0.1 0.09"], CUBE), "P8", 2.29),
    ("C m c e, its newer name", cif(hm("C m c e"), ["P1 P 0 0.1 0.09"]), "P8", 2.29),
    # B. settings: origin choices, axes, unique axes
    ("origin 2", cif(hm("F d -3 m :2"), EIGHTH, SILICON), "Si8", 2.33),
    ("origin Z", cif(hm("F d -3 m Z"), EIGHTH, SILICON), "Si8", 2.33),
    ("origin 1", cif(hm("F d -3 m :1"), ["Si1 Si 0 0 0"], SILICON), "Si8", 2.33),
    ("origin S", cif(hm("F d -3 m S"), ["Si1 Si 0 0 0"], SILICON), "Si8", 2.33),
    (
        "origin 1 by Z",
        cif(
            hm("F d -3 m"),
            ["Si1 Si 0 0 0"],
            SILICON,
            "_chemical_formula_sum Si\n_cell_formula_units_Z 8",
        ),
        "Si8",
        2.33,
    ),
    (
        "tetragonal origin 2",
        cif(
            hm("P 4/n m m :2"),
            ["Fe1 Fe 0.75 0.25 0", "Se1 Se 0.25 0.25 0.267"],
            "3.77 3.77 5.52 90 90 90",
        ),
        "Fe2 Se2",
        5.71,
    ),
    (
        "origin in words",
        cif(
            hm("P 4/n 2/m 2/m (origin choice 2)"),
            ["Fe1 Fe 0.75 0.25 0", "Se1 Se 0.25 0.25 0.267"],
            "3.77 3.77 5.52 90 90 90",
        ),
        "Fe2 Se2",
        5.71,
    ),
    ("hexagonal axes", cif(hm("R -3 c"), CORUNDUM, CORUNDUM_CELL), "Al12 O18", 3.99),
    (
        "hexagonal axes, said",
        cif(hm("R -3 c :H"), CORUNDUM, CORUNDUM_CELL),
        "Al12 O18",
        3.99,
    ),
    (
        "rhombohedral axes",
        cif(
            hm("R -3 c"),
            ["Al1 Al 0.3523 0.3523 0.3523", "O1 O 0.5564 0.9436 0.25"],
            "5.128 5.128 5.128 55.28 55.28 55.28",
        ),
        "Al4 O6",
        3.99,
    ),
    (
        "rhombohedral axes, said",
        cif(hm("R -3 m R"), ["Bi1 Bi 0 0 0"], "3.8 3.8 3.8 60 60 60"),
        "Bi1",
        8.94,
    ),
    (
        "unique axis c",
        cif(hm("P 2/m"), ["Si1 Si 0.1 0.2 0.3"], "4 5 6 90 90 100"),
        "Si4",
        1.58,
    ),
    (
        "unique axis b",
        cif(hm("P 21/n"), ["Si1 Si 0.1 0.2 0.3"], "4 5 6 90 100 90"),
        "Si4",
        1.58,
    ),
    (
        "operators in an origin without a name",
        cif(
            hm("P -1") + "\n" + operators("x,y,z", "-x+1/4,-y,-z"),
            ["Si1 Si 0.1 0.2 0.3"],
            "4 5 6 80 90 100",
        ),
        "Si2",
        0.80,
    ),
    (
        "an operator twice",
        cif(operators("x,y,z", "-x,-y,-z", "'-X, -Y, -Z'"), ["Si1 Si 0.1 0.2 0.3"]),
        "Si2",
        0.52,
    ),
    ("nothing is stated: P1", cif("", SALT), "Na1 Cl1", 0.54),
    # C. images of one atom at a special position
    (
        "a third",
        cif(hm("P 63/m m c"), ["Ti1 Ti 0.333 0.667 0.25"], HEXAGON),
        "Ti2",
        4.51,
    ),
    (
        "a third in two digits",
        cif(hm("P 63/m m c"), ["Ti1 Ti 0.33 0.67 0.25"], HEXAGON),
        "Ti2",
        4.51,
    ),
    # D. elements
    (
        "hydrogen of another mass",
        cif(
            hm("F m -3 m"),
            ["Li1 Li 0 0 0", "D1 D 0.5 0.5 0.5"],
            CUBE,
            "_chemical_formula_sum 'D Li'",
        ),
        "Li4 H4",
        0.29,
    ),
    (
        "charges and capitals",
        cif(
            hm("P m -3 m"),
            ["Sr1 Sr2+ 0 0 0", "Ti1 TI 0.5 0.5 0.5", "O1 O-2 0.5 0.5 0"],
            "3.9 3.9 3.9 90 90 90",
        ),
        "Sr1 Ti1 O3",
        5.14,
    ),
    (
        "labels only",
        cif(
            hm("P 1"),
            ["Ho1 0 0 0", "O2A .5 .5 .5", "H1WA .5 .5 .6"],
            kinds="_atom_site_label",
        ),
        "Ho1 O1 H1",
        1.68,
    ),
    # E. and G. text around the values
    ("an author's name", cif("_publ_author 'Müller'", SALT), "Na1 Cl1", 0.54),
    (
        "a text field like a block",
        cif(TEXT_FIELD + hm("F m -3 m"), SALT),
        "Na4 Cl4",
        2.16,
    ),
    (
        "order of site symmetry under the older name",
        cif(
            hm("P -1"),
            ["Si1 Si 1 0.1 0.2 0.3"],
            kinds=LOOP + " _atom_site_symmetry_multiplicity",
        ),
        "Si2",
        0.52,
    ),
]


@pytest.mark.parametrize(
    ("text", "formula", "density"), [r[1:] for r in RIGHT], ids=[r[0] for r in RIGHT]
)
def test_the_crystal_is_the_stated_one(text: str, formula: str, density: float) -> None:
    made = one(text)
    assert _counts(made) == _parse(formula)
    assert float(made.density) == pytest.approx(density, abs=0.006)


def _counts(made: Structure) -> dict[str, int]:
    return {str(e): int(k) for e, k in made.composition.items()}


def _parse(formula: str) -> dict[str, int]:
    letters = [word.rstrip("0123456789") for word in formula.split()]
    return {s: int(w[len(s) :]) for s, w in zip(letters, formula.split())}


NAMED = cif(hm("F m -3 m"), SALT)
GENERAL = ["Si1 Si 0.1 0.2 0.3"]

WRONG = [
    # A. groups that cannot be resolved, and atoms that are missing
    ("no such symbol", cif(hm("F q -3 m"), SALT), "cannot be resolved.*F q -3 m"),
    ("a suffix that no table has", cif(hm("F m -3 m :2"), SALT), "cannot be resolved"),
    (
        "an atom twice, in the origin that was meant",
        cif(hm("F d -3 m"), [*EIGHTH, "Si2 Si 0.875 0.875 0.875"], SILICON),
        "images of one another",
    ),
    (
        "a formula with brackets",
        cif("_chemical_formula_sum 'Na(Cl2)2'", SALT),
        "contradicts itself.*formula",
    ),
    ("a shifted origin", cif(hm("F d -3 m (a-1/8)"), EIGHTH), "cannot be resolved"),
    ("no such number", cif("_space_group_IT_number 231", SALT), "cannot be resolved"),
    (
        "a system only",
        cif("_symmetry_cell_setting cubic", SALT),
        "cannot be resolved.*cubic",
    ),
    (
        "a parent group only",
        cif("_parent_space_group.name_H-M_alt 'P m -3 m'", SALT),
        "cannot be resolved",
    ),
    (
        "magnetic symbol only",
        cif("_space_group_magn.name_BNS 'P -1'", SALT),
        "cannot be resolved",
    ),
    (
        "a name, but one operator",
        cif(
            hm("Fm-3m") + "\n" + operators("'x, y, z'"),
            SALT,
            CUBE,
            "_cell_formula_units_Z 4",
        ),
        r"contradicts itself.*P 1 \(no. 1\).*F m -3 m \(no. 225\)",
    ),
    (
        "symbol against number",
        cif(hm("F m -3 m") + "\n_symmetry_Int_Tables_number 227", SALT),
        "no. 225.*no. 227",
    ),
    (
        "symbol against Hall symbol",
        cif(hm("P m -3 m") + "\n_space_group_name_Hall '-F 4 2 3'", SALT),
        "contradicts itself",
    ),
    (
        "an operator is missing",
        cif(operators("x,y,z", "-y,x,z", "-x,-y,z"), GENERAL),
        "3 operators do not form a group",
    ),
    (
        "an operator of nothing",
        cif(operators("x,y,z", "x,y,y+z/0"), GENERAL),
        "operator 'x,y,y.*cannot be read",
    ),
    # B. settings against operators and cell
    (
        "operators of the other origin",
        cif(hm("P 4/n m m :2") + "\n" + all_operators("P 4/n m m :1"), GENERAL),
        "P 4/n m m:1.*P 4/n m m:2",
    ),
    (
        "operators of exchanged axes",
        cif(hm("P n m a") + "\n" + all_operators("P b n m"), GENERAL),
        r"P b n m \(no. 62\).*P n m a",
    ),
    (
        "not a cube",
        cif(hm("F m -3 m"), SALT, "5.64 5.64 6.2 90 90 90"),
        "5.64, 5.64, 6.2.*does not have the symmetry.*F m -3 m",
    ),
    (
        "not hexagonal",
        cif(hm("R -3 m :H"), ["Bi1 Bi 0 0 0"], "4 4 4 60 60 60"),
        "does not have the symmetry",
    ),
    (
        "unique axis b with c oblique",
        cif(hm("P 1 21/c 1"), GENERAL, "4 5 6 90 90 100"),
        "does not have the symmetry",
    ),
    # C. neither one atom nor two
    (
        "a third, roughly",
        cif(hm("P 63/m m c"), ["Ti1 Ti 0.30 0.70 0.25"], HEXAGON),
        "images of site Ti1 lie 0.* apart",
    ),
    (
        "all atoms and all operators",
        cif(hm("F m -3 m"), ["Na1 Na 0 0 0", "Na2 Na 0.5 0.5 0"]),
        "Na1 and Na2 are images of one another",
    ),
    # D. labels that are no element
    *(
        (
            f"label {label}",
            cif(
                hm("P 1"), ["Mg1 0 0 0", f"{label} .3 .3 .2"], kinds="_atom_site_label"
            ),
            f"label '{label}' does not say which element",
        )
        for label in ("OH1", "Wat1", "HO1", "OW", "CA1", "Xx", "1", "Cval")
    ),
    *(
        (f"type {kind}", cif(hm("P 1"), [f"A1 {kind} 0 0 0"]), "unknown element")
        for kind in ("OH", "HO", "Wat", "CO", "Zz", "Og")
    ),
    (
        "hydrogens that are not listed",
        cif("", ["O1 O 2 0 0 0"], kinds=LOOP + " _atom_site_attached_hydrogens"),
        "site O1 has 2 hydrogen atoms that are not listed",
    ),
    # E. characters
    (
        "a dotted number",
        cif("", ["Ti1 Ti 0 0 0\N{MIDDLE DOT}25"]),
        "_atom_site_fract_z.*beyond ASCII",
    ),
    (
        "a letter like another",
        cif("", ["\N{CYRILLIC CAPITAL LETTER ES}1 O 0 0 0"]),
        "beyond ASCII",
    ),
    # what the file states
    ("formula", NAMED + "_chemical_formula_sum 'Na2 Cl'\n", "formula is Na2 Cl"),
    (
        "formula and Z",
        NAMED + "_chemical_formula_sum NaCl\n_cell_formula_units_Z 2\n",
        "Z = 2",
    ),
    ("Z alone", NAMED + "_cell_formula_units_Z 3\n", "not Z = 3"),
    ("density", NAMED + "_exptl_crystal_density_diffrn 0.54\n", "density.*2.1"),
    ("volume", NAMED + "_cell_volume 44.9\n", "_cell_volume.*179.4"),
    (
        "multiplicities",
        cif(
            hm("P m -3 m"),
            ["Na1 Na 4 0 0 0", "Cl1 Cl 4 .5 .5 .5"],
            kinds=LOOP + " _atom_site_symmetry_multiplicity",
        ),
        r"multiplicities \[1, 1\]",
    ),
    ("a name twice", NAMED + "_cell_length_a 5.65\n", "gives `_cell_length_a` twice"),
]


@pytest.mark.parametrize(
    ("text", "message"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG]
)
def test_contradictions_are_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        one(text)
    assert str(error.value).startswith("x.cif") and str(error.value)[-1] in ".)"


@pytest.mark.parametrize("sign", ["\N{MINUS SIGN}", "\N{EN DASH}", "\N{HYPHEN}"])
def test_dashes_are_minus_signs(tmp_path: Path, sign: str) -> None:
    path = tmp_path / "x.cif"
    path.write_text(cif("", [f"O1\N{NO-BREAK SPACE}O {sign}0.25 0.25 0.1"]), "utf-8")
    assert read(path)[0].frac_coords[0] == pytest.approx([0.75, 0.25, 0.1])


def test_files_of_another_encoding_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.cif"
    text = cif("_publ_author 'M\xfcller'", ["O1 O \N{EN DASH}0.25 0.25 0.1"])
    path.write_bytes(text.encode("cp1252"))
    assert read(path)[0].frac_coords[0] == pytest.approx([0.75, 0.25, 0.1])


def test_blocks_of_one_name_are_all_read(tmp_path: Path) -> None:
    path = tmp_path / "three.cif"
    path.write_text("".join(cif("", [f"A {s} 0 0 0"]) for s in ("Fe", "Cu", "Al")))
    found = read(path)
    assert found.formulas == ("Fe", "Cu", "Al") and found.ids == ("x", "x-2", "x-3")


def test_merged_images_lie_on_their_special_position() -> None:
    made = one(cif(hm("P 63/m m c"), ["Ti1 Ti 0.333 0.667 0.25"], HEXAGON))
    assert np.allclose(made.frac_coords[0], [1 / 3, 2 / 3, 1 / 4], atol=1e-9)
    assert made.distance_matrix[0, 1] == pytest.approx(
        np.hypot(2.95 / 3**0.5, 4.68 / 2)
    )


def test_every_tabulated_setting_is_resolved() -> None:
    """By its symbol with its setting, and by its Hall symbol: the same operators."""
    for known in gemmi.spacegroup_table():
        want = {op.wrap().triplet() for op in known.operations()}
        for tags in (
            {"_space_group_name_h-m_alt": [known.xhm()]},
            {"_space_group_name_hall": [known.hall]},
        ):
            (found,) = groups(tags, "x.cif")
            assert found.triplets == want and found.number == known.number


def test_the_metric_is_held_against_the_operators() -> None:
    tags = {"_space_group_it_number": ["221"]}
    (cubic,) = groups(tags, "x.cif")
    assert misfit(cubic, np.eye(3)) == 0
    stretched = np.diag([1, 1, 1.02])
    assert misfit(cubic, stretched) == pytest.approx(1.02**2 - 1)


@pytest.mark.parametrize("symprec", [None, 0.01])
@pytest.mark.parametrize("number", [14, 62, 152, 166, 194, 227])
def test_written_by_pymatgen_and_read_again(number: int, symprec: float | None) -> None:
    """An independent writer, with and without operators."""
    cells = {14: (4, 5, 6, 90, 100, 90), 62: (4, 5, 6, 90, 90, 90)}
    cells |= {152: (5, 5, 6, 90, 90, 120), 194: (5, 5, 6, 90, 90, 120)}
    cells |= {166: (5, 5, 12, 90, 90, 120), 227: (9, 9, 9, 90, 90, 90)}
    lattice = Lattice.from_parameters(*cells[number])
    want = Structure.from_spacegroup(
        number, lattice, ["Si", "O"], [[0, 0, 0], [0.13, 0.42, 0.19]]
    )
    made = one(str(CifWriter(want, symprec=symprec)))
    assert len(made) == len(want)
    assert made.get_space_group_info(1e-3)[1] == number
    assert made.volume == pytest.approx(want.volume, rel=1e-6)


def test_a_symbol_without_its_origin_is_never_read_wrong() -> None:
    """Shipped crystals of groups with two origins, by symbol alone."""
    two = {one.number for one in gemmi.spacegroup_table() if one.ext in "12"}
    crystals = load("prototypes", split="val")
    same = StructureMatcher(ltol=0.01, stol=0.05, angle_tol=1, scale=False)
    outcomes = Counter()
    for want in crystals:
        if want.get_space_group_info(0.01)[1] not in two:
            continue
        (block,) = CifFile.from_str(str(CifWriter(want, symprec=0.01))).data.values()
        rows = ("label", "type_symbol", "fract_x", "fract_y", "fract_z")
        columns = [block["_atom_site_" + row] for row in rows]
        cell = [block["_cell_" + name] for name in CELL]
        symmetry = f"{SYMBOL} '{block['_symmetry_space_group_name_H-M']}'"
        sites = [" ".join(row) for row in zip(*columns)]
        formula = f"_chemical_formula_sum '{block['_chemical_formula_sum']}'"
        for more in ("", formula):
            try:
                found = one(cif(symmetry, sites, " ".join(cell), more))
                outcomes[bool(more), same.fit(found, want)] += 1
            except DataError as error:
                assert "name the setting" in str(error).lower()
                outcomes[bool(more), "refused"] += 1
    assert outcomes[False, False] == outcomes[True, False] == 0
    assert outcomes[False, True] > outcomes[False, "refused"]
    assert outcomes[True, True] > 5 * outcomes[True, "refused"]
