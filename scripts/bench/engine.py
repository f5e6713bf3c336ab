"""The engine of all benchmarks: options, head of the record, saving, the table."""

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from machine import command, hardware

import matdesign as design
from bench.stages import ROOT, write_record
from matdesign.errors import DataError


def arguments(name: str, given: list[str]) -> tuple[Any, argparse.Namespace]:
    """Return the module of a benchmark and what its command line says.

    Args:
        name: of a module here, with `options(add)`, `measure(args)`, which yields what
            was found after every stage, and `table(record)`, the text that is printed.
        given: words of the command line.
    """
    module: Any = import_module(f"bench.{name.replace('-', '_')}")
    words = str(module.__doc__).split("\n")[0]
    parser = argparse.ArgumentParser(f"bench.py {name}", description=words)
    parser.set_defaults(name=name)
    add = parser.add_argument
    module.options(add)
    kept = ROOT / "build" / name
    add("--cache", type=Path, default=kept, help="folder: a run that ended goes on")
    add("--output", type=Path, help="JSON record; in the cache if left out")
    args = parser.parse_args(given)
    args.output = args.output or args.cache / f"{args.name}.json"
    return module, args


def run(name: str, given: list[str]) -> int:
    """Run a benchmark, write its record after every stage, and print its table.

    Returns:
        The exit code; 2 where data are missing.
    """
    module, args = arguments(name, given)
    torch.set_num_threads(1)
    record: dict[str, Any] = {
        "command": command("bench.py", [name, *given]),
        "hardware": hardware(),
        "load": os.getloadavg()[0],
        "threads": torch.get_num_threads(),
        "versions": {"matdesign": design.__version__, "torch": torch.__version__},
    }
    try:
        for found in module.measure(args):
            record |= found
            write_record(args.output, record)
    except DataError as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 2
    print(module.table(record))
    print(f"{record['hardware']}, load {record['load']:.1f} at the start")
    return 0
