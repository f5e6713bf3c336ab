"""The script that holds our figures against published ones: agreement and not."""

import json
import os
from pathlib import Path

import pytest
from bench import published as check

pyarrow = pytest.importorskip("pyarrow")

SALT = {"numbers": [55, 17], "frac_coords": [0.0, 0, 0, 0.5, 0.5, 0.5]}
CUBE = [4.1, 0, 0, 0, 4.1, 0, 0, 0, 4.1]


@pytest.fixture
def samples(tmp_path):
    """Four crystals: one broken in structure, one in composition, of two models."""
    import pyarrow.parquet as parquet

    rows = [
        {"model": "A", **SALT, "lattice": CUBE},
        {"model": "A", **SALT, "lattice": CUBE, "frac_coords": [0.0] * 6},
        {"model": "A", **SALT, "lattice": CUBE, "numbers": [55, 2]},
        {"model": "B", **SALT, "lattice": CUBE, "frac_coords": [-0.1] * 3 + [1.4] * 3},
    ]
    path = tmp_path / "samples.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def run(samples, published, capsys):
    path = samples.parent / "published.json"
    path.write_text(json.dumps(published))
    code = check.main([str(samples), "--published", str(path)])
    return code, capsys.readouterr()


def test_agreement_is_exit_code_zero(samples, capsys):
    truth = {"A": [66.67, 66.67], "B": [100.0, 100.0]}
    code, printed = run(samples, truth, capsys)
    assert code == 0
    assert "66.67 / 66.67" in printed.out and "DIFFERS" not in printed.out


@pytest.mark.parametrize(
    "published",
    [{"A": [66.67, 66.9]}, {"A": [66.5, 66.67]}, {"A": [66.67, 66.67], "C": [1, 1]}],
)
def test_any_difference_is_exit_code_one(samples, published, capsys):
    code, printed = run(samples, published, capsys)
    assert code == 1
    assert "DIFFERS" in printed.out


def test_a_file_that_cannot_be_used_is_exit_code_two(tmp_path, capsys):
    missing = tmp_path / "nothing.parquet"
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 but not really")
    for path in (missing, broken):
        assert check.main([str(path)]) == 2
        assert path.name in capsys.readouterr().err


def test_a_file_without_the_columns_is_named(tmp_path, capsys):
    import pyarrow.parquet as parquet

    path = tmp_path / "other.parquet"
    parquet.write_table(pyarrow.table({"model": ["A"]}), path)
    assert check.main([str(path)]) == 2
    assert "other.parquet" in capsys.readouterr().err


@pytest.mark.slow
def test_the_published_figures_are_reproduced(capsys):
    path = (
        Path(os.environ.get("MATDESIGN_DATA", ".")) / "mp20_reference_samples.parquet"
    )
    if not path.is_file():
        pytest.skip("needs mp20_reference_samples.parquet in the folder MATDESIGN_DATA")
    assert check.main([str(path)]) == 0
    assert capsys.readouterr().out.count("agrees") == len(check.PUBLISHED)
