"""A third opinion of recorded hits: beside each hit, in its window, failures with reasons."""

import third_judge

import matdesign as design


def test_an_opinion_stands_beside_each_hit():
    known = design.load("perovskites", split="test")[:2]
    cifs = [one.to(fmt="cif") for one in known]
    hits = [{"formula": str(k), "cif": cif} for k, cif in enumerate(cifs)]
    record = {
        "windows": {"energy_above_hull": [-1.0, 0.2]},
        "runs": [{"hits": hits[:1]}, {"hits": []}, {"hits": hits[1:]}],
    }
    with design.PotentialOracle(workers=1) as oracle:
        near, n = third_judge.ask(record, oracle)
        direct = oracle.evaluate(known)
        assert record["third"] == oracle.name
    values = [hit["third"]["energy_above_hull"] for hit in hits]
    assert n == 2 and near == sum(value <= 0.2 for value in values)
    for value, far in zip(values, direct.energy_above_hull.tolist(), strict=True):
        assert abs(value - far) < 0.003  # a CIF rounds coordinates

    with design.PotentialOracle(workers=1, time_limit=0.001) as hurried:
        near, _ = third_judge.ask(record, hurried)
    assert near == 0
    assert all(hit["third"]["energy_above_hull"] is None for hit in hits)
    assert all(hit["third"]["reason"] for hit in hits)
