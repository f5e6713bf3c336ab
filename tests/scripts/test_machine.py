"""What scripts write about the machine and about their own command."""

import os

import machine
import pytest


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/some/where/mp_20_dev.parquet", "mp_20_dev.parquet"),
        ("mp20=/a/b/mp_20_dev.parquet", "mp20=mp_20_dev.parquet"),
        ("data/measured/guidance.json", "guidance.json"),
        ("/some/where/cache/", "cache"),
        ("width=64", "width=64"),
        ("g/cm^3", "'g/cm^3'"),
        ("mask: elements", "'mask: elements'"),
        ("--seed", "--seed"),
    ],
)
def test_a_command_is_told_without_folders(given, kept):
    assert machine.command("card.py", [given]) == f"python scripts/card.py {kept}"


def test_the_processor_and_the_gpu_are_named():
    assert machine.hardware().startswith(machine.processor())
    assert f"{os.cpu_count()} cores" in machine.processor()
