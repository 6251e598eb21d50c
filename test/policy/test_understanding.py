"""
What a checkpoint makes of an instruction before anything moves: understood, doubtful or noise. The
words that training said are made up, the tokenizer and its vectors are the shipped ones.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from janusvln_ros.errors import InputError
from janusvln_ros.policy.tokenizer import load_tokenizer, load_word_vectors
from janusvln_ros.policy.understanding import Vocabulary, understanding

TINY = Path(__file__).resolve().parents[2] / "config" / "model" / "tiny"
TRAINED = """
go walk turn take stop wait head continue keep going enter leave exit through past into to the a at
in on and then please you your until when see reach door doorway room hallway left right straight
ahead forward around behind first second third red blue green yellow lamp table sofa couch bed
chair fridge clock plant mirror not don't one end of it is with next beside slpi
""".split()  # noqa: SIM905


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(TINY)


@pytest.fixture(scope="module")
def vocabulary(tokenizer) -> Vocabulary:
    """Of a checkpoint that was taught with some seventy words."""
    vectors = load_word_vectors(TINY)
    assert vectors is not None
    return Vocabulary(tokenizer, vectors, TRAINED)


@pytest.mark.parametrize(
    "text",
    [
        "go left",
        "stop",
        "STOP!",
        "left",
        "straight then right",
        "to the sofa",
        "door, hallway, second door on the right",
        "wlak to teh lmap",
        "Please turn around and walk past the blue chair until you see the yellow lamp.",
        "take the 2nd door, not the blue one",
        "don't go in, wait at the door",
        "when you see the fridge turn left and keep going until you reach the bed",
        "What you do is head left, then stop at the sofa",
        "what you'll need to do is turn around",
        "Could you go into the red room?",
        "do a 180 and stop",
        "turn 180 degrees and go through the doorway",
    ],
)
def test_directions_are_understood(vocabulary, text):
    assert understanding(text, vocabulary).verdict == "understood", understanding(text, vocabulary)


@pytest.mark.parametrize(
    "text",
    [
        *("", "   ", "....", "12345", "?!", "x", "k k k k", "aaaaaaaa", "🚪🚪"),
        *("asdf", "qwe rty", "lkjhgf poiuyt", "asdf qwer left zxcv", "go asdf qwer zxcv uiop"),
        *("banana invoice Tuesday", "hello", "please", "hi robot how are you", "red green blue"),
        *("the quick brown fox jumps over the lazy dog", "I had pasta and wine last night"),
        *("what time is it", "is the sofa red?", "how many chairs are in the room?"),
        *("走到门口", "подойди к двери", "अगले कमरे में जाओ"),
        "https://example.org/?a=b",
        "zxcv " * 700,
        "".join(f"{a}{b}qxz " for a in "bcdfgh" for b in "jklmnp" for _ in range(20)),
    ],
)
def test_what_says_no_way_is_noise_with_a_reason(vocabulary, text):
    found = understanding(text, vocabulary)
    assert found.verdict == "noise" and found.reasons, found


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("kitchen", "'kitchen' (nearest "),
        ("go to the veranda", "'veranda' (nearest "),
        ("turn left at the xylophone", "'xylophone' (nearest "),
        ("go through the door unless it is red", "a condition that it cannot check ('unless')"),
        ("stop if the door is closed", "a condition that it cannot check ('if')"),
        ("wait until someone opens the door", "a condition that it cannot check ('until someone"),
        ("go to either the sofa or the bed", "a choice ('either')"),
        ("go to the sofa or the bed", "a choice ('or')"),
        ("go past every chair without touching it", "a negation that it was not taught"),
        ("walk 3 metres forward", "a length, angle or time ('3 metres')"),
        ("turn left ninety degrees", "a length, angle or time ('ninety degrees')"),
        ("wait for a few seconds then go left", "a length, angle or time ('a few seconds')"),
        ("go to room 12", "a number ('12')"),
        ("go up the stairs and turn left", "another floor ('up the stairs')"),
        ("follow me through the door", "somebody to mind ('follow me')"),
        ("open the door and go in", "something other than moving ('open the')"),
        ("go through each door twice", "a repetition"),
    ],
)
def test_what_may_not_be_understood_is_named(vocabulary, text, named):
    found = understanding(text, vocabulary)
    assert found.verdict == "doubtful", found
    assert any(named in reason for reason in found.reasons), found.reasons


def test_one_strange_word_among_many_is_no_doubt(vocabulary):
    text = "Turn left, walk past the xylophone and the lamp, enter the door and stop at the bed."
    found = understanding(text, vocabulary)
    assert found.verdict == "understood"
    assert [(u.word, u.far) for u in found.unknown] == [("xylophone", True)]


def test_checkpoints_that_do_not_say_what_they_were_taught_with_understand_everything():
    for text in ("asdf", "走到门口", "turn left unless it rains"):
        assert understanding(text, None).verdict == "understood"


def test_a_vocabulary_is_read_where_words_and_vectors_are_written_down(tmp_path):
    shutil.copytree(TINY, tmp_path, dirs_exist_ok=True)
    assert Vocabulary.load(tmp_path) is None
    (tmp_path / "words.json").write_text(json.dumps(TRAINED))
    found = Vocabulary.load(tmp_path)
    assert found is not None and found.knows("lamps") and not found.knows("xylophone")
    (tmp_path / "words.safetensors").unlink()
    assert Vocabulary.load(tmp_path) is None
    (tmp_path / "words.json").write_text("[")
    with pytest.raises(InputError, match="no JSON"):
        Vocabulary.load(tmp_path)


def test_slips_that_training_said_are_no_words(vocabulary):
    assert "slpi" not in vocabulary.trained and "lamp" in vocabulary.trained


# ---- words that training never said


def placed(tokenizer, vectors):
    """Vectors of all tokens where only some words have one."""
    rows = np.zeros((len(tokenizer), 2), np.float32)
    for word, vector in vectors.items():
        rows[tokenizer.encode(word, add_special_tokens=False)[0]] = vector
    return rows


def test_unknown_words_are_named_with_the_nearest_known_one(tokenizer):
    rows = placed(tokenizer, {"sofa": (1, 0), "lamp": (0, 1), "couch": (0.8, 0.6)})
    vocabulary = Vocabulary(tokenizer, rows, ("go", "to", "the", "sofa", "lamp"))
    found = vocabulary.unknown(vocabulary.read("Go to the COUCH, the couhc and the sofa"))
    assert [(word.word, word.nearest) for word in found] == [("couch", "sofa"), ("and", "go")]
    assert found[0].similarity == pytest.approx(0.8) and found[1].similarity == 0


def test_a_word_of_several_tokens_is_as_near_as_their_mean_and_far_whatever_that_is(tokenizer):
    ids = tokenizer.encode("qzx", add_special_tokens=False)
    rows = placed(tokenizer, {"lamp": (1, 0)})
    rows[ids] = [(1, 0), (0, 1), (0, 1)]
    (word,) = Vocabulary(tokenizer, rows, ("lamp",)).unknown("qzx")
    assert len(ids) == 3 and word.similarity == pytest.approx(1 / 5**0.5) and word.far
    rows[ids] = (1, 0)
    (word,) = Vocabulary(tokenizer, rows, ("lamp",)).unknown("qzx")
    assert word.similarity == pytest.approx(1) and word.far


def test_vectors_may_be_those_of_the_last_ids_alone_and_what_has_none_is_near_nothing(tokenizer):
    rows = placed(tokenizer, {"lamp": (1, 0), "lantern": (3, 4)})[50:]
    found = Vocabulary(tokenizer, rows, ("lamp",)).unknown("lantern 走")
    assert {word.word: word.similarity for word in found} == {
        "lantern": pytest.approx(0.6),
        "走": 0,
    }
