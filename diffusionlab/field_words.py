"""The words of the field that the library's own nouns lean on: name, meaning, synonyms.

`vocabulary.GLOSSARY` holds them with ours; the course links to all of them.
"""

from __future__ import annotations

TEXT = (
    ("prompt", "the text that says what the picture shall show", ("caption of a run",)),
    (
        "negative prompt",
        "a text that takes the empty prompt's place in guidance: the result is pushed away from "
        "it, unless guidance is off",
        (),
    ),
    (
        "token",
        "one place of a prompt as ids: the number of a piece, or of a mark (start, end, padding)",
        ("token id",),
    ),
    (
        "BPE",
        "byte-pair encoding: a word begins as single characters, and pairs of neighbours are "
        "joined in the order of a list that was learnt from how often they occur",
        ("byte-pair encoding",),
    ),
    (
        "padding",
        "the tokens after the end mark that fill a prompt up to the context length; they are "
        "embedded and read like all others",
        ("pad", "pads", "pad token"),
    ),
    (
        "context length",
        "how many tokens a text encoder takes, start and end mark included; what goes beyond is "
        "cut off",
        ("context limit", "model_max_length", "token limit"),
    ),
    ("embedding", "a list of numbers that stands for a thing, e.g. for a token", ("vector",)),
    (
        "text encoder",
        "the network that makes one row of numbers per token out of a prompt",
        ("text tower",),
    ),
    (
        "causal mask",
        "the rule that a row reads only its own token and earlier ones, never later ones",
        ("causal attention",),
    ),
    (
        "CLIP",
        "a text encoder and an image encoder trained together, so that a picture and its own "
        "caption are more alike than a picture and another's",
        ("contrastive language-image pre-training",),
    ),
    (
        "image encoder",
        "CLIP's other half: one vector for a picture. It takes no part in making pictures",
        ("image tower", "vision tower"),
    ),
    (
        "pooled vector",
        "one vector for a whole prompt, read off the row of its end mark; CLIP compares it with "
        "pictures, and SDXL's U-Net gets it besides the rows",
        ("pooled embedding", "text_embeds"),
    ),
    (
        "cosine similarity",
        "the cosine of the angle between two vectors: 1 the same direction, 0 at right angles, "
        "-1 opposite",
        ("cosine", "likeness"),
    ),
    (
        "modality gap",
        "CLIP's pictures and texts lie in two separate regions of the common space; a picture is "
        "nearer to its own text than to others, not near to it",
        (),
    ),
)

LATENTS = (
    (
        "VAE",
        "variational autoencoder: an encoder that packs a picture into a latent and a decoder that "
        "paints a picture from one, trained together",
        ("variational autoencoder", "autoencoder", "AutoencoderKL"),
    ),
    ("encoder", "the half of the VAE that makes a latent of a picture", ("VAE encoder",)),
    ("decoder", "the half of the VAE that makes a picture of a latent", ("VAE decoder",)),
    (
        "latent scale",
        "the number that latents are multiplied with after encoding, so that their spread is near "
        "1; each checkpoint has its own",
        ("scaling_factor", "scale factor"),
    ),
    (
        "preview",
        "a small linear map from a latent's channels to colours: a quick look without the decoder",
        ("latent preview", "latent2rgb"),
    ),
    (
        "PSNR",
        "peak signal-to-noise ratio in decibels: how near one picture is to another, value by "
        "value; 6 dB more halve the root-mean-square error",
        ("peak signal-to-noise ratio",),
    ),
    (
        "reconstruction",
        "what comes back when a picture is encoded and decoded again",
        ("round trip", "roundtrip"),
    ),
)

NOISE = (
    (
        "seed",
        "the number that fixes which noise is drawn: the same seed and settings, the same picture",
        ("random seed",),
    ),
    (
        "Gaussian",
        "the bell-shaped distribution; noise here is one independent draw per number, mean 0 and "
        "spread 1",
        ("normal distribution",),
    ),
    (
        "noise level",
        "how much of a latent is signal and how much noise: the pair (alpha, sigma)",
        ("level", "NoiseLevel"),
    ),
    (
        "forward process",
        "adding noise to a clean latent; any level is reached in one jump, by a formula",
        ("noising", "diffusion process"),
    ),
    (
        "reverse process",
        "going from noise to a clean latent, level by level, with a network's predictions",
        ("denoising", "denoising process", "sampling"),
    ),
    (
        "variance preserving",
        "alpha² + sigma² = 1: a latent of spread 1 keeps that spread at every level",
        ("VP",),
    ),
    (
        "zero terminal SNR",
        "a schedule whose noisiest level has alpha = 0: nothing of the picture is left there",
        ("zero-SNR", "rescale_betas_zero_snr"),
    ),
)

NETWORK = (
    (
        "checkpoint",
        "the files of a trained model: weights, sizes, schedule and tokenizer",
        ("model folder", "model files"),
    ),
    (
        "weights",
        "the numbers of a network that training sets",
        ("parameter", "parameters"),
    ),
    (
        "float16",
        "numbers of 16 bits, about three decimal digits: half the memory of float32",
        ("half precision", "fp16", "half"),
    ),
    (
        "U-Net",
        "the network that judges the noise in a latent; it works at several sizes, down and up "
        "again, with skip connections across",
        ("denoiser", "noise predictor"),
    ),
    (
        "time embedding",
        "the vector that tells the network its timestep",
        ("timestep embedding", "temb"),
    ),
    (
        "attention",
        "a weighted mean over other places: each place weighs what it reads by how well its query "
        "fits their keys; the weights are at least 0 and sum to 1",
        ("attention mechanism",),
    ),
    (
        "self-attention",
        "attention between the places of one thing: of a picture among each other, or of a prompt",
        ("attn1",),
    ),
    (
        "cross-attention",
        "attention of the picture's places to the prompt's tokens: where text enters the U-Net",
        ("attn2",),
    ),
    (
        "judge",
        "a classifier, trained apart from the model, that says what a picture shows",
        ("classifier", "judges"),
    ),
)

SAMPLING = (
    (
        "spacing",
        "the rule that says which noise levels a run visits",
        ("timestep spacing", "timestep_spacing", "Karras spacing"),
    ),
    (
        "ODE sampler",
        "a sampler that draws no noise after the start: the same start, the same end",
        ("ODE", "deterministic sampler", "probability flow"),
    ),
    (
        "SDE sampler",
        "a sampler that adds fresh noise on its way",
        ("SDE", "stochastic sampler", "ancestral sampler"),
    ),
    (
        "eta",
        "how much fresh noise DDIM adds: 0 none, 1 as much as DDPM",
        ("η", "ddim_eta"),
    ),
    (
        "order of convergence",
        "p, where halving the steps' size divides the error by about 2 to the power p",
        ("order",),
    ),
    (
        "multistep",
        "said of a sampler that uses its earlier network calls again instead of asking anew",
        ("multistep method", "linear multistep"),
    ),
    (
        "guidance",
        "asking the network without the prompt and with it, and going from the first answer to the "
        "second and beyond: uncond + g · (cond − uncond)",
        ("classifier-free guidance",),
    ),
    (
        "confidence interval",
        "the range that holds the true value in 95 of 100 such experiments; wide for few samples",
        ("95 % interval", "error bar"),
    ),
)

FIELD = (*TEXT, *LATENTS, *NOISE, *NETWORK, *SAMPLING)
