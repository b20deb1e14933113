"""What all tests share: one thread, no network, derandomised Hypothesis, and a tiny model.

`tiny_folder` is a checkpoint with random weights in diffusers' folder layout, written by diffusers
and transformers themselves; `tiny_model` is what our `load` makes of it. Pictures are 64×64,
latents (4, 8, 8), the text context is 32 tokens.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

# One torch thread per worker, no downloads, no windows. Set before anything imports torch.
os.environ.update(
    OMP_NUM_THREADS="1",
    MKL_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    MPLBACKEND="agg",
)

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, max_examples=50)
settings.register_profile("nightly", deadline=None, max_examples=500)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

LOCAL = {"localhost", "127.0.0.1", "::1", "0.0.0.0", "", None}

CORPUS = [
    "a red car in the city at night",
    "a blue boat on the ocean at sunset",
    "a green house on the snow in the morning",
    "a yellow tree in the meadow at day",
    "a pink balloon in the mountains",
    "an orange cat in space",
    "a white car in the desert, two purple houses and one black penguin",
]


class NetworkBlocked(RuntimeError):
    """A test tried to leave this machine."""


def pytest_runtest_setup(item):
    """Tests marked `gpu` are skipped where there is no accelerator."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.accelerator.is_available():
            pytest.skip("there is no accelerator")


def pytest_terminal_summary(terminalreporter):
    """Browser tests that had no browser are counted once, with what to install."""
    skipped = [
        report
        for report in terminalreporter.stats.get("skipped", ())
        if "tests/browser/" in report.nodeid and "no Chromium" in str(report.longrepr)
    ]
    if skipped:
        why = skipped[0].longrepr[-1].removeprefix("Skipped: ")
        terminalreporter.write_line(f"{len(skipped)} browser tests skipped: {why}")


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Sockets reach this machine only (loopback and Unix sockets)."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))
        patch.setattr(socket, "getaddrinfo", _local_names_only(socket.getaddrinfo))
        yield


def _guarded(method):
    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in LOCAL:
            raise NetworkBlocked(f"a test tried to connect to {address[0]!r}; tests run offline")
        return method(self, address)

    return connect


def _local_names_only(function):
    def getaddrinfo(host, *args, **kwargs):
        if host not in LOCAL:
            raise NetworkBlocked(f"a test tried to look up {host!r}; tests run offline")
        return function(host, *args, **kwargs)

    return getaddrinfo


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A random-weight checkpoint in diffusers layout; treat it as read-only."""
    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    write_tiny_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_folder):
    """Our bundle of the tiny checkpoint, on the CPU in float32."""
    from diffusionlab.pipeline import load

    return load(tiny_folder, device="cpu")


def write_tiny_checkpoint(folder: Path, *, seed: int = 0) -> None:
    """Write unet/, vae/, text_encoder/, tokenizer/, scheduler/, model_index.json, preview.json."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tokenizer = tiny_tokenizer()
        pipeline = StableDiffusionPipeline(
            tokenizer=tokenizer,
            text_encoder=tiny_text_encoder(tokenizer),
            unet=tiny_unet(),
            vae=tiny_vae(),
            scheduler=DDIMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
                clip_sample=False, set_alpha_to_one=True, steps_offset=1,
                timestep_spacing="trailing",
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )  # fmt: skip
        pipeline.save_pretrained(folder)
    preview = {
        "weight": [[0.3, 0.2, -0.1, 0.0], [0.2, 0.3, 0.1, -0.2], [0.1, -0.2, 0.3, 0.1]],
        "bias": [0.1, 0.0, -0.1],
        "r2": [0.9, 0.8, 0.7],
    }
    (folder / "preview.json").write_text(json.dumps(preview), encoding="utf-8")


def tiny_tokenizer():
    """CLIP's byte-pair tokenizer with a vocabulary trained on eight sentences."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    # Bytes with and without the end-of-word mark, so that no text is unknown.
    trainer = trainers.BpeTrainer(
        vocab_size=800, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator(CORPUS, trainer)
    learned = json.loads(learner.to_str())["model"]
    pieces = sorted(alphabet)
    pieces += [piece + "</w>" for piece in pieces]
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in learned["merges"]]
    pieces += ["".join(merge) for merge in merges]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=32)


def tiny_text_encoder(tokenizer):
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, projection_dim=32,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=32,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return CLIPTextModel(config).eval()


def tiny_unet():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=4, norm_num_groups=8,
    ).eval()  # fmt: skip


def tiny_vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        sample_size=64, block_out_channels=(8, 8, 16, 16), layers_per_block=1, norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
    ).eval()  # fmt: skip
