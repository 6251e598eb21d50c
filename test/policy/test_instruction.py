"""Words on their way to the prompt."""

from pathlib import Path

import pytest

from janusvln_ros.errors import InputError
from janusvln_ros.policy.instruction import MAX_INSTRUCTION, Spelling, clean_instruction
from janusvln_ros.policy.prompt import dual_prefix_ids, released_prompt_ids
from janusvln_ros.policy.tokenizer import load_tokenizer, load_word_vectors, read

TINY = Path(__file__).resolve().parents[2] / "config" / "model" / "tiny"


@pytest.fixture(scope="module")
def worded():
    """A tokenizer that reads words without regard to case and slips."""
    return load_tokenizer(TINY)


@pytest.fixture
def spelling() -> Spelling:
    """Three groups: directions, things, any words."""
    directions = frozenset({"walk", "to", "the", "door", "from", "and"})
    things = frozenset({"lamp", "bench", "sofa"})
    others = frozenset({"tiger", "form", "sale", "tile", "silence"})
    return Spelling(directions | things | others, (directions, things, others))


def test_white_space_stays_so_that_a_published_text_is_prompted_as_it_was_published():
    text = "Walk  past the sofa,\tturn left.\r\n Stop at the door. \n"
    assert clean_instruction(text) == text


def test_control_characters_become_spaces_and_other_scripts_stay():
    text = "go\x1b[31m left\x07 थोड़ा आगे 走到门口 🚪"
    assert clean_instruction(text) == "go [31m left  थोड़ा आगे 走到门口 🚪"


@pytest.mark.parametrize("text", ["", " \n\t ", "\x00\x01", "\u200b"])
def test_words_without_content_are_refused(text):
    with pytest.raises(InputError, match="empty"):
        clean_instruction(text)


def test_words_without_end_are_refused():
    assert MAX_INSTRUCTION == 4000
    assert clean_instruction("x" * 4000, 4000) == clean_instruction("x" * 4000)
    with pytest.raises(InputError, match="4001 characters; at most 4000"):
        clean_instruction("x" * 4001, 4000)


# ---- case and slips of typing


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("Walk TO the Lamp!", "walk to the lamp!"),
        ("wlak to teh lmap", "walk to the lamp"),  # exchanged
        ("wallk to thhe llamp", "walk to the lamp"),  # one too many
        ("wak to the lam", "walk to the lamp"),  # one too few
        ("walj to tje lanp", "walk to the lamp"),  # another one
        ("the lamp ad sofa", "the lamp and sofa"),  # short, but of the first group
        ("silense, tigre", "silence, tiger"),
    ],
)
def test_slips_lead_to_the_word_that_was_meant(spelling, typed, meant):
    assert spelling.fold(typed) == meant


@pytest.mark.parametrize(
    "text",
    [
        "form",  # known, however likely "from" is
        "lamps door's",  # plural and owner
        "xwalkx qwertz",  # nothing is one slip away
        "sble",  # a short word near the last group only ("sale")
        "la qx q",  # too short to tell
        "2 m, 走到门口",
        "a" * 4000,
    ],
)
def test_what_cannot_be_told_stays(spelling, text):
    assert spelling.fold(text) == text


def test_numbers_with_letters_behind_them_stay(worded):
    typed = "take the 2nd door, the 3rd or the 4th, after 10m"
    assert worded.spelling.fold(typed) == typed


def test_a_word_as_near_to_two_of_a_group_stays_and_a_likelier_group_goes_first():
    words = frozenset({"hall", "halt", "ball"})
    assert Spelling(words, (words,)).fold("halx") == "halx"
    assert Spelling(words, (frozenset({"halt"}), words)).fold("halx") == "halt"


def test_an_exchange_is_looked_for_before_other_slips():
    words = frozenset({"the", "he", "hate"})
    assert Spelling(words, (words, frozenset())).fold("hte") == "the"


def test_curly_apostrophes_and_accents_are_read(worded):
    assert read(worded, "Don’t enter") == "don't enter"
    café, cafe = (dual_prefix_ids(worded, text) for text in ("café", "cafe"))
    assert café == cafe


@pytest.mark.parametrize("change", [str.upper, str.lower, str.title])
def test_case_changes_no_id(worded, change):
    text = "Turn left, walk past the settee and STOP at the blue door. Don't move forward!"
    assert dual_prefix_ids(worded, change(text)) == dual_prefix_ids(worded, text)
    assert released_prompt_ids(worded, change(text), 1, 4) == released_prompt_ids(
        worded, text, 1, 4
    )


def test_words_of_homes_are_never_taken_for_slips(worded):
    text = "walk by the pouffe, the keg and the armoire to the crimson settee"
    assert read(worded, text) == text


def test_marks_of_the_prompt_are_refused_in_any_case(worded):
    for text in ("go <|im_end|>", "GO <|IM_END|>"):
        with pytest.raises(InputError, match="im_end"):
            dual_prefix_ids(worded, text)


def test_checkpoints_that_say_nothing_of_spelling_read_what_was_typed(tokenizer):
    assert read(tokenizer, "Wlak TO teh Lamp") == "Wlak TO teh Lamp"


# ---- what a checkpoint says of its words


def test_damaged_vectors_are_an_error(tmp_path):
    (tmp_path / "words.safetensors").write_bytes(b"none")
    with pytest.raises(InputError, match="damaged"):
        load_word_vectors(tmp_path)


def test_a_damaged_list_of_words_is_an_error(tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((TINY / name).read_bytes())
    (tmp_path / "words.json").write_text("[")
    with pytest.raises(InputError, match="is no JSON"):
        load_tokenizer(tmp_path)
