"""Instructions said again: what a checkpoint brings along for it, and what the network is told."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from janusvln_ros.errors import InputError
from janusvln_ros.model.rephrase import MOST_WORDS, Rephraser, RephraserConfig
from janusvln_ros.policy import Navigator
from janusvln_ros.policy.identity import checkpoint_digest
from janusvln_ros.policy.rephrase import MOST_READ, UNSURE, Rephrasing, Said, sentences
from janusvln_ros.policy.tokenizer import load_tokenizer, load_word_vectors, read
from janusvln_ros.policy.understanding import Vocabulary

ROOT = Path(__file__).resolve().parents[2]
WORDS = ROOT / "config" / "model" / "tiny"
SHIPPED = ROOT / "janusvln_ros" / "checkpoints" / "janusvln-tiny"
SAYS = ["stop", "at", "the", "lamp", ",", ".", "turn", "left", "and"]


@pytest.fixture(scope="module")
def words():
    return load_tokenizer(WORDS)


def answers(words):
    return tuple(words.encode("<|im_end|>" + " ".join(SAYS), add_special_tokens=False))


class Answering(Rephraser):
    """Says what it is made to, whatever it is asked; its weights are of the right sizes."""

    def __init__(self, config, *said):
        super().__init__(config)
        self.said, self.asked = [config.answers.index(i) for i in said], []

    def scores(self, read_BLD, said_BT, padding_BL=None):
        k = said_BT.shape[1] - 1
        scores = torch.zeros(1, k + 1, len(self.config.answers))
        scores[0, -1, self.said[k] if k < len(self.said) else 0] = 1e3
        return scores


def config_of(words):
    return RephraserConfig(len(words), answers(words), 16, 2, 16, 1, 1)


@pytest.fixture
def folder(words, tmp_path):
    """A checkpoint's folder with a `rephrase` of random weights."""
    inner = tmp_path / "checkpoint" / "rephrase"
    inner.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "words.safetensors"):
        shutil.copy(WORDS / name, inner)
    (inner / "words.json").write_text('["stop", "lamp"]')
    torch.manual_seed(0)
    Rephraser(config_of(words)).write(inner)
    return inner.parent


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("stop at the lamp .", "Stop at the lamp."),
        ("turn left , stop . stop at the lamp .", "Turn left, stop. Stop at the lamp."),
        ("", ""),
    ],
)
def test_words_and_marks_become_sentences(tokens, text):
    assert sentences(tokens.split()) == text


def test_what_is_said_is_the_answer_up_to_its_end(words):
    said = words.encode("turn left and stop .", add_special_tokens=False)
    rephrasing = Rephrasing(Answering(config_of(words), *said), words)
    said = rephrasing.say("hang a left, would you?")
    assert said == Said("Turn left and stop.", pytest.approx(1.0)) and not said.doubts


def test_an_answer_without_an_end_is_cut_and_has_no_certainty(words):
    (stop,) = words.encode("stop", add_special_tokens=False)
    found, certainty = Answering(config_of(words), *[stop] * 500).answer([stop])
    assert (found, certainty) == ([stop] * MOST_WORDS, 0.0)


def test_where_nothing_is_read_or_said_the_instruction_stays(words):
    silent = Rephrasing(Answering(config_of(words)), words)
    assert silent.say("go to the lamp").text == "go to the lamp"
    assert silent.say("\u200b") == Said("\u200b", 0.0)


def test_a_text_longer_than_any_of_training_stays_as_it_is(words):
    (stop,) = words.encode("stop", add_special_tokens=False)
    rephrasing = Rephrasing(Answering(config_of(words), stop), words)
    assert rephrasing.say("go " * MOST_READ).text == "Stop"
    long = "go " * (MOST_READ + 1)
    assert rephrasing.say(long) == Said(long, 0.0) and rephrasing.say(long).doubts


def test_slips_and_case_are_mended_before_it_is_read(words):
    class Told(Answering):
        def read(self, ids_BL, padding_BL=None):
            self.asked.append(ids_BL[0].tolist())
            return super().read(ids_BL, padding_BL)

    network = Told(config_of(words))
    Rephrasing(network, words).say("TURN LEFFT")
    assert network.asked == [words.encode("turn left", add_special_tokens=False)]


def test_a_written_rephraser_answers_as_before(words, folder):
    network = Rephraser.load(folder / "rephrase")
    ids = words.encode(read(words, "go to the lamp"), add_special_tokens=False)
    network.write(folder / "rephrase")
    again = Rephraser.load(folder / "rephrase")
    assert again.answer(ids) == network.answer(ids)
    assert again.config == network.config == config_of(words)


