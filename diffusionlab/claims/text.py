"""Claims about prompts, tokens and embeddings (notebook 2)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from diffusionlab.analysis.image_text import image_text
from diffusionlab.analysis.text import word_rows
from diffusionlab.claims.bench import FEWER_STEPS, SEED, Bench
from diffusionlab.claims.claim import Claim, Part
from diffusionlab.claims.intervals import exact, gained, mean, share
from diffusionlab.errors import InputError
from diffusionlab.inside.text import embed_images, embed_layers
from diffusionlab.stages import embed, tokenize
from diffusionlab.toyland import COLOURS, OBJECTS, SETTINGS, TIMES
from diffusionlab.trace import to_numpy
from diffusionlab.training.prompted import Prompt, paraphrases
from diffusionlab.training.quality import rendered

FREQUENT = ("a", "the", "in", "on", "at", "of", "red", "car")
MATTERS = 0.1  # of what was asked for, from which on a place in the prompt matters
RARE = ("retrofuturistic", "skyscraper", "photosynthesis", "capybara", "chiaroscuro", "xylophone")
COMPOUNDS = {
    "cityscape": ("city", "scape"), "cyberpunk": ("cyber", "punk"), "sunset": ("sun", "set"),
    "spaceship": ("space", "ship"), "sunlight": ("sun", "light"), "lighthouse": ("light", "house"),
    "skyscraper": ("sky", "scraper"), "snowflake": ("snow", "flake"),
    "treehouse": ("tree", "house"), "sailboat": ("sail", "boat"),
}  # fmt: skip


def _embedding(bench: Bench, prompt: str):
    return embed(bench.model, tokenize(bench.model, prompt))


def _rows(bench: Bench, prompt: str) -> np.ndarray:
    """The hidden states of a prompt (tokens, width) of the first encoder."""
    return to_numpy(_embedding(bench, prompt).hidden[0])


def _pooled(bench: Bench, prompt: str) -> np.ndarray:
    """The one vector (width,) that CLIP compares with pictures."""
    return to_numpy(_embedding(bench, prompt).pooled)


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


# ---- tokens ------------------------------------------------------------------------------------
def _pieces(bench: Bench, word: str) -> tuple[str, ...]:
    """The pieces of one word, without the mark of a word's end."""
    told = bench.model.tokenizer(word, add_special_tokens=False).encodings[0]
    return tuple(piece.removesuffix("</w>") for piece in told.tokens)


def every_place_is_for_words(bench: Bench) -> tuple[Part, ...]:
    """Fill the context with words. The claim counts its places: all of them would hold words."""
    length = bench.model.context_length
    tokens = tokenize(bench.model, "a " * (length - 2))
    rows = to_numpy(embed(bench.model, tokens).hidden[0])
    return (
        Part("rows that the encoder hands on", exact(len(rows)), "equals", length),
        Part("pieces of words that fit in", exact(tokens.kept), "equals", length),
    )


def tokens_are_not_always_words(bench: Bench) -> tuple[Part, ...]:
    """Count pieces. "Not always" asks for one split word among rare ones, and for a whole one."""
    rare = sum(len(_pieces(bench, word)) > 1 for word in RARE)
    whole = sum(len(_pieces(bench, word)) == 1 for word in FREQUENT)
    return (
        Part(f"words split, of {len(RARE)} rare ones", exact(rare), "above", 0),
        Part(f"words kept whole, of {len(FREQUENT)} frequent ones", exact(whole), "above", 0),
    )


def compounds_split_at_their_parts(bench: Bench) -> tuple[Part, ...]:
    """Split compound words. As it is told it is a rule, so all of them would split like that."""
    split = [_pieces(bench, word) == parts for word, parts in COMPOUNDS.items()]
    name = f"compound words split into their two parts, of {len(split)}"
    return (Part(name, exact(sum(split)), "equals", len(split)),)


def cyberpunk_cityscape_is_seven_pieces(bench: Bench) -> tuple[Part, ...]:
    """Split one prompt that is told as an example. As it is told, each of its pieces is named."""
    told = "a", "cyber", "punk", "city", "scape", "at", "night"
    pieces = tuple(p for word in ("a", "cyberpunk", "cityscape", "at", "night")
                   for p in _pieces(bench, word))  # fmt: skip
    name = "pieces in which the prompt's split differs from the one told"
    return (Part(name, exact(len(set(pieces) ^ set(told))), "equals", 0),)


