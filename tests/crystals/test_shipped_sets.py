"""Loading by name: shipped, mirrored, built from official files, and every refusal."""

import csv
import hashlib
import http.server
import io
import subprocess
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from pymatgen.core import Lattice, Structure
from pymatgen.io.cif import CifWriter

from matdesign.crystals.batch import Crystals
from matdesign.crystals.data import download
from matdesign.crystals.data import sets as door
from matdesign.crystals.data.catalogue import CATALOGUE, DataSet, File
from matdesign.crystals.data.sets import datasets, load
from matdesign.crystals.io.files import write_parquet
from matdesign.errors import DataError


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No mirror, and a cache of its own."""
    monkeypatch.delenv("MATDESIGN_DATA", raising=False)
    monkeypatch.setattr(door, "cache_dir", lambda: tmp_path / "cache")


def crystal(element: str, edge: float = 3.0) -> Structure:
    return Structure(Lattice.cubic(edge), [element, "O"], [[0, 0, 0], [0.5, 0.5, 0.25]])


def table(elements: list[str], gaps: list[str]) -> str:
    """Return a CSV as the published ones are."""
    text = io.StringIO()
    head = ["", "material_id", "band_gap", "note", "spacegroup.number", "cif"]
    writer = csv.DictWriter(text, head)
    writer.writeheader()
    for i, (element, gap) in enumerate(zip(elements, gaps, strict=True)):
        writer.writerow(
            {
                "": i,
                "material_id": f"mp-{element}",
                "band_gap": gap,
                "note": f"about {element}",
                "spacegroup.number": 99,
                "cif": str(CifWriter(crystal(element))),
            }
        )
    return text.getvalue()


# ---- shipped and mirrored ------------------------------------------------------------

SHIPPED = [name for name, one in CATALOGUE.items() if one.shipped]


def shipped(name: str, split: str | None = None) -> Crystals:
    try:
        return load(name, split)
    except DataError as error:
        if "is missing" in str(error) or "no row with" in str(error):
            pytest.skip(f"not built yet: {error}")
        raise


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_sets_load_with_units_and_split(name: str) -> None:
    whole = shipped(name)
    assert len(whole.ids) == len(whole) == datasets()[name].rows
    assert ((whole.frac >= 0) & (whole.frac < 1)).all()
    assert whole.units["energy_above_hull"] == "eV/atom"
    assert whole.info["dataset"] == name
    if "split" in whole.labels:
        parts = [shipped(name, part) for part in ("train", "val", "test")]
        assert sum(map(len, parts)) == len(whole)
        assert not set(parts[0].ids) & set(parts[2].ids)
        assert set(parts[1].labels["split"]) == {"val"}


def test_mirror_by_name_and_alias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Crystals.from_structures(
        [crystal("Mg"), crystal("Ca")],
        labels={"split": ("train", "val")},
        properties={"band_gap": torch.tensor([1.0, 2.0])},
        ids=["a", "b"],
    )
    for name in ("mp_20_dev", "my_own", "mp_20"):
        write_parquet(made, tmp_path / f"{name}.parquet")
    monkeypatch.setenv("MATDESIGN_DATA", str(tmp_path))
    for name in ("mp_20_dev", "reduced MP-20", "MP-20", "my_own", "My-Own"):
        assert load(name).ids == ("a", "b")
    assert load("mp_20_dev", "validation").ids == ("b",)
    assert load("mp_20_dev").units == {"band_gap": "eV"}
    with pytest.raises(DataError, match="no row with split = 'test'"):
        load("mp_20_dev", "test")


def test_a_printed_table_of_all_sets() -> None:
    text = repr(datasets())
    assert len(datasets()) == len(CATALOGUE) == len(text.splitlines()) - 1
    for name in datasets():
        assert name in text
    assert "45,229" in text and "CC BY 4.0" in text
    with pytest.raises(DataError, match="Did you mean 'mp_20'"):
        datasets()["mp-21"]


def test_every_official_address_is_pinned() -> None:
    for one in CATALOGUE.values():
        for file in one.files:
            assert file.url.startswith("https://")
            commits = [part for part in file.url.split("/") if len(part) == 40]
            assert len(commits) == 1 and int(commits[0], 16)
            kind, found = file.checksum.split(":")
            assert len(found) == {"git": 40, "sha256": 64}[kind] and int(found, 16)


# ---- official files ------------------------------------------------------------------


def official(folder: Path, name: str = "mp_20") -> Path:
    target = folder / name
    target.mkdir(parents=True)
    (target / "train.csv").write_text(table(["Mg", "Ca"], ["4.5", ""]))
    (target / "val.csv").write_text(table(["Sr"], ["3.5"]))
    (target / "test.csv").write_text(table(["Ba"], ["2.5"]))
    return folder


def test_official_files_in_the_mirror_become_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MATDESIGN_DATA", str(official(tmp_path / "mirror")))
    whole = load("mp_20")
    assert whole.ids == ("mp-Mg", "mp-Ca", "mp-Sr", "mp-Ba")
    assert whole.labels["split"] == ("train", "train", "val", "test")
    assert whole.labels["note"][0] == "about Mg"
    assert whole.properties["band_gap"].nan_to_num(-1).tolist() == [4.5, -1, 3.5, 2.5]
    assert whole.properties["spacegroup"].tolist() == [99.0] * 4
    assert whole.units["band_gap"] == "eV" and whole.formulas[3] == "BaO"
    assert load("mp_20", "test").ids == ("mp-Ba",)
    # the second time the table is read, not made
    monkeypatch.setattr(download, "build", None)
    assert len(load("mp_20")) == 4


def test_a_broken_row_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = official(tmp_path / "mirror")
    path = folder / "mp_20" / "val.csv"
    path.write_text(
        path.read_text().replace("_cell_length_a   3.0", "_cell_length_a nan")
    )
    monkeypatch.setenv("MATDESIGN_DATA", str(folder))
    with pytest.raises(DataError, match=r"val.csv \(val\), row 0 \(mp-Sr\)"):
        load("mp_20")
    assert not list((tmp_path / "cache").glob("*.parquet"))


def test_numbers_flags_and_words() -> None:
    read = download._numbers(pd.Series(["false", " True ", "1e-3", "", "None"]))
    assert read is not None
    assert read.nan_to_num(9).tolist() == pytest.approx([0, 1, 1e-3, 9, 9])
    assert download._numbers(pd.Series(["1", "Fm-3m"])) is None


def test_a_column_with_text_in_one_chunk_is_a_label_in_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "CHUNK", 1)
    target = tmp_path / "mirror" / "mp_20"
    official(tmp_path / "mirror")
    (target / "train.csv").write_text(table(["Mg", "Ca"], ["4.5", "metal"]))
    monkeypatch.setenv("MATDESIGN_DATA", str(tmp_path / "mirror"))
    assert load("mp_20").labels["band_gap"] == ("4.5", "metal", "3.5", "2.5")


# ---- downloads, from a server on this machine ----------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve a folder on localhost; yields its address and the folder."""
    root = tmp_path / "served"
    root.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(root))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            pass

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{made.server_port}", root
    made.shutdown()
    made.server_close()


