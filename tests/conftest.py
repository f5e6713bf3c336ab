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
