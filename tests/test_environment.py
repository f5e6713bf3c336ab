"""`about`, `device`, `scale`, `source`."""

import json
import sys

import pytest
import torch

import matdesign as design
from matdesign.environment import PACKAGES, device_line


def test_about_names_versions_and_licences():
    record = design.about()
    versions = dict(one.split(" ", 1) for one in record["versions"].split(", "))
    assert versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(versions) == {"python", *PACKAGES}
    text = str(record)
    for topic in ("versions", "device", "licence"):
        assert topic in text


def test_about_lists_every_card(tmp_path, monkeypatch):
    for name, licence in (("salt", "CC BY 4.0"), ("models/tiny", "MIT")):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        (folder / "card.json").write_text(json.dumps({"licence": licence}))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "card.json").write_text("{")
    module = sys.modules["matdesign.environment"]  # `design.about` is the function
    monkeypatch.setattr(module, "data_dir", lambda: tmp_path)
    rows = design.about()
    assert rows["data: salt"] == "CC BY 4.0"
    assert rows["data: models/tiny"] == "MIT"
    assert "without a readable licence" in rows["data: broken"]


def test_about_html_is_escaped():
    record = design.about()
    marked = type(record)({"x": "<1>"})
    assert "&lt;1&gt;" in marked._repr_html_()
    assert "<1>" not in marked._repr_html_()


def test_device_prints_one_line(capsys):
    best = design.device()
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    assert str(best) in printed
    assert torch.zeros(1, device=best).device.type == best.type


@pytest.mark.parametrize(("cuda", "want"), [(False, 3), (True, 5)])
def test_scale_follows_the_device(monkeypatch, cuda, want):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert design.scale(cpu=3, gpu=5) == want


def test_device_line_of_a_cpu_names_threads():
    assert str(torch.get_num_threads()) in device_line(torch.device("cpu"))
