import random
import re

import pytest

from sim_bridge.homes.language.grammar import known_words
from sim_bridge.homes.language.lexicon import COLOURS, HELD_OUT_WORDS, KINDS, synonyms
from sim_bridge.homes.language.variants import VARIANTS, varied, with_articles, with_typo

TEXT = (
    "Turn right and go through the door into the blue room, take the door on your left into the "
    "green hallway. Walk past the green clock, then stop at the orange lamp."
)
SEEDS = range(60)


@pytest.mark.parametrize("form", VARIANTS)
def test_a_form_follows_from_the_text_and_the_seed_alone(form):
    random.seed(1)
    first = [varied(TEXT, form, seed) for seed in SEEDS]
    assert first == [varied(TEXT, form, seed) for seed in SEEDS]
    assert TEXT not in first


def test_case_changes_nothing_but_case():
    assert varied(TEXT, "lower", 0) == TEXT.lower()
    assert varied(TEXT, "upper", 0) == TEXT.upper()


def edits(a, b):
    """Words of two texts that differ."""
    return [(x, y) for x, y in zip(a.split(), b.split(), strict=True) if x != y]


def test_every_sentence_gets_one_typo_that_makes_no_other_word():
    for seed in SEEDS:
        wrong = varied(TEXT, "typo", seed)
        assert len(edits(TEXT, wrong)) == 2
        for before, after in zip(TEXT.split(". "), wrong.split(". "), strict=True):
            ((right, slip),) = edits(before, after)
            assert abs(len(right) - len(slip)) <= 1
            assert re.sub(r"\W", "", slip).lower() not in known_words()


def test_no_typo_turns_a_kind_a_colour_or_a_hand_into_another_word():
    meaning = [w for group in (*KINDS.values(), *COLOURS.values()) for w in group if " " not in w]
    rng = random.Random(0)
    for word in [*(w for w in meaning if len(w) > 2), "left", "right"]:
        slips = {with_typo(rng, word) for _ in range(80)}
        assert len(slips) > 3 and not slips & (known_words() - {word}), word


def test_text_without_a_word_to_misspell_stays():
    assert varied("Go to it.", "typo", 0) == "Go to it."
    assert varied("", "typo", 0) == ""


def test_every_word_that_has_synonyms_is_replaced_by_another_one():
    groups = synonyms()
    held_out = 0
    for seed in SEEDS:
        other = varied(TEXT, "synonyms", seed)
        for before, after in edits(TEXT, other):
            old, new = (re.sub(r"\W", "", w).lower() for w in (before, after))
            assert old in groups and old != new
        kept = {re.sub(r"\W", "", w).lower() for w in TEXT.split()} & set(groups)
        said = {re.sub(r"\W", "", w).lower() for w in other.split()}
        assert not {"door", "room", "lamp", "clock", "orange", "green"} & said, (kept, other)
        assert "right" in said and "left" in said
        held_out += bool(said & HELD_OUT_WORDS)
    assert held_out > 0.5 * len(SEEDS)


def test_a_room_is_given_the_names_of_walls_and_a_thing_those_of_things():
    rooms = {varied("Go into the blue room.", "synonyms", s).split()[3] for s in SEEDS}
    things = {varied("Go to the blue box.", "synonyms", s).split()[3] for s in SEEDS}
    assert "azure" in rooms and "navy" not in rooms
    assert "navy" in things and "azure" not in things


def test_a_polite_frame_keeps_the_words():
    for seed in SEEDS:
        asked = varied(TEXT, "please", seed)
        assert re.search("please|thank", asked.lower()) and asked.endswith(".")
        assert TEXT[1:-1] in asked


def test_articles_fit_the_following_word():
    assert with_articles("A orange box, an green box, a ebony clock, A armchair") == (
        "An orange box, a green box, an ebony clock, An armchair"
    )
