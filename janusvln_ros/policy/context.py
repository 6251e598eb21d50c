"""
What the language model has in its context at a step: the two modes of memory, with one interface.

`ReleasedContext` reads, at every step, a prompt of at most ``num_history + 1`` pictures anew, as
the published code does. `DualContext` reads every frame once and keeps what it understood. Both
are given a frame's appearance and geometry, and return the hidden states that score the answer;
both change what they remember only in ``commit``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from janusvln_ros.actions import Action
from janusvln_ros.errors import require
from janusvln_ros.model import JanusVLN
from janusvln_ros.model.attention import tree_mask
from janusvln_ros.model.dual import (
    FrameLayout,
    SemanticMemory,
    read_answer,
    read_frame,
    read_prompt,
)
from janusvln_ros.model.footprint import FEATURE_FRAMES, PROMPT_TOKENS
from janusvln_ros.model.network import KeyValueCache, prompt_positions
from janusvln_ros.policy.decoding import ActionTree, require_finite
from janusvln_ros.policy.prompt import (
    Style,
    dual_prefix_ids,
    executed_ids,
    frame_ids,
    leaf_ids,
    released_prompt_ids,
    sample_history,
)


@dataclass(frozen=True)
class EncodedFrame:
    """
    A frame after both encoders.

    Attributes:
        vision_MD: what is there.
        geometry_MD: where it is, in the language model's space.
        spatial_PD: the spatial encoder's tokens, special tokens first.
        grid: rows and columns of merge groups, M together.
        executed: the action that led to this frame; None before the first one or where nobody
            knows. It only matters to a `DualContext` whose checkpoint remembers actions.
    """

    vision_MD: Tensor
    geometry_MD: Tensor
    spatial_PD: Tensor
    grid: tuple[int, int]
    executed: Action | None


@dataclass(frozen=True)
class _Prompt:
    """A prompt of the released mode, as ids and on the device, and the position behind it."""

    ids: list[int]
    ids_L: Tensor
    positions_3L: Tensor
    end: int


class ReleasedContext:
    """
    The published way: history frames sampled evenly, all of them read again with the geometry of
    the current one.

    What the vision tower says of a frame never changes and is kept. On a GPU it is kept in the
    host's memory, so that the device's does not depend on the length of the episode; nine pictures
    travel at each step.
    """

    def __init__(
        self,
        model: JanusVLN,
        tokenizer: PreTrainedTokenizerBase,
        tree: ActionTree | None,
        style: Style,
    ) -> None:
        self.model, self.tokenizer, self.tree, self.style = model, tokenizer, tree, style
        self.seen = 0
        self.most_text: int | None = None  # tokens of a prompt beside its pictures
        self.instruction = ""
        self.prompt: Sequence[int] = ()
        self.features_FMD: Tensor | None = None
        self.cache: KeyValueCache | None = None
        self._prompts: dict[tuple[int, tuple[int, int]], _Prompt] = {}
        self._begun = False
        self._end = 0

    @property
    def frames(self) -> list[int]:
        """Numbers of the earlier frames that the next step will see, ascending."""
        return sample_history(self.seen + 1, self.model.config.navigation.num_history)[:-1]

    @property
    def nbytes(self) -> int:
        """Bytes of what is remembered."""
        return sum(held.nbytes for held in (self.features_FMD, self.cache) if held is not None)

    def begin(self, instruction: str) -> None:
        """A new episode. Raises InputError, and forgets nothing, if the text cannot be used."""
        ids = released_prompt_ids(self.tokenizer, instruction, 1, 1, self.style)
        check_context(self.model, len(ids), self.tree)
        check_reserved(len(ids), self.most_text)
        self.instruction = instruction
        self.seen = 0
        self._begun = False
        self._prompts.clear()

    def observe(self, frame: EncodedFrame) -> None:
        """Read the current frame without a question: only its appearance is kept."""
        self._keep(frame.vision_MD)

    def _keep(self, vision_MD: Tensor) -> Tensor:
        """The features of all frames, the current one's behind those before."""
        kept = self.features_FMD
        if kept is None or (self.seen == 0 and kept.shape[1:] != vision_MD.shape):
            # Filled, not only reserved, so that memory does not grow while an episode is driven.
            kept = torch.full(
                (FEATURE_FRAMES, *vision_MD.shape),
                0.0,
                dtype=vision_MD.dtype,
                pin_memory=vision_MD.device.type == "cuda",
            )
        elif self.seen == len(kept):
            kept = torch.cat([kept, kept])
        kept[self.seen] = vision_MD
        self.features_FMD = kept
        return kept

    def read(self, frame: EncodedFrame) -> Tensor:
        """
        Read the current frame and the question; hidden states [1 + T, D] of the question's last
        row and of the T tokens of the tree of answers, where there is one.
        """
        model, tree, device = self.model, self.tree, frame.vision_MD.device
        indices = [*self.frames, self.seen]
        # Asked first, as it may refuse the instruction; whether the longest prompt fits is known
        # at the first frame.
        prompt = self._prompt_of(len(indices), frame.grid)
        longest = self._prompt_of(model.config.navigation.num_history + 1, frame.grid)
        pictures_FMD = self._keep(frame.vision_MD)[indices].to(device, non_blocking=True)
        fused_FMD = model.fuse(pictures_FMD, frame.geometry_MD)
        embeds_LD = model.embed(prompt.ids_L, fused_FMD.flatten(0, 1))

        self.prompt, self._end, positions_3L = prompt.ids, prompt.end, prompt.positions_3L
        pictures = (model.config.navigation.num_history + 1) * (len(frame.vision_MD) + 2)
        rows = max(len(longest.ids), PROMPT_TOKENS + pictures) + answer_rows(model, tree)
        if self.cache is None or self.cache.capacity < rows:
            self._begun = False
            self.cache = KeyValueCache(model.config.text, rows, model.dtype, model.device)
        cache = self.cache
        cache.begin = start = prompt.ids.index(model.config.image_token_id)
        # what stands before the first picture is the same at every step: read once
        if not self._begun:
            cache.begin = 0
            model.read_last(embeds_LD[:start], positions_3L[:, :start], cache)
            require_finite(cache.v_ZNKH[:, :, :start], "the prompt's values in the language model")
            self._begun = True
        hidden_1D = model.read_last(embeds_LD[start:], positions_3L[:, start:], cache)
        if not tree or not tree.tokens:
            return hidden_1D
        branches_TD = model.language.embed_tokens(torch.tensor(tree.tokens, device=device))
        positions_3T = (self._end + torch.tensor(tree.depths, device=device)).expand(3, -1)
        prompt_TL = torch.ones(len(tree.tokens), len(prompt.ids), dtype=torch.bool)
        visible_TK = torch.cat([prompt_TL, tree_mask(tree.parents)], dim=1).to(device)
        return torch.cat([hidden_1D, model.read(branches_TD, positions_3T, cache, visible_TK)])

    def _prompt_of(self, images: int, grid: tuple[int, int]) -> _Prompt:
        """The prompt with so many images; the same ones come at every step."""
        if (images, grid) not in self._prompts:
            model, tokens = self.model, grid[0] * grid[1]
            ids = released_prompt_ids(self.tokenizer, self.instruction, images, tokens, self.style)
            positions_3L, end = prompt_positions(ids, model.config.image_token_id, *grid)
            check_context(model, end, self.tree)
            ids_L = torch.tensor(ids, device=model.device)
            self._prompts[images, grid] = _Prompt(ids, ids_L, positions_3L.to(model.device), end)
        return self._prompts[images, grid]

    def answer(self, token: int) -> Tensor:
        """Read one more token of the answer; the hidden state [1, D] that scores the next."""
        assert self.cache is not None
        device = self.model.device
        embed_1D = self.model.language.embed_tokens(torch.tensor([token], device=device))
        position = self._end + self.cache.begin - len(self.prompt)
        position_31 = torch.full((3, 1), position, device=device)
        hidden_1D = self.model.read(embed_1D, position_31, self.cache)
        self.cache.begin += 1
        return hidden_1D

    def commit(self) -> None:
        """Remember the frame that was read last."""
        self.seen += 1

    def skip_to(self, seen: int) -> None:
        """Go on as if so many frames had been remembered, whatever they were."""
        self.seen = min(seen, FEATURE_FRAMES - 1)