def words_past_the_limit_are_cut(bench: Bench) -> tuple[Part, ...]:
    """Change words past the limit, and one before it: only the second may move what is read."""
    filler = "a " * (bench.model.context_length - 2)
    full, other = _rows(bench, filler + "red car"), _rows(bench, filler + "blue boat at night")
    inside = _rows(bench, "red " + filler)
    return (
        Part("largest change of a row, words past the limit changed",
             exact(np.abs(full - other).max()), "equals", 0),
        Part("largest change of a row, the first word changed",
             exact(np.abs(full - inside).max()), "above", 0),
    )  # fmt: skip


# ---- rows and vectors --------------------------------------------------------------------------
def hundreds_of_numbers(bench: Bench) -> tuple[Part, ...]:
    """Count the numbers of a prompt: hundreds would be 100 to 999 of them."""
    hidden = _embedding(bench, bench.prompt).hidden
    width = sum(part.shape[1] for part in hidden)
    return (
        Part("numbers of one token", exact(width), "above", 99),
        Part("numbers of the whole prompt", exact(width * len(hidden[0])), "below", 1000),
    )


def one_vector_for_the_prompt(bench: Bench) -> tuple[Part, ...]:
    """Count the vectors that the U-Net is handed."""
    rows = _rows(bench, bench.prompt)
    return (Part("vectors that the U-Net reads", exact(len(rows)), "equals", 1),)


def no_dictionary(bench: Bench) -> tuple[Part, ...]:
    """One word at one place behind others: looked up, its row is the same, and context moves it."""
    told = [embed_layers(bench.model, tokenize(bench.model, text))
            for text in ("red blue car", "blue red car")]  # fmt: skip
    row = word_rows(told[0].tokens, "car")[-1]
    moved = [np.abs(a - b).max() for a, b in zip(*(t.hidden[:, row] for t in told), strict=True)]
    return (
        Part("change of a word's row before the first layer", exact(moved[0]), "above", 0),
        Part("change of it after the last layer", exact(moved[-1]), "above", 0),
    )


def later_words_reach_back(bench: Bench) -> tuple[Part, ...]:
    """Change the last word: all rows would change, those before it and those from it on."""
    texts = "a red car in the city", "a red car in the snow"
    told = [tokenize(bench.model, text) for text in texts]
    before, after = (_rows(bench, text) for text in texts)
    first = next(i for i, (a, b) in enumerate(zip(*(t.ids for t in told), strict=True)) if a != b)
    moved = (before != after).any(axis=1)
    return (
        Part(f"share of the {first} rows before the word that change",
             exact(moved[:first].mean()), "equals", 1),
        Part(f"share of the {len(moved) - first} rows from the word on that change",
             exact(moved[first:].mean()), "equals", 1),
    )  # fmt: skip


def one_word_changed(text: str, rng: np.random.Generator) -> str | None:
    """The text with one colour, thing, setting or time exchanged for another; None without one."""
    words, slots = text.split(), (COLOURS, OBJECTS, SETTINGS, TIMES)
    places = [(i, slot) for i, word in enumerate(words) for slot in slots if word in slot]
    if not places:
        return None
    i, slot = places[rng.integers(len(places))]
    others = [word for word in slot if word != words[i]]
    words[i] = others[rng.integers(len(others))]
    return " ".join(words)


def order_matters_as_words_do(bench: Bench) -> tuple[Part, ...]:
    """Shuffle prompts. For order to matter, rows move, and the vector as far as for a new word."""
    rng, changed, turned, turned_by_word = bench.rng("order"), [], [], []
    for prompt in bench.texts:
        words = prompt.split()
        mixed = " ".join(words[i] for i in rng.permutation(len(words)))
        other = one_word_changed(prompt, rng)
        changed.append(not np.array_equal(_rows(bench, prompt), _rows(bench, mixed)))
        own, shuffled = _pooled(bench, prompt), _pooled(bench, mixed)
        if other:
            turned.append(1 - _cosine(own, shuffled))
            turned_by_word.append(1 - _cosine(own, _pooled(bench, other)))
    return (
        Part("share of shuffled prompts whose rows change", share(changed), "above", 0.5),
        Part(f"how far the vector turns (1 - cosine): by a shuffle ({np.mean(turned):.2g}) minus "
             f"by one other word ({np.mean(turned_by_word):.2g})",
             mean(np.subtract(turned, turned_by_word)), "above", 0),
    )  # fmt: skip


