from reskill_jax.storage.sampled import (
    SampledEpisode,
    Turn,
    choose,
    episode_text,
    sampled_files,
    write_sampled,
)

WON = SampledEpisode(
    "find the\nmug",
    True,
    "done",
    "You are in a room.",
    (
        Turn(("first: look.",), "look", "A mug.", 0.0),
        Turn((), "take mug", "Taken. \x1b[31m\ud800", 1.0),
    ),
)


def test_an_episode_is_told_turn_by_turn():
    assert episode_text(WON) == (
        "=== find the mug\n"
        "=== won after 2 turns, ended by the world\n"
        "\n"
        "You are in a room.\n"
        "* first: look.\n"
        "> look\n"
        "A mug.\n"
        "> take mug\n"
        "Taken. ?[31m?  [reward 1]"
    )
    lost = WON._replace(success=False, ended="turns", turns=(Turn((), "", "x" * 5000, 0.0),))
    text = episode_text(lost)
    assert "=== lost after 1 turns, all turns were used" in text
    assert "> (no action)" in text and len(text) < 2200 and text.endswith("x [...]")


def test_a_few_of_each_outcome_are_chosen():
    assert choose([False, True, True, False, True, False]) == [0, 1, 2, 3]
    assert choose([True] * 5) == [0, 1] and choose([]) == []


def test_files_by_step_split_and_mode(tmp_path):
    assert sampled_files(tmp_path) == []
    write_sampled(tmp_path, 10, "unseen", "bank", [WON])
    write_sampled(tmp_path, 0, "seen", "none", [WON, WON])
    write_sampled(tmp_path, 20, "seen", "none", [])
    write_sampled(tmp_path, 10, "unseen", "bank", [WON])  # the same again
    (tmp_path / "episodes" / "notes.txt").write_text("mine")
    found = sampled_files(tmp_path)
    assert [entry[:3] for entry in found] == [(0, "seen", "none"), (10, "unseen", "bank")]
    assert found[0][3].read_text().count("=== find the mug") == 2
