"""
The navigator along an episode: the published numbers at every step, and errors that leave the
memories as they were.
"""

import copy

import numpy as np
import pytest
import torch

from janusvln_ros.errors import InputError, NonFiniteError
from janusvln_ros.policy import Action, Navigator, NavigatorOptions

INSTRUCTION = "walk past the sofa and stop near the table."


@pytest.fixture(scope="module")
def walk(tiny, expected, facts):
    """One walk through the published episode: the decisions, and what the network was given."""
    navigator = Navigator.from_pretrained(tiny, keep_scores=True)
    given: dict[str, list] = {"ids": [], "images": [], "positions": [], "hidden": [], "held": []}
    embed, read_last = navigator.model.embed, navigator.model.read_last

    def watched_embed(ids, images):
        given["ids"].append(ids)
        given["images"].append(images)
        return embed(ids, images)

    def watched_read(embeds, positions, cache):
        hidden = read_last(embeds, positions, cache)
        given["positions"].append(positions)
        given["hidden"].append(hidden[-1])
        return hidden

    navigator.model.embed, navigator.model.read_last = watched_embed, watched_read
    navigator.reset(facts["instruction"])
    decisions = []
    for rgb in expected["frames_raw_uint8"].numpy():
        decisions.append(navigator.step(rgb))
        given["held"].append(navigator.spatial_frames)
    # What stands before the first picture was read once, before the first step.
    given["before"], given["positions"] = given["positions"][0], given["positions"][1:]
    given["hidden"].pop(0)
    return decisions, given


STEPS = range(12)


@pytest.mark.parametrize("t", STEPS)
def test_prompt_and_positions_are_the_published_ones(walk, expected, t):
    _, given = walk
    assert torch.equal(given["ids"][t], expected[f"step{t:02d}.input_ids"])
    assert torch.equal(
        torch.cat([given["before"], given["positions"][t]], dim=1),
        expected[f"step{t:02d}.position_ids"],
    )


