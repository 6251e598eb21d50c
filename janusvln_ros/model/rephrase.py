"""
A small encoder-decoder that says an instruction again, in the sentences that a network was taught
with (`janusvln_ros.policy.rephrase` reads and asks it, `janusvln_ros.training.rephrase` teaches).

Shape letters: B texts, L tokens of the longest, T tokens of an answer, D channels, S tokens that
an answer may be made of.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from janusvln_ros import schema
from janusvln_ros.documents import CONFIG_FILE, read_object, whole
from janusvln_ros.errors import require
from janusvln_ros.files import atomic_write
from janusvln_ros.limits import require_within
from janusvln_ros.model.checkpoint import SHARD_BYTES, stored_tensors, write_weights

REMEDY = "copy the folder again from where the checkpoint came from"
MOST_WORDS = 96
"""Tokens of the longest answer."""


@dataclass(frozen=True)
class RephraserConfig:
    """
    Sizes of a `Rephraser` (its ``config.json``).

    Attributes:
        vocab_size: tokens that an instruction may be made of.
        answers: ids of those that an answer may be made of; the first ends it.
        hidden_size, num_heads, intermediate_size: of every layer.
        encoder_layers, decoder_layers: how many there are.
    """

    vocab_size: int = 0
    answers: tuple[int, ...] = ()
    hidden_size: int = 128
    num_heads: int = 4
    intermediate_size: int = 384
    encoder_layers: int = 3
    decoder_layers: int = 2

    @classmethod
    def load(cls, folder: Path) -> "RephraserConfig":
        """Read that of a folder; raises InputError where it is none or larger than any."""
        path = folder / CONFIG_FILE
        require(path.is_file(), f"{folder} has no {CONFIG_FILE}: {REMEDY}")
        config: RephraserConfig = schema.build(cls, read_object(path, REMEDY), str(path))
        for name, bound in (
            ("vocab_size", "WIDTH"),
            ("hidden_size", "WIDTH"),
            ("num_heads", "WIDTH"),
            ("intermediate_size", "WIDTH"),
            ("encoder_layers", "LAYERS"),
            ("decoder_layers", "LAYERS"),
        ):
            size = whole(getattr(config, name), f"{path}: {name}", 1)
            require_within(size, bound, f"{path}: {name} is")
        require(
            config.hidden_size % (2 * config.num_heads) == 0,
            f"{path}: hidden_size {config.hidden_size} is no multiple of twice num_heads "
            f"{config.num_heads}: {REMEDY}",
        )
        require(
            config.answers and all(0 <= i < config.vocab_size for i in config.answers),
            f"{path}: answers are not ids below vocab_size {config.vocab_size}: {REMEDY}",
        )
        return config


class Rephraser(nn.Module):
    """
    Reads the ids of a text and says the ids of another: Transformer layers with normalisation
    first, no dropout, sinusoidal positions (Vaswani et al., 2017).

    Args:
        config: its sizes.
    """

    def __init__(self, config: RephraserConfig) -> None:
        super().__init__()
        self.config = config
        size = config.hidden_size
        self.embed_tokens = nn.Embedding(config.vocab_size, size)
        # the last row begins an answer
        self.embed_answers = nn.Embedding(len(config.answers) + 1, size)
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**_layer(config)),
            config.encoder_layers,
            nn.LayerNorm(size),
            enable_nested_tensor=False,
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(**_layer(config)), config.decoder_layers, nn.LayerNorm(size)
        )
        self.head = nn.Linear(size, len(config.answers))

    def read(self, ids_BL: Tensor, padding_BL: Tensor | None = None) -> Tensor:
        """What the encoder makes of texts, [B, L, D]; ``padding_BL`` (bool) is not looked at."""
        embedded_BLD = self.embed_tokens(ids_BL)
        return cast(
            Tensor,
            self.encoder(embedded_BLD + positions(embedded_BLD), src_key_padding_mask=padding_BL),
        )

    def scores(
        self, read_BLD: Tensor, said_BT: Tensor, padding_BL: Tensor | None = None
    ) -> Tensor:
        """
        Scores [B, T, S] of what comes after each token of answers that are places in
        ``config.answers``; the first token is ``self.begin``.
        """
        embedded_BTD = self.embed_answers(said_BT)
        mask_TT = nn.Transformer.generate_square_subsequent_mask(
            said_BT.shape[1], device=said_BT.device, dtype=embedded_BTD.dtype
        )
        answered_BTD = self.decoder(
            embedded_BTD + positions(embedded_BTD),
            read_BLD,
            tgt_mask=mask_TT,
            tgt_is_causal=True,
            memory_key_padding_mask=padding_BL,
        )
        return cast(Tensor, self.head(answered_BTD))

    @property
    def begin(self) -> int:
        """The place that stands before the first token of an answer."""
        return len(self.config.answers)

    @torch.no_grad()
    def answer(self, ids: list[int]) -> tuple[list[int], float]:
        """
        The likeliest answer to a text, token by token, without its end.

        Args:
            ids: of the text, at least one.

        Returns:
            Ids of the answer, and its probability; 0 where it did not end in ``MOST_WORDS``.
        """
        read_1LD = self.read(torch.tensor([ids]))
        said, certainty = [self.begin], 0.0
        while len(said) <= MOST_WORDS:
            next_S = self.scores(read_1LD, torch.tensor([said]))[0, -1].log_softmax(-1)
            chosen = int(next_S.argmax())
            certainty += float(next_S[chosen])
            if chosen == 0:
                return [self.config.answers[i] for i in said[1:]], float(
                    torch.tensor(certainty).exp()
                )
            said.append(chosen)
        return [self.config.answers[i] for i in said[1:]], 0.0

    @classmethod
    def load(cls, folder: Path) -> "Rephraser":
        """
        Read a folder's ``config.json`` and weights; computes in float32 on the CPU.

        Raises:
            InputError: a file is missing or damaged, or they do not fit each other.
        """
        config = RephraserConfig.load(folder)
        with torch.device("meta"):
            network = cls(config)
        wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
        stored: dict[str, Tensor] = {}
        for name, file in stored_tensors(folder):
            shape = tuple(file.get_slice(name).get_shape())
            require(
                wanted.get(name) == shape,
                f"{folder}: {name} is {list(shape)}, its {CONFIG_FILE} wants "
                f"{list(wanted.get(name, ()))}: {REMEDY}",
            )
            stored[name] = file.get_tensor(name).float()
        missing = sorted(wanted.keys() - stored.keys())
        require(not missing, f"{folder} lacks the weights {missing[:3]}: {REMEDY}")
        network.load_state_dict(stored, assign=True)
        return network.eval()

    def write(self, folder: Path) -> None:
        """Write ``config.json`` and bfloat16 weights into a folder."""
        atomic_write(folder / CONFIG_FILE, json.dumps(asdict(self.config)) + "\n")
        tensors = {
            name: value.detach().to(torch.bfloat16).contiguous()
            for name, value in self.state_dict().items()
        }
        write_weights(tensors, folder, SHARD_BYTES)


def _layer(config: RephraserConfig) -> dict[str, Any]:
    return {
        "d_model": config.hidden_size,
        "nhead": config.num_heads,
        "dim_feedforward": config.intermediate_size,
        "dropout": 0.0,
        "activation": "gelu",
        "batch_first": True,
        "norm_first": True,
    }


def positions(like_BLD: Tensor) -> Tensor:
    """Sines and cosines [L, D] that tell the places of L tokens apart, for any L."""
    length, size = like_BLD.shape[1:]
    place_L = torch.arange(length, device=like_BLD.device, dtype=torch.float32)
    rate_K = 10_000 ** (-torch.arange(0, size, 2, device=like_BLD.device) / size)
    angle_LK = place_L[:, None] * rate_K
    return torch.stack([angle_LK.sin(), angle_LK.cos()], dim=-1).flatten(1).to(like_BLD.dtype)
