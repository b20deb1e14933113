"""The parts of a tiny checkpoint of random weights, made by diffusers and transformers themselves.

No part of conftest.py: a folder of tests with a conftest of its own hides that name from the rest.
"""

from __future__ import annotations

import json
from pathlib import Path

CORPUS = [
    "a red car in the city at night",
    "a blue boat on the ocean at sunset",
    "a green house on the snow in the morning",
    "a yellow tree in the meadow at day",
    "a pink balloon in the mountains",
    "an orange cat in space",
    "a white car in the desert, two purple houses and one black penguin",
]


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
