"""Words on their way to the prompt."""

import pytest

from janusvln_ros.errors import InputError
from janusvln_ros.policy.instruction import clean_instruction


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
    assert clean_instruction("x" * 4000, 4000) == clean_instruction("x" * 4000)
    with pytest.raises(InputError, match="4001 characters; at most 4000"):
        clean_instruction("x" * 4001, 4000)
