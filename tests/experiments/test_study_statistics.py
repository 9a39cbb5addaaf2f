"""Statistics of repeated runs, against figures worked out by hand."""

import numpy as np
import pytest
import results_page
from study import statistics as st


def test_t_interval():
    # Mean 3, standard deviation sqrt(2.5), t(0.975, 4) = 2.776: 3 +- 2.776 sqrt(0.5).
    low, high = st.t_interval([1, 2, 3, 4, 5])
    assert (low, high) == pytest.approx((3 - 1.963243, 3 + 1.963243), abs=1e-5)
    assert np.isnan(st.t_interval([0.5])).all()


def test_bootstrap_interval():
    # Of two runs a resample has mean 0, 1/2 or 1 with chances 1/4, 1/2, 1/4.
    assert st.bootstrap_interval([0, 1]) == (0, 1)
    assert st.bootstrap_interval([0.3] * 5) == pytest.approx((0.3, 0.3))
    low, high = st.bootstrap_interval([1, 2, 3, 4, 5])
    t_low, t_high = st.t_interval([1, 2, 3, 4, 5])
    assert t_low < low < 3 < high < t_high
    assert st.bootstrap_interval([1, 2, 3, 4, 5]) == (low, high)  # the same every time
    # The mean of many normal values: 1.96 standard errors on either side.
    values = np.random.default_rng(1).normal(size=400)
    low, high = st.bootstrap_interval(values)
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)
    with pytest.raises(ValueError, match="no runs"):
        st.bootstrap_interval([])


def test_paired_differences_use_common_seeds():
    found = st.paired({0: 0.5, 1: 0.7, 3: 0.9, 4: 0.1}, {0: 0.4, 1: 0.4, 3: 0.7, 9: 0.0})
    assert found.runs == 3 and found.mean == pytest.approx(0.2)  # of 0.1, 0.3, 0.2
    half = 4.302653 * 0.1 / 3**0.5
    assert (found.low, found.high) == pytest.approx((0.2 - half, 0.2 + half), abs=1e-5)
    assert (found.bootstrap_low, found.bootstrap_high) == pytest.approx((0.1, 0.3))
    assert st.paired({0: 1.0}, {1: 1.0}) is None
    assert st.paired({0: 1.0}, {0: 0.5}).mean == 0.5


def test_area_is_the_mean_height():
    assert st.area([0, 10, 20], [0, 1, 1]) == pytest.approx(0.75)
    assert st.area([0, 10, 30], [0, 1, 1]) == pytest.approx(25 / 30)
    # Until 15: 5 of the first ten steps, then 5 of the next.
    assert st.area([0, 10, 20], [0, 1, 0], until=15) == pytest.approx((5 + 3.75) / 15)
    assert st.area([0, 10, 20], [0, 1, 0], until=10) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="two points"):
        st.area([0], [1])
    for until in (0, 21):
        with pytest.raises(ValueError, match="does not lie"):
            st.area([0, 20], [1, 1], until=until)


def test_steps_to_a_level():
    steps, values = [0, 10, 20, 30], [0.2, 0.4, 0.3, 0.6]
    assert st.steps_to(steps, values, 0.1) == 0
    assert st.steps_to(steps, values, 0.3) == pytest.approx(5)
    assert st.steps_to(steps, values, 0.45) == pytest.approx(25)
    assert st.steps_to(steps, values, 0.7) == float("inf")


@pytest.mark.parametrize(
    ("gained", "lost", "verdict"),
    [(30, 5, "helpful"), (5, 30, "harmful"), (12, 8, "neutral"), (0, 0, "neutral")],
)
def test_versions_on_the_same_games(gained, lost, verdict):
    found = st.game_difference(gained, lost, 100)
    assert found.difference == pytest.approx((gained - lost) / 100)
    assert found.verdict == verdict
    spread = (gained + lost + 1 - (gained - lost) ** 2 / 100) ** 0.5 / 100
    assert found.high - found.difference == pytest.approx(1.959964 * spread, rel=1e-6)
    assert found.low < found.difference < found.high


def test_versions_that_harm_seldom_called_harmful_by_chance():
    """Versions that make no difference: about one in twenty intervals misses 0."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(512, [0.1, 0.1, 0.8], size=4000)
    missed = np.mean([st.game_difference(a, b, 512).verdict != "neutral" for a, b, _ in drawn])
    assert 0.03 < missed < 0.06


def test_impossible_games_are_refused():
    for gained, lost, games in ((60, 50, 100), (-1, 0, 10), (0, 0, 0)):
        with pytest.raises(ValueError, match="gained"):
            st.game_difference(gained, lost, games)


def test_sections_of_a_page(tmp_path):
    page = tmp_path / "docs" / "results.md"
    results_page.write_section(page, "one", "first")
    results_page.write_section(page, "two", "second")
    text = page.read_text()
    page.write_text(text.replace("# Results", "# Results\n\nBy hand.") + "\nMore by hand.\n")
    results_page.write_section(page, "one", "changed")
    text = page.read_text()
    assert "By hand." in text and text.endswith("More by hand.\n")
    assert "first" not in text
    assert text.index("<!-- one -->\nchanged\n<!-- end -->") < text.index("<!-- two -->\nsecond\n")
    page.write_text("<!-- one -->\nno end")
    with pytest.raises(ValueError, match="without"):
        results_page.write_section(page, "one", "x")


def test_a_table():
    assert results_page.table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |"
