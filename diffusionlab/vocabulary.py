"""One spelling for each thing, with the names under which people search for it elsewhere.

`define("cfg_scale")` answers with our word; `AXES` names the axes of every tensor. docs/glossary.md
is this as a page (`make glossary`); its anchors are `Term.anchor`.
"""

from __future__ import annotations

from dataclasses import dataclass

from diffusionlab.errors import InputError, close_matches, shown
from diffusionlab.field_words import FIELD

AXES = {
    "Latent": ("channels", "height / 8", "width / 8"),
    "latents": ("num_steps + 1", "channels", "height / 8", "width / 8"),
    "TextEmbedding": ("tokens", "width"),
    "attention": ("network_calls", "height", "width", "tokens"),
    "array": ("height", "width", "RGB"),
}


@dataclass(frozen=True)
class Term:
    """One word of the vocabulary: its meaning, and what others call it."""

    name: str
    meaning: str
    synonyms: tuple[str, ...] = ()

    @property
    def anchor(self) -> str:
        """Its place in docs/glossary.md, as GitHub names the heading: `attention-map`."""
        kept = (c for c in self.name.lower() if c.isalnum() or c in " -_")
        return "".join(kept).replace(" ", "-")

    def __repr__(self) -> str:
        also = f" (also seen as: {', '.join(self.synonyms)})" if self.synonyms else ""
        return f"{self.name}: {self.meaning}{also}"


