"""The data sets that `load` knows: what they are, where they are, who made them."""

from __future__ import annotations

from dataclasses import dataclass, field

_CDVAE = (
    "https://raw.githubusercontent.com/txie-93/cdvae/"
    "f857f598d6f6cca5dc1ea0582d228f12dcc2c2ea/data"
)
_DIFFCSP = (
    "https://raw.githubusercontent.com/jiaor17/DiffCSP/"
    "7121d159826efa2ba9500bf299250d96da37f146/data"
)
_MATTERGEN = (
    "https://media.githubusercontent.com/media/microsoft/mattergen/"
    "92423660a8bd70e83679086e88f88596d484dc16/data-release/alex-mp"
)


@dataclass(frozen=True)
class File:
    """One file of a public data set.

    Args:
        url: official address, at a pinned commit.
        split: the part that it holds; empty where an archive holds several.
        checksum: "git" and the name that git gives the content at the pinned commit,
            or "sha256" and that sum, with a colon between.
    """

    url: str
    split: str
    checksum: str

    @property
    def name(self) -> str:
        """File name in the cache or a local mirror."""
        return self.url.rsplit("/", 1)[1]


@dataclass(frozen=True)
class DataSet:
    """A named data set.

    Args:
        name: what `load` takes.
        what: one line.
        rows: number of crystals.
        licence: terms, and whom to cite.
        shipped: path below the shipped data folder, or empty.
        files: official files of a public set, or none (then only a local mirror has
            it).
        units: unit of each property.
        renames: column of the official file -> name here.
    """

    name: str
    what: str
    rows: int
    licence: str
    shipped: str = ""
    files: tuple[File, ...] = ()
    units: dict[str, str] = field(default_factory=dict)
    renames: dict[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """`shipped`, `download` or `mirror`."""
        return "shipped" if self.shipped else "download" if self.files else "mirror"


def _three(base: str, name: str, *blobs: str) -> tuple[File, ...]:
    """Return the files of the three splits, with their names in git."""
    return tuple(
        File(f"{base}/{name}/{part}.csv", part, f"git:{blob}")
        for part, blob in zip(("train", "val", "test"), blobs, strict=True)
    )


_MP_UNITS = {
    "formation_energy_per_atom": "eV/atom",
    "band_gap": "eV",
    "e_above_hull": "eV/atom",
}
_GROUP = {"spacegroup.number": "spacegroup", "pretty_formula": "formula"}
_OURS = "CC BY 4.0, the matdesign authors"
_OUR_UNITS = {
    "energy_per_atom": "eV/atom",
    "formation_energy_per_atom": "eV/atom",
    "energy_above_hull": "eV/atom",
    "volume_per_atom": "angstrom^3",
    "density": "g/cm^3",
    "magmom_per_atom": "Bohr magneton",
}

CATALOGUE: dict[str, DataSet] = {
    one.name: one
    for one in (
        DataSet(
            "prototypes",
            "known prototypes with substituted elements, relaxed and labelled by CHGNet",
            6_752,
            _OURS,
            shipped="prototypes/prototypes.parquet",
            units=_OUR_UNITS,
        ),
        DataSet(
            "perovskites",
            "ABX3 perovskites, cubic and distorted, relaxed and labelled by CHGNet",
            2_053,
            _OURS,
            shipped="perovskites/perovskites.parquet",
            units=_OUR_UNITS,
        ),
        DataSet(
            "mp_20",
            "MP-20: Materials Project crystals of at most 20 atoms",
            45_229,
            "CC BY 4.0, Materials Project; split of CDVAE (MIT), arXiv:2110.06197",
            files=_three(
                _CDVAE,
                "mp_20",
                "b1c9d498565ac2fd8d075a51ff2ef5e51ba6c21f",
                "7efe4d7ebeb4f460ceaad35e5326c42111d9c9a1",
                "5dc643041df53f5ce4970a79930ad262b4f07acd",
            ),
            units=_MP_UNITS,
            renames=_GROUP,
        ),
        DataSet(
            "mp_20_dev",
            "reduced MP-20: its validation split and part of its training split",
            13_393,
            "CC BY 4.0, Materials Project; split of CDVAE (MIT), arXiv:2110.06197",
            units=_MP_UNITS,
        ),
        DataSet(
            "perov_5",
            "Perov-5: ABX3 perovskites of 5 atoms",
            18_928,
            "Castelli et al. 2012, doi:10.1039/C2EE22341D; CDVAE (MIT)",
            files=_three(
                _CDVAE,
                "perov_5",
                "0769074b5d51d293b765c4371b8f55c468c9c9f2",
                "4a2c8dde98347dd0e01fa83dcf3982c2abe98f9f",
                "d3c5d5af4b27a2a139149f2bb73c8a3dba9d8ac1",
            ),
            units={
                "heat_all": "eV/atom",
                "heat_ref": "eV/atom",
                "dir_gap": "eV",
                "ind_gap": "eV",
            },
            renames=_GROUP,
        ),
        DataSet(
            "carbon_24",
            "Carbon-24: carbon allotropes of 6 to 24 atoms (only about 40 % unique)",
            10_153,
            "CC BY 4.0, Pickard 2020, doi:10.24435/materialscloud:2020.0026; CDVAE (MIT)",
            files=_three(
                _CDVAE,
                "carbon_24",
                "5e7ae970fbad8ddc46b6963e8cd6e425f11783a6",
                "b3e29b927883642426ca1d9632d00359b412742b",
                "9beca843fde489de1fe288b32f9e3ff710d42803",
            ),
            units={"energy_per_atom": "eV/atom"},
            renames=_GROUP,
        ),
        DataSet(
            "mpts_52",
            "MPTS-52: Materials Project crystals of at most 52 atoms, split by date",
            40_476,
            "CC BY 4.0, Materials Project; split of DiffCSP (MIT), arXiv:2309.04475",
            files=_three(
                _DIFFCSP,
                "mpts_52",
                "28c53b0a0fd3f32fb8078aca8e5b484e372790c6",
                "a377ba0ca7bee37ee69d9f50f8362eaa35d9f690",
                "2e8af159618f63be346b6527f155514323964423",
            ),
            units={**_MP_UNITS, "energy_above_hull": "eV/atom"},
            renames=_GROUP,
        ),
        DataSet(
            "alex_mp_20",
            "Alex-MP-20: Alexandria and Materials Project crystals of at most 20 atoms",
            675_204,
            "CC BY 4.0, Alexandria and Materials Project; MatterGen (MIT), "
            "doi:10.1038/s41586-025-08628-5",
            files=(
                # the checksum is that of the file's Git LFS pointer
                File(
                    f"{_MATTERGEN}/alex_mp_20.zip",
                    "",
                    "sha256:6688e652e45fac4ac8b016dbc4a3280a"
                    "fde9ba687bdacfd8c676775ed19b6228",
                ),
            ),
            units={
                "energy_above_hull": "eV/atom",
                "dft_band_gap": "eV",
                "dft_bulk_modulus": "GPa",
                "ml_bulk_modulus": "GPa",
                "dft_mag_density": "Bohr magneton/angstrom^3",
            },
            renames={"space_group": "spacegroup_symbol"},
        ),
        DataSet(
            "mp20_reference_samples",
            "crystals generated by published models, to check metrics against",
            21_996,
            "Apache-2.0, WyckoffTransformer authors, arXiv:2503.02407",
        ),
    )
}
"""All data sets by name."""

ALIASES = {"reduced_mp_20": "mp_20_dev"}
"""Other names, lower case with underscores."""