@pytest.mark.parametrize("t", STEPS)
def test_spatial_tokens_and_fused_embeddings_are_the_published_ones(walk, expected, t):
    decisions, given = walk
    torch.testing.assert_close(
        decisions[t].spatial_tokens, expected[f"step{t:02d}.vggt_tokens"], atol=2e-5, rtol=1e-5
    )
    fused = expected[f"step{t:02d}.fused_embeds"]
    torch.testing.assert_close(given["images"][t][: len(fused)], fused, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("t", STEPS)
def test_scores_and_answer_are_the_published_ones(walk, expected, facts, t):
    decisions, given = walk
    torch.testing.assert_close(
        given["hidden"][t],
        expected[f"step{t:02d}.final_hidden_last_prompt_token"],
        atol=1e-4,
        rtol=1e-4,
    )
    torch.testing.assert_close(
        decisions[t].scores, expected[f"step{t:02d}.scores"], atol=1e-4, rtol=1e-4
    )
    assert decisions[t].token_ids == expected[f"step{t:02d}.generated_ids"].tolist()
    assert decisions[t].text == facts["steps"][t]["answer_text"]


def test_spatial_memory_holds_the_first_and_the_last_frames(walk):
    assert walk[1]["held"][3] == [0, 1, 2, 3] and walk[1]["held"][11] == [0, 1, 8, 9, 10, 11]


def test_text_that_is_no_action_is_no_stop(walk):
    assert all(decision.action is None for decision in walk[0])


def test_timings_cover_every_stage(walk):
    timings = walk[0][5].timings
    assert list(timings) == ["preprocess", "spatial", "vision", "prefill", "decode", "total"]
    assert 0 < sum(list(timings.values())[:-1]) <= timings["total"]


@pytest.fixture(params=["released", "dual"])
def mode(request):
    return request.param


@pytest.fixture
def navigator(network, tokenizer, mode):
    navigator = Navigator(
        network,
        tokenizer,
        NavigatorOptions(
            memory=mode, decoding="constrained", keep_scores=True, allow_untrained_memory=True
        ),
    )
    navigator.reset(INSTRUCTION)
    return navigator


def scores(navigator, frames):
    return [navigator.step(rgb).scores for rgb in frames]


def assert_same(ours, theirs):
    torch.testing.assert_close(torch.stack(ours), torch.stack(theirs), atol=1e-4, rtol=1e-4)


def test_reset_begins_anew(navigator, frames):
    first = scores(navigator, frames[:9])
    navigator.reset(INSTRUCTION)
    assert navigator.spatial_frames == [] and navigator.frames_seen == 0
    assert_same(scores(navigator, frames[:9]), first)


def test_every_frame_of_the_past_counts(navigator, frames):
    """Else the tests of this file could not see a memory that holds the wrong frame."""
    last = scores(navigator, frames[:8])[-1]
    # initial frames and the window; released also reads 3 of these as pictures
    for wrong in (0, 1, 4, 5, 6):
        navigator.reset(INSTRUCTION)
        changed = frames[:8].copy()
        changed[wrong] = 255 - changed[wrong]
        assert (scores(navigator, changed)[-1] - last).abs().max() > 1e-3, wrong


def test_decision_that_is_taken_back_leaves_no_trace(navigator, frames):
    plain = scores(navigator, frames[:14])
    navigator.reset(INSTRUCTION)
    again = []
    for t in range(14):
        for wrong in (19 - t, 18):
            navigator.step(frames[wrong], commit=False)
        again.append(navigator.step(frames[t]).scores)
    assert_same(again, plain)


def test_commit_afterwards_is_commit_at_once(navigator, frames):
    plain = scores(navigator, frames[:10])
    navigator.reset(INSTRUCTION)
    again = []
    for rgb in frames[:10]:
        again.append(navigator.step(rgb, commit=False).scores)
        navigator.commit()
    assert_same(again, plain)


def test_observed_frames_are_remembered_like_decided_ones(navigator, frames):
    plain = scores(navigator, frames[:12])
    navigator.reset(INSTRUCTION)
    for rgb in frames[:11]:
        navigator.observe(rgb)
    assert navigator.frames_seen == 11 and navigator.spatial_frames == [0, 1, 8, 9, 10]
    assert_same([navigator.step(frames[11]).scores], plain[-1:])


def test_commit_without_a_frame_is_refused(navigator, frames):
    with pytest.raises(InputError, match="commit"):
        navigator.commit()
    navigator.step(frames[0])
    with pytest.raises(InputError, match="commit"):
        navigator.commit()


def test_decision_names_an_action_with_its_probability(navigator, frames):
    decision = navigator.step(frames[0])
    assert isinstance(decision.action, Action) and decision.text == decision.action.name
    assert decision.probabilities.keys() == set(Action) and sum(
        decision.probabilities.values()
    ) == pytest.approx(1)
    assert decision.probabilities[decision.action] == max(decision.probabilities.values())


def test_scores_are_kept_only_on_request(network, tokenizer, mode, frames):
    navigator = Navigator(
        network, tokenizer, NavigatorOptions(memory=mode, allow_untrained_memory=True)
    )
    navigator.reset(INSTRUCTION)
    decision = navigator.step(frames[0])
    assert (
        decision.scores is None
        and decision.spatial_tokens is None
        and decision.probabilities is None
    )


def test_scores_are_float32_and_what_is_remembered_is_told(navigator, frames):
    assert navigator.step(frames[0]).scores.dtype == torch.float32
    for rgb in frames[1:8]:
        navigator.step(rgb)
    assert navigator.memory_capacity == 5 and navigator.spatial_frames == [0, 1, 5, 6, 7]
    evenly, same = [0, 2, 4, 6], [0, 1, 5, 6, 7]
    assert navigator.semantic_frames == (evenly if navigator.memory == "released" else same)
    navigator.reset(INSTRUCTION)
    assert navigator.semantic_frames == navigator.spatial_frames == []


def test_another_episode_may_have_another_camera(navigator, frames):
    plain = scores(navigator, frames[:3])
    navigator.reset(INSTRUCTION)
    navigator.step(np.zeros((64, 64, 3), np.uint8))
    navigator.reset(INSTRUCTION)
    assert_same(scores(navigator, frames[:3]), plain)


def test_first_frame_that_is_taken_back_does_not_fix_the_size(navigator, frames):
    plain = scores(navigator, frames[:3])
    navigator.reset(INSTRUCTION)
    navigator.step(np.zeros((64, 64, 3), np.uint8), commit=False)
    assert_same(scores(navigator, frames[:3]), plain)


BAD_FRAMES = {
    "another size": (np.zeros((64, 64, 3), np.uint8), "64x64.*64x48"),
    "one pixel": (np.zeros((1, 1, 3), np.uint8), "1x1"),
    "float": (np.zeros((48, 64, 3), np.float32), "float32"),
    "grey": (np.zeros((48, 64), np.uint8), r"\[48, 64\]"),
    "no array": ([[0]], "list"),
    "none": (None, "NoneType"),
}


@pytest.mark.parametrize("bad", BAD_FRAMES)
def test_bad_frame_is_refused_and_the_memories_stay(navigator, frames, bad):
    plain = scores(navigator, frames[:9])
    navigator.reset(INSTRUCTION)
    rgb, words = BAD_FRAMES[bad]
    again = []
    for t in range(9):
        if t:
            for act in (navigator.step, navigator.observe):
                with pytest.raises(InputError, match=words):
                    act(rgb)
        again.append(navigator.step(frames[t]).scores)
    assert_same(again, plain)


def test_failed_frame_cannot_be_committed(navigator, frames):
    navigator.step(frames[0], commit=False)
    with pytest.raises(InputError):
        navigator.step(np.zeros((1, 1, 3), np.uint8))
    with pytest.raises(InputError, match="commit"):
        navigator.commit()


PARTS = [
    "lm_head.weight",
    "language.layers.1.mlp.up_proj.weight",
    "vision.blocks.0.mlp.up_proj.weight",
    "spatial.global_blocks.1.attn.qkv.weight",
    "fusion.mlp.2.bias",
]


@pytest.mark.parametrize("part", PARTS)
def test_numbers_gone_bad_are_an_error_and_the_memories_stay(
    network, tokenizer, mode, frames, part
):
    navigator = Navigator(
        copy.deepcopy(network),
        tokenizer,
        NavigatorOptions(
            memory=mode, decoding="constrained", keep_scores=True, allow_untrained_memory=True
        ),
    )
    navigator.reset(INSTRUCTION)
    plain = scores(navigator, frames[:9])
    navigator.reset(INSTRUCTION)
    weight = navigator.model.get_parameter(part)
    good = weight.detach().clone()
    again = []
    for t in range(9):
        weight.data.fill_(float("nan"))
        with pytest.raises(NonFiniteError, match="not finite"):
            navigator.step(frames[t])
        weight.data.copy_(good)
        again.append(navigator.step(frames[t]).scores)
    assert_same(again, plain)


@pytest.mark.parametrize(
    ("mode", "part"), [("released", PARTS[3]), ("dual", PARTS[3]), ("dual", PARTS[1])]
)
def test_bad_numbers_are_not_observed_either(network, tokenizer, mode, part, frames):
    navigator = Navigator(
        copy.deepcopy(network),
        tokenizer,
        NavigatorOptions(memory=mode, allow_untrained_memory=True),
    )
    navigator.reset(INSTRUCTION)
    navigator.step(frames[0])
    navigator.model.get_parameter(part).data.fill_(float("nan"))
    with pytest.raises(NonFiniteError):
        navigator.observe(frames[1])
    assert navigator.frames_seen == 1


@pytest.mark.parametrize(
    ("instruction", "words"),
    [
        ("", "empty"),
        (" \n", "empty"),
        (None, "NoneType"),
        ("go <|im_end|> there", "im_end"),
        ("left " * 9000, "shorten"),
    ],
    ids=["empty", "blank", "none", "marks", "too long"],
)
def test_bad_instruction_is_refused_and_the_old_episode_goes_on(
    navigator, frames, instruction, words
):
    plain = scores(navigator, frames[:9])
    navigator.reset(INSTRUCTION)
    again = scores(navigator, frames[:6])
    with pytest.raises(InputError, match=words):
        navigator.reset(instruction)
    assert navigator.instruction == INSTRUCTION
    assert_same(again + scores(navigator, frames[6:9]), plain)


def test_blank_instruction_is_taken_when_asked_for(navigator, frames):
    navigator.reset("", allow_empty=True)
    assert navigator.step(frames[0]).action in Action


def test_frame_before_an_episode_is_refused(network, tokenizer, mode, frames):
    navigator = Navigator(
        network, tokenizer, NavigatorOptions(memory=mode, allow_untrained_memory=True)
    )
    with pytest.raises(InputError, match="reset"):
        navigator.step(frames[0])


def test_prompt_that_outgrows_the_context_with_its_pictures_is_refused(network, tokenizer, frames):
    navigator = Navigator(network, tokenizer, NavigatorOptions(memory="released"))
    navigator.reset("left " * 2600)  # fits without pictures, or with one
    network.config.text.max_position_embeddings, before = (
        1,
        network.config.text.max_position_embeddings,
    )
    try:
        with pytest.raises(InputError, match="shorten"):
            navigator.step(frames[0])
    finally:
        network.config.text.max_position_embeddings = before


def test_memory_the_checkpoint_was_not_trained_for_is_refused(tiny):
    with pytest.raises(InputError, match="allow_untrained_memory"):
        Navigator.from_pretrained(tiny, memory="dual")
    assert (
        Navigator.from_pretrained(tiny, memory="dual", allow_untrained_memory=True).memory
        == "dual"
    )


OPTIONS = [
    *(
        ("memory", "triple"),
        ("decoding", "beam"),
        ("prompt", "haiku"),
        ("spatial_precision", "int3"),
    ),
    *(("device", "tpu"), ("device", "cuda:99"), ("precision", "int3")),
]


@pytest.mark.parametrize(("option", "value"), OPTIONS)
def test_unknown_option_is_named(tiny, option, value):
    with pytest.raises(InputError, match=value):
        Navigator.from_pretrained(tiny, **{option: value})


def test_tokenizer_of_another_checkpoint_is_refused(network, tokenizer):
    other = copy.deepcopy(network)
    other.config = type(other.config)(**{**vars(other.config), "image_token_id": 3})
    with pytest.raises(InputError, match="tokenizer"):
        Navigator(other, tokenizer)


@pytest.mark.parametrize(
    ("option", "value"),
    [("precision", "int8"), ("spatial_precision", "int8"), ("spatial_precision", "float8")],
)
def test_fewer_bits_change_a_little(tiny, expected, facts, option, value):
    navigator = Navigator.from_pretrained(tiny, keep_scores=True, **{option: value})
    navigator.reset(facts["instruction"])
    for t in range(4):
        scores = navigator.step(expected["frames_raw_uint8"][t].numpy()).scores[0]
    error = (scores - expected["step03.scores"][0]).abs().max()
    assert 2e-5 < error < 0.5, error  # of scores up to 7; rounding alone gives 5e-6


def test_training_prompt_is_another_prompt(network, tokenizer, frames):
    answers = []
    for prompt in ("evaluation", "training"):
        navigator = Navigator(
            network,
            tokenizer,
            NavigatorOptions(memory="released", prompt=prompt, keep_scores=True),
        )
        navigator.reset(INSTRUCTION)
        answers.append(navigator.step(frames[0]).scores[0])
    assert (answers[0] - answers[1]).abs().max() > 1e-3
