"""The checks accept what is right and refuse what is nearly right."""

from math import comb

from matdesign.teach import exercises_guidance as exercises


def test_the_best_of_n() -> None:
    assert exercises.check_best_of(lambda h, m, n: 1 - comb(m - h, n) / comb(m, n))
    with_replacement = exercises.check_best_of(lambda h, m, n: 1 - (1 - h / m) ** n)
    assert not with_replacement and "not right" in str(with_replacement)


def test_the_price_of_a_hit() -> None:
    assert exercises.check_price(lambda p, g, c: c * p / g)
    upside_down = exercises.check_price(lambda p, g, c: g / (c * p))
    assert not upside_down and "not right" in str(upside_down)
    assert not exercises.check_price(lambda p, g, c: c * p)