def test_texts_of_a_batch_do_not_disturb_each_other(words, folder):
    network = Rephraser.load(folder / "rephrase")
    short, long = torch.tensor([[40, 50, 60]]), torch.tensor([[70, 80, 90, 40, 50]])
    said = torch.tensor([[network.begin, 1]])
    both = torch.cat([torch.nn.functional.pad(short, (0, 2)), long])
    padding = torch.tensor([[False] * 3 + [True] * 2, [False] * 5])
    together = network.scores(network.read(both, padding), said.expand(2, -1), padding)
    for i, ids in enumerate((short, long)):
        torch.testing.assert_close(together[i : i + 1], network.scores(network.read(ids), said))


def test_no_token_of_an_answer_knows_what_comes_after_it(words, folder):
    network = Rephraser.load(folder / "rephrase")
    seen = network.read(torch.tensor([[40, 50, 60]]))
    one = network.scores(seen, torch.tensor([[network.begin, 1, 2]]))
    other = network.scores(seen, torch.tensor([[network.begin, 1, 3]]))
    torch.testing.assert_close(one[:, :2], other[:, :2])
    assert not torch.allclose(one[:, 2], other[:, 2])


def test_a_checkpoint_with_another_rephraser_has_another_digest(folder):
    first = checkpoint_digest(folder)
    (folder / "rephrase" / "words.json").write_text('["stop", "lump"]')
    assert checkpoint_digest(folder) != first


def test_a_checkpoint_without_one_follows_instructions_as_they_are(tmp_path):
    assert Rephrasing.load(tmp_path) is None


def damage(folder, **values):
    path = folder / "rephrase" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"hidden_size": 10**9}, "hidden_size"),
        ({"encoder_layers": 10**5}, "encoder_layers"),
        ({"decoder_layers": 0}, "decoder_layers"),
        ({"num_heads": 3}, "num_heads"),
        ({"hidden_size": 32}, "embed_answers|embed_tokens|encoder|decoder|head"),
        ({"answers": []}, "answers"),
        ({"answers": [10**7]}, "answers"),
        ({"answers": "abc"}, "answers"),
        ({"vocab_size": 100}, "answers|embed_tokens"),
        ({"encoder_layers": 2}, "lacks the weights"),
        ({"wings": 2}, "wings"),
    ],
)
def test_settings_that_do_not_fit_are_named(folder, values, named):
    damage(folder, **values)
    with pytest.raises(InputError, match=named):
        Rephrasing.load(folder)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_or_damaged_file_is_named(folder, name):
    path = folder / "rephrase" / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="rephrase"):
        Rephrasing.load(folder)
    path.unlink()
    with pytest.raises(InputError, match="rephrase"):
        Rephrasing.load(folder)


def test_the_network_is_told_the_other_words_and_the_instruction_is_kept(
    network, tokenizer, words
):
    navigator = Navigator(network, tokenizer)
    said = words.encode("turn left and stop .", add_special_tokens=False)
    navigator.rephrasing = Rephrasing(Answering(config_of(words), *said), words)
    assert navigator.understand("hang a left").told == "Turn left and stop."
    navigator.reset("hang a left")
    assert (navigator.instruction, navigator.told) == ("hang a left", "Turn left and stop.")
    plain = Navigator(network, tokenizer)
    plain.reset("Turn left and stop.")
    assert navigator.context.instruction == plain.context.instruction
    navigator.reset("", allow_empty=True)
    assert navigator.told == ""


def test_what_can_be_put_in_several_ways_is_doubtful_and_noise_stays_noise(
    network, tokenizer, words
):
    class Unsure(Answering):
        def answer(self, ids):
            return super().answer(ids)[0], 0.9 * UNSURE

    navigator = Navigator(network, tokenizer)
    said = words.encode("stop .", add_special_tokens=False)
    navigator.rephrasing = Rephrasing(Unsure(config_of(words), *said), words)
    found = navigator.understand("halt somewhere")
    assert found.verdict == "doubtful" and "27 %: 'Stop.'" in found.reasons[0]
    navigator.vocabulary = Vocabulary(words, load_word_vectors(WORDS), ("stop", "lamp"))
    assert navigator.understand("asdf").verdict == "noise"


def test_a_navigator_without_one_tells_the_network_what_it_was_told(network, tokenizer):
    navigator = Navigator(network, tokenizer)
    navigator.reset("hang a left")
    assert navigator.told == navigator.instruction == "hang a left"
    assert navigator.understand("hang a left").told == ""


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        (
            "Turn around and walk to the thing with the colour of the room where you started.",
            "Turn around and stop at the thing with the colour of the room where you started.",
        ),
        # words that training does not say
        (
            "head through the door on your left into the emerald room and wait by the timepiece",
            "Turn left and go through the door into the green room. Stop at the clock.",
        ),
        ("Hang a left and wait at the ivory couch!", "Turn left and stop at the white sofa."),
    ],
)
def test_the_shipped_checkpoint_puts_plainly(said, plain):
    assert Rephrasing.load(SHIPPED).say(said).text == plain