GLOSSARY = (
    Term(
        "timestep",
        "the training index 0…999 that the U-Net is told; 999 is the noisiest; may be fractional; "
        "the clean level has -1",
        ("t", "timesteps"),
    ),
    Term("num_steps", "the number of sampling steps of a run", ("num_inference_steps", "steps")),
    Term("step", "one move of the sampler from a noise level to the next", ("sampling step",)),
    Term(
        "alpha",
        "the signal rate of a noise level: x_t = alpha · x0 + sigma · eps",
        ("sqrt(alphas_cumprod)", "sqrt_alphas_cumprod", "signal rate"),
    ),
    Term(
        "sigma",
        "the noise rate of a noise level: x_t = alpha · x0 + sigma · eps; what k-diffusion calls "
        "sigma is our karras_sigma",
        ("sqrt(1 − alphas_cumprod)", "sqrt_one_minus_alphas_cumprod", "noise rate"),
    ),
    Term(
        "alpha_bar",
        "the product of all 1 − beta up to a timestep; alpha² in a variance preserving schedule",
        ("alphas_cumprod", "alpha cumprod"),
    ),
    Term("beta", "the variance of one increment of the DDPM schedule, not its level", ("betas",)),
    Term("snr", "the signal-to-noise ratio alpha² / sigma²", ("signal-to-noise ratio",)),
    Term(
        "karras_sigma",
        "sigma / alpha: noise for one unit of signal",
        ("sigma in k-diffusion", "sigmas", "sigma-hat"),
    ),
    Term(
        "latent",
        "one tensor (channels, height / 8, width / 8), without a batch axis",
        ("z", "sample", "x_t", "latent code"),
    ),
    Term("latents", "the latents of a run, stacked over its steps: num_steps + 1 of them", ("zs",)),
    Term("noise", "a Gaussian that was drawn", ("random noise", "initial noise")),
    Term(
        "eps", "the noise that the network predicts", ("epsilon", "noise_pred", "predicted noise")
    ),
    Term(
        "x0",
        "the clean latent that a prediction stands for",
        ("denoised", "pred_original_sample", "x0-hat", "predicted x0"),
    ),
    Term(
        "v",
        "the velocity alpha · eps − sigma · x0 that a prediction stands for",
        ("velocity", "v_prediction", "v-prediction"),
    ),
    Term("cond", "the network's output with the prompt", ("conditional", "noise_pred_text")),
    Term(
        "uncond",
        "the network's output with the negative prompt, by default the empty one",
        ("unconditional", "noise_pred_uncond"),
    ),
    Term(
        "guidance_scale",
        "g in uncond + g · (cond − uncond): 0 is unconditional, 1 conditional alone (guidance off)",
        ("cfg_scale", "cfg"),
    ),
    Term(
        "guidance_interval",
        "the karras_sigmas between which guidance is on; outside, the prompt's branch runs alone",
        ("limited interval guidance",),
    ),
    Term(
        "guidance_rescale",
        "φ in 0…1: how far the guided output's spread is drawn back to the conditional one's",
        ("cfg rescale", "rescale"),
    ),
    Term("schedule", "the noise levels of training: data", ("noise schedule", "noise scheduler")),
    Term("sampler", "the algorithm that walks down the levels", ("solver", "sampling method")),
    Term("plan", "a sampler's numbers for the levels of one run", ("coefficients",)),
    Term(
        "scheduler",
        "elsewhere one word for three things: here the schedule is data, the sampler an algorithm "
        "and the plan its numbers; the scheduler update is our stage update",
        ("scheduler update",),
    ),
    Term("tokens", "a prompt as ids, with start, end and padding", ("input_ids", "token ids")),
    Term("pieces", "the pieces of byte-pair encoding that ids stand for", ("subwords",)),
    Term("words", "pieces merged back to the words that the user wrote", ("word",)),
    Term(
        "text_embedding",
        "the hidden states of the text encoder: one row per token",
        ("encoder_hidden_states", "context", "prompt_embeds", "conditioning"),
    ),
    Term(
        "network_calls",
        "evaluations of the U-Net for an image, the pair of guidance counted as one",
        ("NFE", "function evaluations"),
    ),
    Term("tap", "a named place in a network where tensors can be watched", ("hook point", "hook")),
    Term(
        "intervention",
        "one change inside a network while a `with` block lasts; nothing of it stays",
        ("patching", "steering"),
    ),
    Term(
        "ablation",
        "a run with one thing taken away (a word, a head, a skip): what changes is what it did",
        ("knock-out", "leave-one-out"),
    ),
    Term(
        "attention map",
        "for each place of the picture, the probability of reading a token there; at every place "
        "those of all tokens sum to 1. Where was looked, not why",
        ("cross-attention map", "heat map", "DAAM map"),
    ),
    Term(
        "head", "one of several attentions that a layer computes side by side", ("attention head",)
    ),
    Term(
        "skip connection",
        "what a block on the way down hands to the block of the same size on the way up",
        ("skip", "residual connection of the U-Net"),
    ),
    Term(
        "commitment",
        "the step after which x0 at a place stays near its final value",
        ("commitment map",),
    ),
    Term(
        "pointing game",
        "whether a map's peak lies inside the thing that the word names",
        ("pointing accuracy",),
    ),
    Term("trace", "the record of a run", ("cache", "history")),
    *(Term(*row) for row in FIELD),
)


def define(word: str) -> Term:
    """The entry of a word or of one of its synonyms, whatever its case and punctuation.

    Errors: InputError for a word that is not here, with the closest ones.
    """
    if not isinstance(word, str):
        raise InputError(f"word {shown(word)}: a text is needed, e.g. define('cfg_scale')")
    for table in (_names(), _synonyms()):
        if _plain(word) in table:
            return table[_plain(word)]
    known = [name for term in GLOSSARY for name in (term.name, *term.synonyms)]
    all_names = ", ".join(term.name for term in GLOSSARY)
    raise InputError(
        f"word {shown(word)} is not in the vocabulary; {close_matches(word, known)}"
        f"the words are {all_names}"
    )


def _names() -> dict[str, Term]:
    return {_plain(term.name): term for term in GLOSSARY}


def _synonyms() -> dict[str, Term]:
    return {_plain(synonym): term for term in GLOSSARY for synonym in term.synonyms}


def _plain(word: str) -> str:
    """Lower case, without spaces, hyphens and underscores."""
    return "".join(c for c in word.casefold() if c not in " -_")