def archive(root: Path) -> str:
    """Write an archive like the published one; return its checksum."""
    with zipfile.ZipFile(root / "all.zip", "w") as made:
        made.writestr("all/train.csv", table(["Mg", "Ca"], ["1", "2"]))
        made.writestr("all/val.csv", table(["Sr"], ["3"]))
        made.writestr("all/readme.txt", "words")
    return "sha256:" + hashlib.sha256((root / "all.zip").read_bytes()).hexdigest()


def register(monkeypatch: pytest.MonkeyPatch, *files: File) -> None:
    one = DataSet("test_set", "made up", 3, "none", files=files)
    monkeypatch.setitem(CATALOGUE, "test_set", one)


def test_download_check_parse_and_cache(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, root = server
    register(monkeypatch, File(f"{address}/all.zip", "", archive(root)))
    assert load("test_set").labels["split"] == ("train", "train", "val")
    (root / "all.zip").unlink()
    assert load("test_set", "val").formulas == ("SrO",)  # from the cache


def test_a_wrong_checksum_is_refused(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, root = server
    archive(root)
    register(monkeypatch, File(f"{address}/all.zip", "", "sha256:" + "0" * 64))
    with pytest.raises(
        DataError, match=r"does not agree with the checksum .* 0000.*Delete"
    ):
        load("test_set")


def test_a_file_is_held_against_its_name_in_git(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address, root = server
    (root / "train.csv").write_text(table(["Mg"], ["1"]))
    command = ["git", "hash-object", "--no-filters", str(root / "train.csv")]
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    file = File(f"{address}/train.csv", "train", f"git:{name.strip()}")
    register(monkeypatch, file)
    assert load("test_set").ids == ("mp-Mg",)
    # put there by hand, it is another one
    (tmp_path / "cache" / "test_set" / "train.csv").write_text(table(["Ca"], ["1"]))
    for made in (tmp_path / "cache").glob("*.parquet"):
        made.unlink()
    with pytest.raises(DataError, match="does not agree with the checksum"):
        load("test_set")


def test_a_damaged_archive_is_refused(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, root = server
    (root / "all.zip").write_bytes(b"PK no archive")
    found = hashlib.sha256(b"PK no archive").hexdigest()
    register(monkeypatch, File(f"{address}/all.zip", "", f"sha256:{found}"))
    with pytest.raises(DataError, match="not a whole archive"):
        load("test_set")


# ---- refusals ------------------------------------------------------------------------


def test_unknown_name_lists_and_guesses() -> None:
    with pytest.raises(DataError, match="Did you mean 'perovskites'") as error:
        load("perovskite")
    assert all(name in str(error.value) for name in CATALOGUE)


def test_missing_network_says_what_to_fetch_and_where(tmp_path: Path) -> None:
    """The test suite has no network: this is the real thing."""
    with pytest.raises(DataError, match="could not be downloaded") as error:
        load("mpts_52")
    text = str(error.value)
    assert all(file.url in text for file in CATALOGUE["mpts_52"].files)
    assert str(tmp_path / "cache" / "mpts_52") in text
    assert "$MATDESIGN_DATA/mpts_52" in text


def test_other_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"no official address.*MATDESIGN_DATA"):
        load("mp_20_dev")
    with pytest.raises(DataError, match="unknown split 'dev'"):
        load("prototypes", "dev")
    monkeypatch.setenv("MATDESIGN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="which is not a folder"):
        load("mp_20_dev")
    monkeypatch.setattr("matdesign.paths.data_dir", lambda: tmp_path)
    with pytest.raises(DataError, match=r"build_data.py"):
        load("prototypes")
