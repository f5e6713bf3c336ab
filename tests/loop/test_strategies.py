"""Strategies of a campaign: who selects and who learns, written down and exact."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from alloys import Alloys
from test_campaign import Toy

import matdesign
from matdesign.errors import DataError
from matdesign.generators.diffusion import Diffusion
from matdesign.loop import rebuild
from matdesign.loop.campaign import Campaign
from matdesign.loop.iteration import PATIENCE
from matdesign.loop.rebuild import made_by
from matdesign.loop.store import crystal_keys
from matdesign.loop.strategies import Chosen

COLUMNS = ["iteration", "id", "formula", "energy_above_hull", "reason"]


class Richest:
    """Chooses what holds most copper, and nothing with too little of it."""

    def __init__(self, least=0):
        self.least, self.calls = least, []

    def select(self, candidates, results, values, room, *, seed):
        self.calls.append((list(results.structures.ids), values.tolist(), room, seed))
        copper = (candidates.species == 29).sum(1)
        order = copper.argsort(descending=True, stable=True).tolist()
        order = [i for i in order if copper[i] >= self.least][:room]
        return Chosen(order, [f"{n} atoms of copper" for n in copper.tolist()])

    def to_dict(self):
        return {"least": self.least}

    @classmethod
    def from_dict(cls, words):
        return cls(**words)


def campaign(where, **keywords):
    keywords = {"generator": Alloys(bad=0), "budget": 12, "batch": 4} | keywords
    parts = (keywords.pop("generator"), keywords.pop("constraints", None), Toy())
    return Campaign(*parts, where, propose=10, seed=4, **keywords)


def test_what_was_chosen_and_why_is_in_the_store(tmp_path):
    rule = Richest()
    loop = campaign(tmp_path / "a.db", select=rule)
    iterations = list(loop)
    assert loop.spent == 12 and [one.selected for one in iterations] == [4, 4, 4]
    for k in range(3):
        rows = loop.store.proposals(k)
        new = [one for one in rows if one.decision in ("selected", "passed over")]
        assert all("atoms of copper" in one.reason for one in new)
        copper = {"selected": [], "passed over": []}
        for one in new:
            copper[one.decision].append(int((one.crystal.species == 29).sum()))
        assert min(copper["selected"]) >= max(copper["passed over"])
    ids, values, room, _ = rule.calls[-1]
    table = loop.table().iloc[:8]
    known = table[table["reason"] == ""]  # a failed crystal teaches nothing
    assert values == known["objective"].tolist() and len(ids) == len(values) < 8
    assert room == 4 and not rule.calls[0][0]
    shown, _ = loop.history.usable()  # as they were proposed, like the candidates
    assert crystal_keys(shown.structures) == list(shown.structures.ids)
    assert "Richest" in repr(loop)
    loop.close()


def test_a_gate_that_lets_nothing_through_ends_the_campaign(tmp_path):
    loop = campaign(tmp_path / "a.db", select=Richest(least=2), budget=40)
    iterations = list(loop)
    assert any(0 < one.selected < 4 for one in iterations)  # less than its room
    assert loop.left == 0 or "loosen its gate" in iterations[-1].stopped
    loop.close()
    loop = campaign(tmp_path / "b.db", select=Richest(least=5), budget=40)
    iterations = list(loop)
    assert len(iterations) == PATIENCE and loop.spent == 0
    assert all(one.fresh and not one.selected for one in iterations)
    assert f"{sum(one.fresh for one in iterations)} passed over" in loop.stopped
    assert "loosen its gate" in loop.stopped
    loop.close()


def test_a_selector_is_made_again_or_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(matdesign, "Richest", Richest, raising=False)
    campaign(tmp_path / "a.db", select=Richest(2)).close()
    given = {"generator": Alloys(bad=0), "oracle": Toy()}
    again = Campaign.resume(tmp_path / "a.db", **given)
    assert again.select.least == 2
    again.close()
    with pytest.raises(DataError, match=r"other select: got .*\"least\": 1"):
        Campaign.resume(tmp_path / "a.db", select=Richest(1), **given)
    monkeypatch.undo()
    campaign(tmp_path / "b.db", select=Richest(2)).close()
    with pytest.raises(DataError, match=r"campaign's select.*select=\.\.\."):
        Campaign.resume(tmp_path / "b.db", **given)
    Campaign.resume(tmp_path / "b.db", select=Richest(2), **given).close()
    campaign(tmp_path / "c.db").close()
    with pytest.raises(DataError, match="made with other select"):
        Campaign.resume(tmp_path / "c.db", select=Richest(2), **given)


def test_a_choice_that_does_not_fit_is_refused(tmp_path):
    class Greedy(Richest):
        def select(self, candidates, results, values, room, *, seed):
            return Chosen(range(len(candidates)), [""] * len(candidates))

    loop = campaign(tmp_path / "a.db", select=Greedy())
    with pytest.raises(DataError, match=r"Greedy chose 9 crystals.*at most 4 of 9"):
        loop.iteration()
    loop.close()
    for order in ([0, 0], [2]):
        with pytest.raises(DataError, match="Name each chosen one once"):
            Chosen(order, ["", ""])


def test_rewards_are_ranks_and_failures_get_none(tmp_path):
    loop = campaign(tmp_path / "a.db", budget=16)
    list(loop)
    table = loop.table()
    keys, rewards = loop.history.rewards(1, 3)
    rows = table[table["iteration"].isin([1, 2])]
    assert len(keys) == len(rows) == 8 and 0 < rows["ok"].sum() < 8
    worth = rows["objective"].fillna(float("inf")).to_numpy()
    worse = (worth[None, :] > worth[:, None]).sum(1) / 7
    assert rewards.tolist() == pytest.approx(worse.tolist())
    assert not rewards[torch.tensor((~rows["ok"]).to_numpy())].any()
    for k, key in enumerate(keys):  # energies in all: single precision tells none apart
        loop.history._values[key] = -123456.789 - 1e-4 * k
    assert loop.history.rewards(1, 3)[1].tolist() == pytest.approx(
        [k / 7 for k in range(8)]
    )
    loop.close()


def tiny():
    """A model that draws quickly and can be saved."""
    data = Alloys(bad=0).sample(6, seed=0)
    return Diffusion.for_data(data, width=16, layers=1, heads=2, steps=3).eval()


class Shift:
    """Turns the weights of a model by what it was taught; counts its fine-tunings."""

    def __init__(self):
        self.tunings = []

    def learn(self, generator, crystals, rewards, *, seed, prior):
        assert prior is not generator or not self.tunings
        self.tunings.append((len(crystals), seed))
        assert len(crystals) == len(rewards) and (rewards == rewards).all()
        better = type(generator)(**generator.config)
        better.load_state_dict(generator.state_dict())
        with torch.no_grad():
            for weight in better.parameters():
                weight += 1e-3 * float(rewards.mean()) * torch.ones_like(weight)
        return better.eval()


@pytest.mark.parametrize("savable", [True, False])
def test_a_learning_campaign_is_the_same_after_any_interruption(tmp_path, savable):
    """Whether its versions were saved, or are learned again from the same results."""

    class Bare:
        """A proposer that cannot be saved."""

        def __init__(self, **config):
            self.config = config
            self.inner = Diffusion(**config).eval()
            for name in (
                "state_dict",
                "load_state_dict",
                "parameters",
                "sample",
                "eval",
            ):
                setattr(self, name, getattr(self.inner, name))
            self.eval = lambda: self

    model = tiny()
    if not savable:
        bare = Bare(**model.config)
        bare.load_state_dict(model.state_dict())
        model = bare
    settings = {"generator": model, "learn_every": 2, "budget": 14}
    whole = campaign(tmp_path / "a.db", learn=(shift := Shift()), **settings)
    iterations = list(whole)
    assert len(shift.tunings) == len(iterations) // 2 - (len(iterations) % 2 == 0)
    assert [one.version for one in iterations] == [
        k // 2 for k in range(len(iterations))
    ]
    assert "by version 1" in repr(iterations[2]) and not iterations[2].undone

    campaign(tmp_path / "b.db", learn=Shift(), **settings).close()
    given = {} if savable else {"generator": model}
    for k in range(len(iterations)):
        part = Campaign.resume(tmp_path / "b.db", oracle=Toy(), learn=Shift(), **given)
        if k == 3:  # killed between proposals and evaluation
            part._proposals(4)
            part.close()
            part = Campaign.resume(
                tmp_path / "b.db", oracle=Toy(), learn=Shift(), **given
            )
        assert part.iteration().version == k // 2
        part.close()
    assert part.table()[COLUMNS].equals(whole.table()[COLUMNS])
    kept = sorted(one.name for one in tmp_path.glob("b.generator*"))
    assert len(kept) == (len(shift.tunings) + 1 if savable else 0)
    whole.close()

    (tmp_path / "b.db").unlink()  # another campaign of that name trusts no old version
    other = campaign(tmp_path / "b.db", learn=(fresh := Shift()), **settings)
    for _ in range(3):
        other.iteration()
    assert len(fresh.tunings) == 1
    other.close()


def test_what_a_fine_tuning_did_not_change_is_said_also_after_a_resume(tmp_path):
    class Collapsed(Shift):
        def learn(self, *args, **keywords):
            better = super().learn(*args, **keywords)
            better.record = {"learned": {"stopped": "collapse: 3 %; undone"}}
            return better

    keywords = {"generator": tiny(), "learn_every": 1, "budget": 14}
    loop = campaign(tmp_path / "a.db", learn=Collapsed(), **keywords)
    assert not loop.iteration().undone
    assert "by version 1 (fine-tuning undone: collapse: 3 %; undone)" in repr(
        loop.iteration()
    )
    asked = loop.ask()
    loop.close()
    loop = Campaign.resume(tmp_path / "a.db", oracle=Toy(), learn=Collapsed())
    loop.tell(Toy().evaluate(asked))
    assert loop.version == 2 == loop.store.iterations()[-1]["version"]
    assert loop.iteration().undone.startswith("collapse")
    loop.close()


def test_a_proposer_that_cannot_learn_is_refused_at_once(tmp_path):
    for learner in (matdesign.PolicyGradient(), matdesign.RewardWeighted()):
        with pytest.raises(DataError, match="cannot teach a Alloys"):
            campaign(tmp_path / "a.db", learn=learner)
    with pytest.raises(DataError, match="PolicyGradient cannot teach a Diffusion"):
        campaign(tmp_path / "a.db", learn=matdesign.PolicyGradient(), generator=tiny())
    data, sizes = (
        Alloys(bad=0).sample(6, seed=0),
        {"width": 16, "layers": 1, "heads": 2},
    )
    model = matdesign.Autoregressive.for_data(data, **sizes)
    with pytest.raises(DataError, match="RewardWeighted cannot teach a Autoregressive"):
        campaign(tmp_path / "a.db", learn=matdesign.RewardWeighted(), generator=model)


def test_a_version_is_on_the_device_of_the_one_before(tmp_path):
    class Elsewhere:
        device, save = torch.device("meta"), tiny().save

    loop = campaign(tmp_path / "a.db")
    assert rebuild.keep_version(Elsewhere(), loop.store, 1).device.type == "meta"
    assert rebuild.load_version(loop.store, 1, tiny()).device.type == "cpu"
    loop.close()


def test_a_campaign_of_the_package_needs_its_store_and_what_is_your_own(tmp_path):
    """Surrogate, acquisition, learner, constraint and model: all rebuilt."""
    import matdesign as design

    settings = {"objective": "volume_per_atom", "budget": 12, "batch": 4, "propose": 8}
    settings |= {"select": design.Bayesian(start=4), "learn_every": 2, "seed": 1}
    settings["learn"] = design.RewardWeighted(steps=2, watch=0)

    def size(structure):
        return structure.volume / len(structure)

    oracle = design.FunctionOracle(size, {"volume_per_atom": "A^3"})

    def begin(where):
        wanted = design.MinDistance(0.5)
        return Campaign(tiny(), wanted, oracle, where, **settings)

    whole = begin(tmp_path / "a.db")
    iterations = list(whole)
    assert whole.spent == 12 and iterations[-1].version == 1
    reasons = [one.reason for one in whole.store.proposals(2)]
    assert any(one.startswith("predicted") for one in reasons)
    begin(tmp_path / "b.db").close()
    for _ in iterations:
        part = Campaign.resume(tmp_path / "b.db", oracle=oracle)
        part.iteration()
        part.close()
    columns = ["id", "formula", "volume_per_atom", "reason"]
    assert part.table()[columns].equals(whole.table()[columns])
    whole.close()


class Seer(Richest):
    """Says what it expects of every candidate, too."""

    def select(self, candidates, results, values, room, *, seed):
        made = super().select(candidates, results, values, room, seed=seed)
        return replace(made, predicted=[(0.5 * i, 0.1) for i in range(len(candidates))])


def test_each_row_says_what_made_it_and_what_was_expected(tmp_path):
    known = Alloys(bad=0).sample(6, seed=0).replace(ids=tuple("abcdef"))
    wanted = matdesign.OnlyElements("Cu", "Ag", "Au", "Ni", "Pd", "Pt", "Al")
    keywords = {"select": Seer(), "budget": 3, "batch": 3}
    loop = campaign(
        tmp_path / "a.db", generator=matdesign.Substitution(known), **keywords
    )
    loop.iteration()
    rows = loop.store.proposals(0)
    assert {one.parent for one in rows} == set("abcdef") and len(rows) == 6
    new = [one for one in rows if one.decision in ("selected", "passed over")]
    assert [one.predicted for one in new] == [0.5 * i for i in range(len(new))]
    assert {one.predicted_std for one in new} == {0.1} and len(new) > 1
    [draw] = {row["draw"] for row in loop.store.iterations()}
    for row in loop.store._db.select(kind="crystal"):
        assert (row.model, row.draw) == ("Substitution", draw) and "guide" not in row
    loop.close()
    model, where = tiny(), tmp_path / "b.db"
    loop = campaign(where, generator=model, constraints=wanted, budget=2)
    loop.iteration()
    again = campaign(tmp_path / "c.db", generator=model, budget=2)
    again.iteration()
    for one, guided in ((loop, True), (again, False)):
        found = list(one.store._db.select(kind="crystal"))
        assert {row.model for row in found} == {made_by(model, None)["model"]}
        assert {"guide" in row for row in found} == {guided}
        assert found[0].model.startswith("Diffusion ") and "parent" not in found[0]
        one.close()
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    assert made_by(model, None)["model"] != found[0].model
