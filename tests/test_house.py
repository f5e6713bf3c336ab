"""The house around the package: pins, licences, tracked files, scripts."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import matdesign

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# the others are what scripts share
SCRIPTS = sorted(
    p for p in (ROOT / "scripts").glob("*.py") if "__main__" in p.read_text()
)
LARGEST = 500_000
LARGEST_DATA = 12_000_000


def _pins() -> dict[str, Version]:
    pins: dict[str, Version] = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, version = line.split("==")
            assert canonicalize_name(name) not in pins, f"{name} is pinned twice"
            pins[canonicalize_name(name)] = Version(version)
    return pins


PINS = _pins()
DECLARED = [
    Requirement(text)
    for text in (*PROJECT["dependencies"], *(t for e in EXTRAS.values() for t in e))
]


def _tracked() -> list[Path]:
    """Every file of the project: what git tracks, or all of an unpacked archive."""
    shown = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True
    )
    if shown.returncode:
        return [p for p in ROOT.rglob("*") if p.is_file()]
    paths = [ROOT / name for name in shown.stdout.split("\0") if name]
    return [p for p in paths if p.is_file()]


# ---- what is installed ---------------------------------------------------------------


@pytest.mark.parametrize("needed", DECLARED, ids=lambda p: p.name)
def test_every_dependency_is_pinned_within_its_bound(needed):
    if canonicalize_name(needed.name) == "matdesign":
        assert needed.extras <= set(EXTRAS)
        return
    assert needed.specifier, f"{needed.name} has no lower bound"
    assert PINS[canonicalize_name(needed.name)] in needed.specifier


def test_pins_are_plain_releases():
    """No local builds (+cpu), no pre-releases, no paths."""
    assert not [n for n, v in PINS.items() if v.local or v.is_prerelease]
    assert PINS["torch"] == Version("2.13.0")


def test_what_is_installed_is_what_is_pinned():
    """Walk the dependencies from ours down: each is pinned, at the version in use."""
    todo = [
        (canonicalize_name(r.name), frozenset(r.extras))
        for r in DECLARED
        if str(r) not in EXTRAS["judge"] + EXTRAS["dft"]  # for finalists
    ]
    seen = set()
    wrong = []
    while todo:
        name, extras = todo.pop()
        if (name, extras) in seen or name == "matdesign":
            continue
        seen.add((name, extras))
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name} is not installed")
            continue
        if name not in PINS:
            wrong.append(f"{name} {found.version} is not pinned")
        elif Version(found.version).public != PINS[name].public:
            wrong.append(f"{name} {found.version} is pinned at {PINS[name]}")
        for text in found.requires or ():
            needed = Requirement(text)
            if needed.marker is None or any(
                needed.marker.evaluate({"extra": extra}) for extra in (*extras, "")
            ):
                todo.append((canonicalize_name(needed.name), frozenset(needed.extras)))
    assert not wrong, "; ".join(sorted(wrong)) + ". Run make again, or mend the pins."


def test_pins_run_on_every_python_we_promise():
    """Also on the first patch release: Debian 12 has 3.11.2."""
    floor = Version(PROJECT["requires-python"].removeprefix(">=") + ".0")
    wrong = []
    for found in metadata.distributions():
        needs = found.metadata.get("Requires-Python")
        if needs and canonicalize_name(found.name) in PINS:
            if floor not in Requirement(f"python{needs}").specifier:
                wrong.append(f"{found.name} {found.version} needs Python {needs}")
    assert not wrong


def test_conda_users_get_the_same_pins():
    made = yaml.safe_load((ROOT / "environment.yml").read_text())
    (pip,) = [d["pip"] for d in made["dependencies"] if isinstance(d, dict)]
    assert pip == ["--constraint constraints.txt", "--editable .[all]"]
    (python,) = [
        d.removeprefix("python=")
        for d in made["dependencies"]
        if isinstance(d, str) and d.startswith("python=")
    ]
    wanted = Requirement(f"python{PROJECT['requires-python']}").specifier
    assert Version(python) in wanted
    assert "conda-forge" in made["channels"]


def test_all_means_all():
    (everything,) = [Requirement(text) for text in EXTRAS["all"]]
    assert everything.extras == set(EXTRAS) - {"all", "judge", "dft"}


def test_the_two_halves_of_nglview_agree():
    """JupyterLab refuses a widget whose Python half names another version of itself."""
    folder = Path(sys.prefix) / "share/jupyter/labextensions/nglview-js-widgets"
    lab = json.loads((folder / "package.json").read_text())["version"]
    found = metadata.distribution("nglview").locate_file("nglview/_frontend.py")
    (python,) = re.findall(
        r"__frontend_version__ = ['\"](.+?)['\"]", Path(str(found)).read_text()
    )
    assert python == lab


def test_every_third_party_import_is_declared():
    declared = {canonicalize_name(r.name) for r in DECLARED}
    provides = metadata.packages_distributions()
    paths = [
        path
        for folder in ("matdesign", "scripts", "tests", "book/_ext")
        for path in sorted((ROOT / folder).rglob("*.py"))
    ]
    own = {p.stem for p in paths} | {p.parent.name for p in paths}
    wrong = []
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in {n.split(".")[0] for n in names} - own:
                if name in sys.stdlib_module_names:
                    continue
                makers = {canonicalize_name(d) for d in provides.get(name, [name])}
                if not makers & declared:
                    wrong.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not wrong


# ---- words ---------------------------------------------------------------------------


def test_one_version_everywhere():
    version = PROJECT["version"]
    assert matdesign.__version__ == version
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert str(citation["version"]) == version
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == version


def test_licences_are_there_and_named_in_the_readme():
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert "CC BY 4.0" in (ROOT / "LICENSE-PROSE").read_text()
    readme = (ROOT / "README.md").read_text()
    assert "LICENSE-PROSE" in readme
    for card in sorted((ROOT / "data").rglob("card.json")):
        name = card.parent.relative_to(ROOT / "data").as_posix()
        licence = json.loads(card.read_text())["licence"]
        assert licence
        (line,) = [t for t in readme.splitlines() if t.startswith(f"| `{name}`")]
        assert licence in line, f"README gives another licence for {name}"


def test_the_readme_names_what_exists():
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert set(re.findall(r"`make ([a-z]+)", readme)) <= targets
    assert set(re.findall(r"^    make ([a-z]+)", readme, re.MULTILINE)) <= targets
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", readme)
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


# ---- tracked files -------------------------------------------------------------------


def test_no_large_files():
    wrong = []
    for path in _tracked():
        inside = path.is_relative_to(ROOT / "data")
        if path.stat().st_size > (LARGEST_DATA if inside else LARGEST):
            wrong.append(f"{path.relative_to(ROOT)}: {path.stat().st_size} bytes")
    assert not wrong


def test_no_path_of_somebodys_machine():
    pattern = re.compile(r"(?<![\w.)>])/(?:home|root|work|tmp|Users)/\w")
    wrong = []
    for path in _tracked():
        if path.suffix in (".parquet", ".safetensors", ".png", ".woff2", ".gz"):
            continue
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="ignore").splitlines(), 1
        ):
            if pattern.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number}")
    assert not wrong


def test_tracked_notebooks_carry_no_output():
    wrong = []
    for path in _tracked():
        if path.suffix != ".ipynb":
            continue
        for cell in json.loads(path.read_text())["cells"]:
            if cell.get("outputs") or cell.get("execution_count"):
                wrong.append(str(path.relative_to(ROOT)))
                break
    assert not wrong, f"run `nbstripout` on {wrong}"


def test_nothing_that_could_be_unpickled_is_shipped():
    endings = {".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".npy", ".joblib"}
    assert not [p.name for p in _tracked() if p.suffix in endings]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "matdesign").rglob("*.py")), ids=lambda p: p.name
)
def test_a_file_holds_one_idea(path):
    assert len(path.read_text().splitlines()) <= 400


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_every_script_explains_itself(script):
    shown = subprocess.run(
        [sys.executable, str(script), "--help"], capture_output=True, text=True
    )
    assert shown.returncode == 0, shown.stderr[-1000:]
    assert "usage" in shown.stdout.lower()


def test_make_shows_its_targets():
    shown = subprocess.run(
        ["make", "--no-print-directory", "-C", str(ROOT), "help"],
        capture_output=True,
        text=True,
        check=True,
    )
    for target in ("design", "lab", "test", "book"):
        assert f"make {target}" in shown.stdout