def meaning_beats_wording(bench: Bench) -> tuple[Part, ...]:
    """Another wording of the same against the same wording with one word exchanged; guess: 1/2."""
    rng, nearer = bench.rng("meaning"), []
    for held, own, _ in paraphrases(bench.share, bench.samples):
        foil = one_word_changed(held, rng)
        if foil:
            text, same, other = (_pooled(bench, prompt) for prompt in (held, own, foil))
            nearer.append(_cosine(text, same) > _cosine(text, other))
    return (Part("share nearer to the same meaning than to the same words", share(nearer),
                 "above", 0.5),)  # fmt: skip


# ---- texts and pictures ------------------------------------------------------------------------
def _matched(bench: Bench):
    """Pictures that Toyland drew, with their captions, in CLIP's common space."""
    pictures = rendered([prompt.scene for prompt in bench.one_object], bench.model.size)
    texts = [_embedding(bench, prompt.text) for prompt in bench.one_object]
    return image_text(embed_images(bench.model, list(pictures)), texts)


def pictures_meet_captions(bench: Bench) -> tuple[Part, ...]:
    """The cosine of pictures with their own captions; one point is a cosine of 1, 5 % allowed."""
    own = np.diag(_matched(bench).matrix)
    return (Part("cosine of a picture with its own caption", mean(own), "near", 1, 0.05),)


def encoder_connects_pictures_and_text(bench: Bench) -> tuple[Part, ...]:
    """Find each picture's caption among all: more often than by chance, and more alike."""
    found = _matched(bench)
    count = len(found.matrix)
    own = np.diag(found.matrix)
    others = (found.matrix.sum(axis=1) - own) / (count - 1)
    hits = found.matrix.argmax(axis=1) == np.arange(count)
    return (
        Part(f"share of pictures that find their caption among {count}", share(hits), "above",
             1 / count),
        Part("cosine with the own caption beyond that with others", mean(own - others), "above", 0),
    )  # fmt: skip


def a_picture_is_as_good_as_text(bench: Bench) -> tuple[Part, ...]:
    """Condition on a picture's vector in place of the rows. Equivalent: right as often as by text.

    The vector is made as long as the text's own; nine in ten of what the text gets right is enough.
    """
    prompts, settings = bench.one_object, dict(num_steps=FEWER_STEPS)
    vectors = embed_images(
        bench.model, list(rendered([p.scene for p in prompts], bench.model.size))
    )
    by_text = _object_right(bench, bench.pictures([p.text for p in prompts], **settings), prompts)
    made = [
        bench.run(p.text, seed=SEED + i, text_embedding=_spread(bench, p.text, vector), **settings)
        for i, (p, vector) in enumerate(zip(prompts, vectors, strict=True))
    ]
    by_picture = _object_right(bench, [trace.image for trace in made], prompts)
    beyond = np.array(by_picture, float) - 0.9 * np.array(by_text, float)
    name = (
        f"share right by the picture's vector ({np.mean(by_picture):.2g}) minus nine tenths of the "
        f"share right by the text ({np.mean(by_text):.2g})"
    )
    return (Part(name, mean(beyond, span=(-0.9, 1)), "above", 0),)


def _spread(bench: Bench, prompt: str, vector: np.ndarray):
    """A text embedding all of whose rows are one vector, as long as the prompt's pooled one."""
    text = _embedding(bench, prompt)
    if text.hidden[0].shape[1] != len(vector) or len(text.hidden) > 1:
        raise InputError(
            f"the image tower gives {len(vector)} numbers, the U-Net of {bench.model.name} reads "
            f"rows of others; a checkpoint where both are one width is needed: use dl.load()"
        )
    length = np.linalg.norm(to_numpy(text.pooled))
    rows = np.tile(np.float32(length * vector), (len(text.hidden[0]), 1))
    return replace(text, hidden=(rows,))


def _object_right(bench: Bench, pictures: list, prompts: list[Prompt]) -> list[bool]:
    """Whether the thing of each prompt is seen in its colour."""
    seen = zip(bench.judged(pictures), prompts, strict=True)
    return [all(v.colours.get(k) == c for k, c in p.colours.items()) for v, p in seen]


