"""What holds for every test: no network, one thread, no traces outside temporary folders.

Sockets are blocked by pytest-socket (pyproject.toml); only this machine may be
spoken to, which the browser tests need. Processes that a test starts inherit proxies
that lead nowhere, so that they cannot reach the network either.
"""

import os

import pytest

DEAD_PROXY = "http://127.0.0.1:9"

for _name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
    os.environ[_name] = DEAD_PROXY
os.environ["no_proxy"] = os.environ["NO_PROXY"] = "127.0.0.1,localhost,::1"
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "agg"


def pytest_configure(config: pytest.Config) -> None:
    """Make property-based tests repeat exactly and never fail for being slow."""
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "house",
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if not any(item.get_closest_marker("gpu") for item in items):
        return
    import torch

    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Give torch one thread: tests run in several worker processes side by side."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Point caches at an empty folder: no test may live on what was downloaded before."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def space_groups() -> list:
    """Hold the groups that most tests build: pymatgen forgets them, and takes 1 s for each."""
    from pymatgen.symmetry.groups import SpaceGroup

    return [SpaceGroup("Fm-3m"), SpaceGroup("Fd-3m")]


@pytest.fixture(scope="session")
def eight():
    """Crystals to learn from: eight small cells of four structure types, 1 to 5 atoms."""
    import torch

    from matdesign.crystals.batch import Crystals

    fcc = [[0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]]
    cube = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    half = [0.5, 0.5, 0.5]
    faces = [[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.0, 0.5, 0.5]]
    rows = [
        (5.64, fcc, [11, 17], [[0, 0, 0], half]),
        (4.21, fcc, [12, 8], [[0, 0, 0], half]),
        (4.12, cube, [55, 17], [[0, 0, 0], half]),
        (3.87, cube, [55, 35], [[0, 0, 0], half]),
        (3.90, cube, [38, 22, 8, 8, 8], [[0, 0, 0], half, *faces]),
        (4.00, cube, [56, 22, 8, 8, 8], [[0, 0, 0], half, *faces]),
        (3.61, fcc, [29], [[0, 0, 0]]),
        (4.05, fcc, [13], [[0, 0, 0]]),
    ]
    species = torch.zeros(8, 5, dtype=torch.long)
    frac = torch.zeros(8, 5, 3)
    lattice = torch.zeros(8, 3, 3)
    for i, (edge, shape, numbers, sites) in enumerate(rows):
        species[i, : len(numbers)] = torch.tensor(numbers)
        frac[i, : len(numbers)] = torch.tensor(sites, dtype=torch.float32)
        lattice[i] = edge * torch.tensor(shape)
    return Crystals(species, frac, lattice)


@pytest.fixture(scope="session")
def random_crystals():
    """400 crystals of 1-8 atoms in skewed cells, from a palette of 12 elements."""
    import torch

    from matdesign.crystals.batch import Crystals

    random = torch.Generator().manual_seed(0)
    palette = torch.tensor([1, 3, 8, 8, 8, 9, 11, 17, 20, 22, 26, 29, 38])
    n, width = 400, 8
    sizes = torch.randint(1, width + 1, (n,), generator=random)
    mask = torch.arange(width) < sizes[:, None]
    # few elements per crystal, so that formulas and neutral ones do occur
    choice = torch.randint(len(palette), (n, 3), generator=random)
    pick = torch.randint(3, (n, width), generator=random)
    species = palette[choice.gather(1, pick)] * mask
    frac = torch.rand(n, width, 3, generator=random) * mask[..., None]
    lattice = 4 * torch.eye(3) + torch.randn(n, 3, 3, generator=random)
    return Crystals(species, frac, lattice)