class DualContext:
    """
    The paper's way: each frame is read once, with its own geometry, and remembered; see
    `janusvln_ros.model.dual`.

    With ``navigation.action_memory = "executed"`` the executed action stands before each frame, in
    the memory.
    """

    def __init__(
        self,
        model: JanusVLN,
        tokenizer: PreTrainedTokenizerBase,
        tree: ActionTree | None,
        cuda_graphs: bool = False,
    ) -> None:
        self.model, self.tokenizer, self.tree = model, tokenizer, tree
        self.cuda_graphs = cuda_graphs
        self.question = leaf_ids(tokenizer)
        self.memory: SemanticMemory | None = None
        self.most_text: int | None = None  # as of `ReleasedContext`
        self.prompt: Sequence[int] = ()
        self._begun = False

    @property
    def frames(self) -> list[int]:
        """Numbers of the earlier frames that the next step will see, ascending."""
        return self.memory.frames if self.memory and self._begun else []

    @property
    def nbytes(self) -> int:
        """Bytes of what is remembered."""
        return self.memory.nbytes if self.memory else 0

    def begin(self, instruction: str) -> None:
        """As `ReleasedContext.begin`; the prompt is read with the first frame."""
        ids = dual_prefix_ids(self.tokenizer, instruction)
        check_context(self.model, len(ids) + len(self.question), self.tree)
        check_reserved(len(ids), self.most_text)
        self.prompt, self._begun = ids, False

    def read(self, frame: EncodedFrame) -> Tensor:
        """As `ReleasedContext.read`."""
        branches = (self.tree.tokens, self.tree.parents, self.tree.depths) if self.tree else ()
        return self._read(frame, self.question, *branches)

    def observe(self, frame: EncodedFrame) -> None:
        """As `ReleasedContext.observe`."""
        self._read(frame)
        assert self.memory is not None
        begin = self.memory.remembered_rows  # no scores will tell
        values = self.memory.v_ZNKH[:, :, begin : begin + self.memory.layout.rows]
        require_finite(values, "the frame's values in the language model")

    def _read(self, frame: EncodedFrame, *question: Sequence[int]) -> Tensor:
        model, memory = self.model, self.memory
        remembers = model.config.navigation.action_memory == "executed"
        before = executed_ids(self.tokenizer, frame.executed) if remembers else []
        layout = FrameLayout(*frame.grid, before=len(before))
        if memory is None or (memory.layout != layout and not (self._begun and memory.seen)):
            self._begun = False
            self.memory = memory = SemanticMemory(
                model.config.text,
                model.config.navigation.semantic_window,
                layout,
                len(self.question) + answer_rows(model, self.tree),
                PROMPT_TOKENS,
                dtype=model.dtype,
                device=model.device,
                cuda_graphs=self.cuda_graphs,
            )
        if not self._begun:
            read_prompt(model.language, memory, self.prompt)
            values = memory.v_ZNKH[:, :, : memory.prompt_rows]
            require_finite(values, "the instruction's values in the language model")
            self._begun = True
        ids = [*before, *frame_ids(self.tokenizer, len(frame.vision_MD))]
        fused_MD = model.fuse(frame.vision_MD, frame.geometry_MD)
        return read_frame(model.language, memory, ids, fused_MD, *question)

    def answer(self, token: int) -> Tensor:
        """As `ReleasedContext.answer`."""
        assert self.memory is not None
        return read_answer(self.model.language, self.memory, token)

    def commit(self) -> None:
        """As `ReleasedContext.commit`."""
        assert self.memory is not None
        self.memory.commit()

    def skip_to(self, seen: int) -> None:
        """As `ReleasedContext.skip_to`."""
        assert self.memory is not None
        self.memory.seen = seen


Context = ReleasedContext | DualContext


def answer_rows(model: JanusVLN, tree: ActionTree | None) -> int:
    """Most tokens that are read behind the question: the longest answer, or the tree of all."""
    return len(tree.tokens) if tree else model.config.navigation.max_new_tokens


def check_context(model: JanusVLN, positions: int, tree: ActionTree | None) -> None:
    """
    Raise InputError if a prompt of so many positions and its answer go beyond what the language
    model was made for.
    """
    limit, answer = model.config.text.max_position_embeddings, answer_rows(model, tree)
    require(
        positions + answer <= limit,
        f"the instruction makes a prompt of {positions} positions and {answer} for the answer, "
        f"the language model takes {limit}: shorten it",
    )


def check_reserved(tokens: int, most: int | None) -> None:
    """Raise InputError if a prompt has more tokens than were set aside for it."""
    require(
        most is None or tokens <= most,
        f"the instruction makes a prompt of {tokens} tokens, and {most} are set aside: shorten it",
    )
