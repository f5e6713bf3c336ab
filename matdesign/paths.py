"""Where shipped data lies, and where what is downloaded or found is kept."""

from pathlib import Path

from matdesign.errors import DataError


def data_dir() -> Path:
    """Return the folder that holds shipped data sets, weights and recorded runs.

    A checkout (or an editable install of it) has `data/` at its root; a wheel carries
    the same folder as `matdesign/_data`.

    Raises:
        DataError: neither folder exists; reinstall the package.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / "_data", package.parent / "data"):
        if folder.is_dir():
            return folder
    raise DataError(
        f"the shipped data folder is missing; looked beside {package} and inside it. "
        "Reinstall with `pip install --force-reinstall matdesign`, or work in a full checkout."
    )


def cache_dir() -> Path:
    """Return the user's folder of what can be had again; it need not exist yet."""
    import pooch

    return Path(pooch.os_cache("matdesign"))
