"""For every test."""

import signal

import pytest

# Started in the background by a shell, a process inherits SIGINT as ignored and so do its
# children: then nothing here would end on Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Chat:
    """
    A language model with random weights and its head, and an episode for it: a prompt, frames of 2
    x 3 fused tokens, a question after each.
    """

    width, grid = 32, (2, 3)
    prompt_ids, question_ids = (1, 2, 3, 4, 5), (43, 44, 45)
    frame_ids = (40, *[41] * 6, 42)

    def __init__(self):
        import torch
        from torch import nn
        from transformers import Qwen2_5_VLTextConfig, Qwen2_5_VLTextModel

        from janusvln_ros.model.memory import FrameWindow

        torch.manual_seed(0)
        rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]}
        config = Qwen2_5_VLTextConfig(
            vocab_size=50,
            hidden_size=self.width,
            intermediate_size=48,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=4096,
            initializer_range=0.4,
            rope_parameters=rope,
        )
        config._attn_implementation = "sdpa"
        self.language = Qwen2_5_VLTextModel(config).eval()
        self.head = nn.Linear(self.width, config.vocab_size, bias=False)
        self.window = FrameWindow(2, 3)

    def frames(self, count, seed=1):
        import torch

        generator = torch.Generator().manual_seed(seed)
        return torch.randn(count, 6, self.width, generator=generator)

    def empty_memory(self, window=None, leaf_rows=8, before=0, **options):
        from janusvln_ros.model.dual import FrameLayout, SemanticMemory

        layout = FrameLayout(*self.grid, before=before)
        config = self.language.config
        return SemanticMemory(config, window or self.window, layout, leaf_rows, **options)

    def new_memory(self, *args, **options):
        from janusvln_ros.model.dual import read_prompt

        memory = self.empty_memory(*args, **options)
        read_prompt(self.language, memory, self.prompt_ids)
        return memory

    def step(self, memory, fused, question=question_ids, before=(), **tree):
        """Scores of the question's last row and of the tree."""
        from janusvln_ros.model.dual import read_frame

        ids = [*before, *self.frame_ids]
        return self.head(read_frame(self.language, memory, ids, fused, question, **tree)).detach()

    def answer(self, memory, token):
        """Scores of what follows one more token."""
        from janusvln_ros.model.dual import read_answer

        return self.head(read_answer(self.language, memory, token))[0].detach()

    def stream(self, fused, window=None):
        """Scores of the first token of the answer at every step."""
        import torch

        memory, scores = self.new_memory(window), []
        for frame in fused:
            scores.append(self.step(memory, frame)[0])
            memory.commit()
        return torch.stack(scores)


@pytest.fixture(scope="session")
def chat():
    return Chat()
