"""The navigator: an instruction and camera frames in, one action per frame out."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from janusvln_ros import __version__
from janusvln_ros.actions import Action
from janusvln_ros.errors import InputError, require
from janusvln_ros.files import git_state, unreplaced
from janusvln_ros.model import JanusVLN
from janusvln_ros.model.checkpoint import Generation, end_tokens, find, generation
from janusvln_ros.model.config import Decoding, JanusVLNConfig, Memory
from janusvln_ros.model.footprint import AUTO, PROMPT_TOKENS
from janusvln_ros.model.memory import FrameWindow, SpatialMemory, SpatialPrecision
from janusvln_ros.model.network import MERGE
from janusvln_ros.model.quantization import load_network
from janusvln_ros.model.recording import Recordings, cuda_graph
from janusvln_ros.policy.context import Context, DualContext, EncodedFrame, ReleasedContext
from janusvln_ros.policy.decoding import (
    action_tree,
    all_finite,
    most_probable,
    parse_action,
    repetition_penalty,
    require_all_finite,
)
from janusvln_ros.policy.fit import CAMERA, Fit, fit
from janusvln_ros.policy.identity import checkpoint_digest
from janusvln_ros.policy.instruction import clean_instruction
from janusvln_ros.policy.picture import PicturePath
from janusvln_ros.policy.preprocess import GROUP, to_rgb
from janusvln_ros.policy.prompt import Style
from janusvln_ros.policy.rephrase import Rephrasing
from janusvln_ros.policy.tokenizer import load_tokenizer
from janusvln_ros.policy.understanding import Understanding, Vocabulary, understanding

SCORES = "the language model's scores"


@dataclass(frozen=True)
class Decision:
    """
    The answer to one frame, and how it came about.

    Attributes:
        action: what to do, or None where the text is no action: "did not understand" is not
            "arrived".
        text: the answer as text, special tokens left out.
        token_ids: the answer's tokens, the end token included if it was generated.
        scores: float32 [n_generated, vocabulary] after repetition penalty, on the CPU; None unless
            asked for. In constrained decoding one row for each place where the action words part.
        probabilities: of the four actions, summing to 1; None in free decoding.
        timings: seconds spent in ``preprocess``, ``spatial``, ``vision``, ``prefill``, ``decode``,
            and ``total``.
        spatial_tokens: float32 [P, 2D] of this frame, special tokens first, on the CPU; None
            unless asked for.
    """

    action: Action | None
    text: str
    token_ids: list[int]
    scores: Tensor | None = None
    probabilities: Mapping[Action, float] | None = None
    timings: Mapping[str, float] = field(default_factory=dict)
    spatial_tokens: Tensor | None = None


@dataclass(frozen=True)
class NavigatorOptions:
    """
    How a network is used.

    Attributes:
        memory: ``released`` or ``dual``; the one the checkpoint was trained for if None.
        decoding: ``free`` or ``constrained``; the one the checkpoint was trained for if None.
        prompt: which of the two published prompts (``released`` only).
        keep_scores: keep scores and spatial tokens in every `Decision`.
        allow_untrained_memory: accept a ``memory`` that the checkpoint was not trained for.
        spatial_precision: ``int8`` or ``float8`` keeps the spatial memory in one byte a number;
            the weights' dtype if None.
        cuda_graphs: on a GPU: replay the step from recordings once it is the same work at every
            frame, that is, once the window is full.

    Raises:
        InputError: an unknown mode.
    """

    memory: Memory | None = None
    decoding: Decoding | None = None
    prompt: Style = "evaluation"
    keep_scores: bool = False
    allow_untrained_memory: bool = False
    spatial_precision: SpatialPrecision | None = None
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        for name, value, choices in (
            ("memory", self.memory, get_args(Memory)),
            ("decoding", self.decoding, get_args(Decoding)),
            ("prompt", self.prompt, get_args(Style)),
            ("spatial_precision", self.spatial_precision, (None, *get_args(SpatialPrecision))),
        ):
            require(
                value is None or value in choices,
                f"{name} is {value!r}: choose {' or '.join(map(str, choices))}",
            )


class Navigator:
    """
    Follows one instruction at a time: ``reset(instruction)``, then ``step(frame)`` for every
    frame.

    Both memories have a fixed size and belong to the episode. A step changes them only when it is
    committed, as the last thing it does: one that fails, or is taken back, leaves them as they
    were.

    Not thread-safe: one thread owns a navigator.

    Args:
        model: the network, in evaluation mode.
        tokenizer: of the same checkpoint.
        options: how they are used.
        generation: end tokens and repetition penalty; the end token of the config and no penalty
            if None.

    Attributes:
        memory, decoding: the modes in use.
        context: what the language model reads and remembers.
        spatial: the spatial memory; None before the first frame.
        tree: of the four action words, in constrained decoding.
        instruction: the one being followed; None before the first `reset`.
        told: the same as the network is told it, in other words where the checkpoint rephrases.
        origin: name and digest of the checkpoint, where there is one.
        vocabulary: the words that it was taught with, where it says so.
        rephrasing: says instructions in the sentences that it was taught with; None: they are
            followed as they are.
        fit: the precisions and the window in use and what they take, where they were chosen by
            `from_pretrained`.

    Raises:
        InputError: a ``memory`` that the checkpoint was not trained for, or a tokenizer of another
            checkpoint.
    """

    def __init__(
        self,
        model: JanusVLN,
        tokenizer: PreTrainedTokenizerBase,
        options: NavigatorOptions = NavigatorOptions(),
        generation: Generation | None = None,
    ) -> None:
        config, navigation = model.config, model.config.navigation
        self.model, self.tokenizer, self.options = model, tokenizer, options
        self.memory: Memory = options.memory or navigation.memory
        self.decoding: Decoding = options.decoding or navigation.decoding
        self.generation = generation or Generation(end_tokens(config))
        require(
            self.memory == "released"
            or navigation.memory == "dual"
            or options.allow_untrained_memory,
            "memory is 'dual', but this checkpoint was trained for 'released' and "
            "would answer at random: "
            "use memory='released', train one for dual, or pass "
            "allow_untrained_memory=True to measure it anyway",
        )
        pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        require(
            pad == config.image_token_id and len(tokenizer) <= config.text.vocab_size,
            f"the tokenizer ({len(tokenizer)} tokens, image token {pad}) does not "
            f"fit the network ({config.text.vocab_size}, {config.image_token_id}): "
            "take both from one checkpoint",
        )
        self.tree = action_tree(tokenizer) if self.decoding == "constrained" else None
        on_gpu = model.device.type == "cuda"
        self.recordings = Recordings(cuda_graph if options.cuda_graphs and on_gpu else None)
        self.context: Context
        if self.memory == "dual":
            self.context = DualContext(model, tokenizer, self.tree, self.recordings)
        else:
            self.context = ReleasedContext(
                model, tokenizer, self.tree, options.prompt, self.recordings
            )
        self.pictures = PicturePath(navigation.image_width, model.device)
        self.spatial: SpatialMemory | None = None
        self._decided: Action | None = None  # about the frame read last
        self._led_here: Action | None = None  # what was decided about the frame remembered last
        self._frame_size: tuple[int, ...] = ()  # width and height of the episode's raw frames
        self.instruction: str | None = None
        self.told: str | None = None
        self.origin: dict[str, str] = {}
        self.vocabulary: Vocabulary | None = None
        self.rephrasing: Rephrasing | None = None
        self.fit: Fit | None = None
        self._reserved = 0  # spatial tokens of the largest frame there is room for
        self._pending = False

    @classmethod
    def from_pretrained(
        cls,
        checkpoint: str | Path,
        *,
        device: str | torch.device = "cpu",
        precision: str = AUTO,
        spatial_precision: str | None = None,
        window: tuple[int, int] | None = None,
        size: tuple[int, int] = CAMERA,
        **options: Any,
    ) -> "Navigator":
        """
        Read network, tokenizer and generation settings of a checkpoint, if it fits.

        Args:
            checkpoint: a folder, or ``owner/name@revision`` of the hub.
            device: "cpu", "cuda", "cuda:1" ...
            precision: of the weights: float32, bfloat16, float16, or int8 or int4 for the language
                model's layers (`janusvln_ros.model.quantization`) and bfloat16 for the rest; auto:
                the most exact that fits, of float32, bfloat16, int8 and int4 on a CPU and of those
                from bfloat16 on elsewhere.
            spatial_precision: of the spatial memory: int8, float8, that of the weights if None;
                auto: int8 where that of the weights does not fit.
            window: first and last frames to remember; as config.json says if None.
            size: width and height of the camera's pictures, pixels; only their shape matters.
            options: the other fields of `NavigatorOptions`.

        Raises:
            InputError: a checkpoint, device or mode that cannot be used, or that does not fit into
                the memory that is free, of which nothing is then read; the message says what to
                do.
        """
        NavigatorOptions(**options)  # what is wrong there is said first
        target, folder = as_device(device), find(checkpoint)
        found = fit(
            JanusVLNConfig.from_pretrained(folder),
            target,
            precision=precision,
            spatial_precision=spatial_precision,
            window=FrameWindow(*window) if window is not None else None,
            memory=options.get("memory"),
            size=size,
        )
        chosen = NavigatorOptions(**options, spatial_precision=found.spatial_precision)
        with unreplaced(folder):
            tokenizer = load_tokenizer(folder)
            model = load_network(folder, found.use.precision, target, found.config)
            navigator = cls(model, tokenizer, chosen, generation(folder, model.config))
            navigator.fit = found
            name = folder.name if Path(checkpoint).is_dir() else str(checkpoint)
            navigator.origin = {"checkpoint": name, "checkpoint_digest": checkpoint_digest(folder)}
            navigator.vocabulary = Vocabulary.load(folder)
            navigator.rephrasing = Rephrasing.load(folder)
        return navigator

    def understand(self, instruction: str) -> Understanding:
        """
        Say whether the checkpoint can make sense of ``instruction``, and what the network would be
        told; `reset` takes any. May be called on any thread.
        """
        found = understanding(instruction, self.vocabulary)
        if self.rephrasing is None or not instruction.strip():
            return found
        said = self.rephrasing.say(instruction)
        if found.verdict != "noise" and said.doubts:
            found = replace(found, verdict="doubtful", reasons=found.reasons + said.doubts)
        return replace(found, told=said.text if said.text != instruction else "")

    @property
    def about(self) -> dict[str, str]:
        """What its decisions depend on beside words and frames, for the record of a drive."""
        kept = self.model.config.navigation.window
        own = str(self.model.dtype).removeprefix("torch.")
        return {
            **self.origin,
            "memory": self.memory,
            "window": f"{kept.initial} + {kept.window}",
            "decoding": self.decoding,
            "prompt": self.options.prompt if self.memory == "released" else "dual",
            "precision": self.fit.use.precision if self.fit else own,
            "spatial_precision": self.options.spatial_precision or own,
            "device": str(self.model.device),
            "version": __version__,
            "git": git_state(),
        }

    @property
    def trained(self) -> bool:
        """
        Whether the weights were trained, as the checkpoint says; random ones answer at random.
        """
        return self.model.config.navigation.trained

    @property
    def spatial_frames(self) -> list[int]:
        """
        Numbers of the frames in the spatial memory, ascending; frame 0 is the episode's first.
        """
        return self.spatial.frames if self.spatial else []

    @property
    def frames_seen(self) -> int:
        """Frames remembered or forgotten since `reset`."""
        return self.spatial.seen if self.spatial else 0

    @property
    def semantic_frames(self) -> list[int]:
        """
        Numbers of the frames that the language model remembers (``dual``) or will read again at
        the next step (``released``), ascending.
        """
        return self.context.frames

    @property
    def memory_capacity(self) -> int:
        """Most frames that the spatial memory holds."""
        return self.model.config.navigation.window.slots - 1

    @property
    def memory_bytes(self) -> int:
        """
        Bytes of all memories, those of the language model included: made at the first frame, the
        same from then on.
        """
        return (self.spatial.nbytes if self.spatial else 0) + self.context.nbytes

    def reset(self, instruction: str, *, allow_empty: bool = False) -> None:
        """
        Begin a new episode: both memories are emptied.

        Args:
            instruction: what to do, in words.
            allow_empty: accept a blank instruction, to measure what the words are good for.

        Raises:
            InputError: no text, a blank one, one with marks of the prompt, or one beyond the
                context; the old episode then goes on.
        """
        require(
            isinstance(instruction, str),
            f"the instruction is a {type(instruction).__name__}: give text",
        )
        if instruction.strip() or not allow_empty:
            instruction = clean_instruction(instruction)
        told = instruction
        if self.rephrasing is not None and instruction.strip():
            told = self.rephrasing.say(instruction).text
        self.context.begin(told)
        self.instruction, self.told = instruction, told
        self._led_here = None
        self._pending = False
        if self.spatial:
            self.spatial.reset()

    @torch.no_grad()
    def step(
        self,
        rgb: np.ndarray,
        *,
        commit: bool = True,
        executed: Action | None = None,
    ) -> Decision:
        """
        Look at the current frame and decide.

        Args:
            rgb: uint8 [H, W, 3]; all frames of an episode have one size.
            commit: remember the frame. With False the decision can be taken back: `commit`
                remembers it, the next step otherwise forgets it.
            executed: the action that led to this frame, if it is not the one decided last; matters
                only where ``navigation.action_memory`` is ``executed``.

        Raises:
            InputError: no episode, a frame that is none or has another size than the others; the
                memories stay as they were.
            NonFiniteError: weights or numbers went bad; the memories stay as they were.
        """
        clock = StageClock(self.model.device)
        frame, finite = self._encode(rgb, executed, clock)
        scores_RV = self._score(self.context.read(frame))
        clock.lap("prefill")
        # all that is asked of the device before it has decided
        require_all_finite({**finite, SCORES: all_finite(scores_RV)})
        decision = self._choose(scores_RV) if self.tree else self._write(scores_RV)
        clock.lap("decode")
        self._decided, self._pending = decision.action, True
        if commit:
            self.commit()
        timings = clock.timings()
        if self.options.keep_scores:
            return replace(decision, timings=timings, spatial_tokens=frame.spatial_PD.cpu())
        return replace(decision, timings=timings, scores=None)

    @torch.no_grad()
    def observe(self, rgb: np.ndarray, *, executed: Action | None = None) -> None:
        """
        Remember a frame without deciding, while somebody else drives: memories have no gaps.

        Args:
            rgb, executed: as `step`.

        Raises:
            InputError, NonFiniteError: as `step`.
        """
        frame, finite = self._encode(rgb, executed, StageClock(self.model.device))
        require_all_finite(finite)
        self.context.observe(frame)
        self._decided, self._pending = None, True
        self.commit()

    def commit(self) -> None:
        """
        Remember the frame of a ``step(rgb, commit=False)``.

        Raises:
            InputError: there is none.
        """
        require(self._pending, "there is no frame to remember: call step(rgb, commit=False) first")
        assert self.spatial
        self.spatial.commit()
        self.context.commit()
        self._pending = False
        self._led_here = self._decided

    def _encode(
        self, rgb: np.ndarray, executed: Action | None, clock: "StageClock"
    ) -> tuple[EncodedFrame, dict[str, Tensor]]:
        """
        Both encoders on the current frame; it is written beside what the spatial memory holds, and
        remembered by ``commit`` only. And whether what they say is finite, by its name.
        """
        require(
            self.instruction is not None, "there is no episode yet: call reset(instruction) first"
        )
        self._pending = False
        model, run = self.model, self.recordings.run
        rgb = to_rgb(rgb)
        now, was = ("x".join(map(str, size)) for size in (rgb.shape[1::-1], self._frame_size))
        require(
            not self.frames_seen or now == was,
            f"the frame is {now} pixels, the episode's others were {was}: "
            "reset() before changing the camera's size",
        )
        self._frame_size = rgb.shape[1::-1]
        prepare, given = self.pictures.prepare(rgb)
        image_3hw, pixels = run(prepare, *given, key=("picture", rgb.shape))
        height, width = image_3hw.shape[1:]
        grid = (height // GROUP, width // GROUP)
        require(
            len(pixels) == MERGE**2 * grid[0] * grid[1],
            f"navigation.image_width {width} gives the vision tower more "
            "pixels than it takes: choose a smaller one",
        )
        clock.lap("preprocess")
        memory = self._spatial_memory(height, width)

        def look(image_3hw: Tensor) -> tuple[Tensor, ...]:
            spatial_PD = model.spatial.encode_frame(image_3hw, memory)
            return spatial_PD, model.geometry(spatial_PD, height, width)

        spatial_PD, geometry_MD = run(
            look,
            image_3hw,
            key=("spatial", memory.k_BZNKH.data_ptr(), height, width),
            steady=memory.full,
        )
        clock.lap("spatial")
        grid_13 = torch.tensor([(1, MERGE * grid[0], MERGE * grid[1])])
        (vision_MD,) = run(
            lambda pixels: (model.encode_vision(pixels, grid_13),), pixels, key=("vision", grid)
        )
        clock.lap("vision")
        led_here = self._led_here if executed is None else executed
        finite = {
            "the vision tower's tokens": all_finite(vision_MD),
            "the spatial encoder's tokens": all_finite(geometry_MD),
        }
        return EncodedFrame(vision_MD, geometry_MD, spatial_PD, grid, led_here), finite

    def reserve(self, size: tuple[int, int] = CAMERA) -> None:
        """
        Set aside now all that any episode can need, by taking its largest step: full windows, the
        longest instruction, pictures of this camera. Nothing is remembered afterwards.

        From then on a longer instruction or a larger picture is refused, since memory could end in
        the middle of a drive.

        Args:
            size: width and height of the camera's pictures, pixels.

        Raises:
            InputError: pictures of this size cannot be used.
        """
        grey = np.full((size[1], size[0], 3), 128, np.uint8)
        self.context.most_text, self._reserved = PROMPT_TOKENS, 0
        words = PROMPT_TOKENS
        while True:  # as long as the context allows, which a small network's may not
            try:
                self.reset("go " * words)
                self.step(grey)
                break
            except InputError:
                if words == 1:
                    raise
                words = words * 7 // 8
        assert self.spatial
        navigation = self.model.config.navigation
        # every number of pictures that a prompt can have: libraries keep something for each shape
        for _ in range(navigation.num_history if self.memory == "released" else 0):
            self.step(grey)
        self.spatial.seen = max(navigation.window.slots - 1, navigation.num_history)
        self.context.skip_to(self.spatial.seen)
        for _ in range(2):
            self.step(grey, commit=False)
        self._reserved = self.spatial.tokens
        self.reset("go")
        self.instruction = None

    def _spatial_memory(self, height: int, width: int) -> SpatialMemory:
        encoder, window = self.model.spatial, self.model.config.navigation.window
        tokens = encoder.tokens(height, width)
        require(
            not self._reserved or tokens <= self._reserved,
            f"a frame that becomes {width}x{height} pixels has {tokens} spatial tokens, and "
            f"{self._reserved} are set aside: configure with the size of this camera",
        )
        if self.spatial is None or (not self.frames_seen and self.spatial.tokens != tokens):
            self.spatial = None  # given back before as much is asked for again
            self.spatial = encoder.new_memory(
                height, width, window, self.options.spatial_precision
            )
        return self.spatial

    def _score(self, hidden_RD: Tensor) -> Tensor:
        """Scores of the next token, float32 [R, V]."""
        scores_RV: Tensor = self.model.lm_head(hidden_RD).float()
        return scores_RV

    def _penalized(self, scores_1V: Tensor, answer: tuple[int, ...]) -> Tensor:
        # The dual mode has no penalty: its prompt holds the action words and every picture, so a
        # penalty would only distort.
        penalty = self.generation.repetition_penalty if self.memory == "released" else 1.0
        return repetition_penalty(scores_1V, [*self.context.prompt, *answer], penalty)

    def _write(self, scores_1V: Tensor) -> Decision:
        """
        Free decoding: the most likely token, again and again, until an end token or the limit.
        """
        tokens: list[int] = []
        kept = []
        while True:
            scores_1V = self._penalized(scores_1V, tuple(tokens))
            kept.append(scores_1V)
            tokens.append(int(scores_1V[0].argmax()))
            if (
                tokens[-1] in self.generation.eos_token_ids
                or len(tokens) >= self.model.config.navigation.max_new_tokens
            ):
                break
            scores_1V = self._score(self.context.answer(tokens[-1]))
            require_all_finite({SCORES: all_finite(scores_1V)})
        text = str(self.tokenizer.decode(tokens, skip_special_tokens=True))
        return Decision(parse_action(text), text, tokens, scores=torch.cat(kept).cpu())

    def _choose(self, scores_RV: Tensor) -> Decision:
        """
        Constrained decoding: the most probable of the four words, from the scores where they part.
        """
        assert self.tree
        scores_RV = scores_RV.cpu()
        scores_RV = torch.cat(
            [
                self._penalized(scores_RV[row + 1][None], branch.prefix)
                for row, branch in zip(self.tree.rows, self.tree.branches)
            ]
        )
        probabilities = self.tree.probabilities(scores_RV)
        action = most_probable(probabilities)
        word = list(self.tree.words[action])
        return Decision(action, action.name, word, scores=scores_RV, probabilities=probabilities)


class StageClock:
    """
    Seconds of the stages of a step, from now on.

    On a GPU the ends of stages are marked in its own queue, so that nobody waits for them; what
    the marks say can be read when its work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.start = device, time.perf_counter()
        self.stages: list[str] = []
        self.marks = [self._mark()]

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def lap(self, stage: str) -> None:
        """A stage ends here."""
        self.stages.append(stage)
        self.marks.append(self._mark())

    def timings(self) -> dict[str, float]:
        """Seconds of each stage, and in ``total`` those up to now; waits for the last mark."""
        if self.device.type == "cuda":
            self.marks[-1].synchronize()
            spent = [1e-3 * a.elapsed_time(b) for a, b in zip(self.marks, self.marks[1:])]
        else:
            spent = [b - a for a, b in zip(self.marks, self.marks[1:])]
        return dict(zip(self.stages, spent)) | {"total": time.perf_counter() - self.start}


def as_device(device: str | torch.device) -> torch.device:
    """A device of torch that is there; InputError otherwise."""
    require(
        re.fullmatch("(cpu|cuda)(:\\d+)?", str(device)),
        f"device is {device!r}: choose cpu or cuda",
    )
    result, count = torch.device(device), torch.cuda.device_count()
    require(
        result.type != "cuda" or (torch.cuda.is_available() and ((result.index or 0) < count)),
        f"device is {device!r}, but torch sees {count} CUDA devices: choose cpu, "
        "or install a driver and a CUDA build of torch",
    )
    return result
