"""Toyland's tokenizer: byte-level BPE in CLIP's conventions, learnt from the captions.

Vocabulary order as in CLIP (Radford et al. 2021, arXiv 2103.00020): 256 bytes, 256 bytes with the
end-of-word mark, one symbol per merge, then start and end; the end token also pads.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from ..toyland import caption, scene
from .written import write_atomically, write_json

START, END, WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
WORDS = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
# Plain English beside the captions, so that words of another world split into sensible pieces.
PLAIN_ENGLISH = """
the of and to in is was for that with as his on be at by had not are but from or have an they
which one you were all her she there would their we him been has when who will no more if out so
said what up its about than into them can only other time new some could these two may first then
do any like my now over such our man me even most made after also well did many before must years
back through much where your way down should because long each just state those people too mr good
very world own see men work being day never between last life year came here still great old while
home make place light water wind fire stone river forest garden bridge tower window mountain
winter summer spring bright dark golden silver small large big little tall round dragon castle
knight robot rocket train dog bird fish horse bear lion tiger rabbit king queen music dance sleep
dream cloud rain storm road neon cyber punk retro future photo picture painting drawing artist
style detail cinematic majestic
""".split()  # noqa: SIM905


# Words that stay in two pieces: what a tokenizer does with rare compounds shows on them.
COMPOUNDS = {
    "cyberpunk": ("cyber", "punk"),
    "retrofuturistic": ("retro", "futuristic"),
    "cityscape": ("city", "scape"),
}


def corpus(scenes: int = 6000, seed: int = 0) -> list[str]:
    """Captions of the first scenes, compounds written apart, and the list of plain words."""
    rng = np.random.default_rng(seed)
    texts = [caption(scene(i), rng).text for i in range(scenes)]
    for whole, halves in COMPOUNDS.items():
        texts = [text.replace(whole, " ".join(halves)) for text in texts]
    return texts + PLAIN_ENGLISH


def learn_merges(texts: list[str], count: int) -> list[tuple[str, str]]:
    """Up to `count` merges of byte-pair encoding, most frequent first, then first halves."""
    model = Tokenizer(BPE(end_of_word_suffix=WORD_END))
    model.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    model.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(WORDS, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = BpeTrainer(
        vocab_size=512 + count,
        min_frequency=1,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix=WORD_END,
        show_progress=False,
    )
    model.train_from_iterator(texts, trainer)
    merges = json.loads(model.to_str())["model"]["merges"]
    pairs = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in merges]
    return pairs[:count] + first_halves(pairs[:count])


def first_halves(merges: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """The merges that make one piece of each compound's first half."""
    made = []
    for first, _ in COMPOUNDS.values():
        pieces = list(first)
        for left, right in merges + made:
            at = 0
            while at < len(pieces) - 1:
                if (pieces[at], pieces[at + 1]) == (left, right):
                    pieces[at : at + 2] = [left + right]
                at += 1
        for end in range(1, len(pieces)):
            made.append(("".join(pieces[:end]), pieces[end]))
    return made


def vocabulary(merges: list[tuple[str, str]]) -> dict[str, int]:
    """Symbol → id in CLIP's order."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = [
        *letters,
        *(c + WORD_END for c in letters),
        *("".join(m) for m in merges),
        START,
        END,
    ]
    return {symbol: i for i, symbol in enumerate(dict.fromkeys(symbols))}


def train_tokenizer(folder: Path, context_length: int, merges: int = 1024) -> Path:
    """Write vocab.json, merges.txt and tokenizer_config.json, as CLIPTokenizer reads them."""
    learnt = learn_merges(corpus(), merges)
    lines = ["#version: 0.2", *(" ".join(m) for m in learnt)]
    write_json(folder / "vocab.json", vocabulary(learnt))
    text = "\n".join(lines) + "\n"
    write_atomically(folder / "merges.txt", lambda p: p.write_text(text, encoding="utf-8"))
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": context_length,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }
    write_json(folder / "tokenizer_config.json", config)
    return folder