def front_words_weigh_more(bench: Bench) -> tuple[Part, ...]:
    """The thing named first, last, and past the limit, one seed: more right in front than each.

    More by a tenth: less than that would be no reason to write a prompt in another order.
    """
    right = {}
    filler = "a " * bench.model.context_length
    for place, form in {"front": "{0} {1}", "back": "{1}, {0}", "past": "{1} {2} {0}"}.items():
        texts = [form.format(*_clauses(p), filler) for p in bench.one_object]
        pictures = bench.pictures(texts, num_steps=FEWER_STEPS)
        right[place] = np.array(_object_right(bench, pictures, bench.one_object), float)
    return (
        Part("right in front, beyond right at the end", gained(right["front"] - right["back"]),
             "above", MATTERS),
        Part("right in front, beyond right past the limit", gained(right["front"] - right["past"]),
             "above", MATTERS),
    )  # fmt: skip


def _clauses(prompt: Prompt) -> tuple[str, str]:
    """The thing of a prompt, and where it is."""
    (kind, colour), setting = next(iter(prompt.colours.items())), prompt.scene.setting
    where = "in space" if setting == "space" else f"in the {setting}"
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {kind}", where


def same_words_other_picture(bench: Bench) -> tuple[Part, ...]:
    """Exchange the two colours of a prompt, one seed: usually the classifier must see a change.

    And things must follow their words: more of them in the colour of their own prompt than of the
    other one.
    """
    prompts = bench.two_objects
    texts = [p.text for p in prompts], [_colours_swapped(p) for p in prompts]
    one, other = (bench.judged(bench.pictures(t, num_steps=FEWER_STEPS)) for t in texts)
    differ = [a.colours != b.colours for a, b in zip(one, other, strict=True)]
    wins = [
        sum((a.colours.get(k) == c) - (b.colours.get(k) == c) for k, c in p.colours.items()) / 2
        for a, b, p in zip(one, other, prompts, strict=True)
    ]
    return (
        Part("share of pairs in which other things or colours are seen", share(differ), "above",
             0.5),
        Part("things in their colour, beyond those where the colours were exchanged", gained(wins),
             "above", MATTERS),
    )  # fmt: skip


def _colours_swapped(prompt: Prompt) -> str:
    first, second = prompt.colours.values()
    swap = {first: second, second: first}
    return " ".join(swap.get(word, word) for word in prompt.text.split(" "))


CLAIMS = (
    Claim("A2", "A prompt becomes hundreds of numbers.", "exhibit page", 2, hundreds_of_numbers),
    Claim("A3", "As many words fit as the context has places.", "article", 2,
          every_place_is_for_words),
    Claim("A4", "Tokens are not always whole words.", "guide", 2, tokens_are_not_always_words),
    Claim("A5", "A compound word is split at its parts.", "guide", 2,
          compounds_split_at_their_parts),
    Claim("A6", "A cyberpunk cityscape at night is seven pieces.", "guide", 2,
          cyberpunk_cityscape_is_seven_pieces),
    Claim("A7", "Words past the limit are cut off.", "guide", 2, words_past_the_limit_are_cut),
    Claim("A9", "Important words belong to the front.", "guide", 2, front_words_weigh_more, True),
    Claim("A11", "CLIP does not look words up in a dictionary.", "guide", 2, no_dictionary),
    Claim("A12", "The whole prompt becomes one vector.", "guide", 2, one_vector_for_the_prompt),
    Claim("A16", "The encoder hears meaning, not just words.", "guide", 2, meaning_beats_wording,
          True),
    Claim("A17", "Word order matters as the words do.", "guide", 2, order_matters_as_words_do,
          True),
    Claim("A18", "The same words in another order give another picture.", "guide", 2,
          same_words_other_picture, True),
    Claim("A20", "All tokens of the prompt influence each other.", "guide", 2,
          later_words_reach_back),
    Claim("A23", "A picture and its caption land on one point.", "essay", 2,
          pictures_meet_captions, True),
    Claim("A24", "A picture's vector serves as well as the text's.", "essay", 2,
          a_picture_is_as_good_as_text, True),
    Claim("A32", "The encoder was trained to connect pictures and text.", "exhibit page", 2,
          encoder_connects_pictures_and_text, True),
)  # fmt: skip
