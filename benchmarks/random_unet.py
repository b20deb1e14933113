"""Our U-Net and diffusers' with the very same random weights, and the loop of each around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel

from diffusionlab.conditioning import prepare
from diffusionlab.models import VAE, UNet, UNetConfig, VAEConfig
from diffusionlab.pipeline import LatentDiffusion
from diffusionlab.plan import denoise
from diffusionlab.recorder import Recorder
from diffusionlab.samplers import make_plan
from diffusionlab.schedule import NoiseSchedule
from diffusionlab.stages import predict
from diffusionlab.trace import Settings, TextEmbedding, Trace

CROSS_DOWN, PLAIN_DOWN = "CrossAttnDownBlock2D", "DownBlock2D"
CROSS_UP, PLAIN_UP = "CrossAttnUpBlock2D", "UpBlock2D"
SIZES = {
    "sd15": dict(sample_size=64, cross_attention_dim=768),
    "sdxl": dict(
        sample_size=128, cross_attention_dim=2048, block_out_channels=(320, 640, 1280),
        down_block_types=(PLAIN_DOWN, CROSS_DOWN, CROSS_DOWN),
        up_block_types=(CROSS_UP, CROSS_UP, PLAIN_UP), transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20), use_linear_projection=True,
        addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816),
    "toyland": dict(
        sample_size=16, cross_attention_dim=192, block_out_channels=(96, 128),
        down_block_types=(CROSS_DOWN,) * 2, up_block_types=(CROSS_UP,) * 2, attention_head_dim=4),
    "small": dict(sample_size=32, cross_attention_dim=64, attention_head_dim=8,
                  block_out_channels=(64, 128, 256, 256)),
    "tiny": dict(sample_size=8, cross_attention_dim=32, attention_head_dim=4, norm_num_groups=8,
                 block_out_channels=(16, 32), layers_per_block=1,
                 down_block_types=(PLAIN_DOWN, CROSS_DOWN), up_block_types=(CROSS_UP, PLAIN_UP)),
    "tinyxl": dict(
        sample_size=8, cross_attention_dim=32, attention_head_dim=4, norm_num_groups=8,
        block_out_channels=(16, 32), layers_per_block=1, use_linear_projection=True,
        down_block_types=(PLAIN_DOWN, CROSS_DOWN), up_block_types=(CROSS_UP, PLAIN_UP),
        addition_embed_type="text_time", addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=8 * 6 + 20),
}  # fmt: skip
TOKENS, GUIDANCE = 77, 7.5
EVERYTHING = ("attention", "predictions")


def networks(size: str, device: str, dtype: torch.dtype) -> tuple[UNet2DConditionModel, UNet]:
    """Theirs and ours; the weights lie in memory once."""
    with torch.device("meta"):
        theirs = UNet2DConditionModel(**SIZES[size])
        ours = UNet(UNetConfig(**SIZES[size]))
    theirs = theirs.to(dtype).to_empty(device=device).eval().requires_grad_(False)
    torch.manual_seed(0)
    for parameter in theirs.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
        parameter.normal_(0, fan_in**-0.5)
    ours.load_state_dict(theirs.state_dict(), strict=True, assign=True)
    return theirs, ours.eval().requires_grad_(False)


def bundle(ours: UNet, size: str) -> LatentDiffusion:
    """A model around our U-Net; its other parts only say how large they are."""
    vae = VAE(VAEConfig(block_out_channels=(4, 4, 4, 4), norm_num_groups=4,
                        down_block_types=("DownEncoderBlock2D",) * 4,
                        up_block_types=("UpDecoderBlock2D",) * 4))  # fmt: skip
    encoder = torch.nn.Linear(1, 1)
    width = ours.config.cross_attention_dim
    encoder.config = SimpleNamespace(hidden_size=width, max_position_embeddings=TOKENS)
    schedule = NoiseSchedule.scaled_linear(prediction_type="eps")
    return LatentDiffusion(None, (encoder,), ours, vae, schedule, None, {"name": size}, Path())


class Task:
    """The inputs that both loops are given: noise, two texts and, for SDXL, what it is told too."""

    def __init__(self, ours: UNet, steps: int):
        config, weight = ours.config, ours.conv_in.weight
        self.steps, self.dtype, self.device = steps, weight.dtype, weight.device
        cells = config.sample_size
        self.latent = torch.randn(4, cells, cells).to(self.device)
        texts = torch.randn(2, TOKENS, config.cross_attention_dim)
        self.texts = texts.to(self.device, self.dtype)  # without the prompt, with it
        self.pooled = self.sizes = None
        if config.addition_embed_type:
            pooled = torch.randn(2, config.pooled_width)
            self.pooled = pooled.to(self.device, self.dtype)
            side = 8.0 * cells
            self.sizes = torch.tensor([[side, side, 0, 0, side, side]] * 2, device=self.device)

    def embedding(self, row: int) -> TextEmbedding:
        """One text as our record holds it."""
        if self.pooled is None:
            return TextEmbedding((self.texts[row],))
        return TextEmbedding((self.texts[row],), self.pooled[row], {"size_ids": self.sizes[row]})


def our_loop(model: LatentDiffusion, task: Task, record: tuple[str, ...] = ()) -> Callable:
    """All steps of DDIM with the package's own loop and recorder; gives the trace."""
    levels = model.schedule.levels(task.steps)
    plan = make_plan("ddim", levels, model.schedule)
    uncond, text = task.embedding(0), task.embedding(1)
    settings = Settings("random", "", "", 0, task.steps, {"name": "ddim", "options": {}}, "leading",
                        "clean", GUIDANCE, model.size, model.size, record)  # fmt: skip

    def run() -> Trace:
        prepared = prepare(model, text, uncond, GUIDANCE)

        def ask(point, level):
            return predict(model, point, level, text, uncond, GUIDANCE, prepared)

        recorder = Recorder(model, settings, None, text, uncond, plan)
        with recorder, torch.inference_mode():
            for step in denoise(plan, levels[0].sigma * task.latent, ask, None):
                recorder.keep(step)
            return recorder.finish(None)

    return run


def their_loop(net: torch.nn.Module, task: Task) -> Callable:
    """All steps of DDIM as diffusers' pipelines run them; gives the last latent."""
    betas = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    scheduler = DDIMScheduler(**betas, clip_sample=False, set_alpha_to_one=False, steps_offset=1)

    def run() -> torch.Tensor:
        scheduler.set_timesteps(task.steps, device=task.device)
        latents = task.latent[None].to(task.dtype) * scheduler.init_noise_sigma
        with torch.no_grad():
            for timestep in scheduler.timesteps:
                given = scheduler.scale_model_input(torch.cat([latents] * 2), timestep)
                said = their_call(net, task, given, timestep)
                uncond, cond = said.chunk(2)
                guided = uncond + GUIDANCE * (cond - uncond)
                latents = scheduler.step(guided, timestep, latents, return_dict=False)[0]
        return latents

    return run


def their_call(net, task: Task, sample: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
    """One call of diffusers' U-Net."""
    told = None
    if task.pooled is not None:
        told = {"text_embeds": task.pooled, "time_ids": task.sizes}
    return net(sample, timestep, encoder_hidden_states=task.texts, added_cond_kwargs=told,
               return_dict=False)[0]  # fmt: skip


@torch.inference_mode()
def difference(model: LatentDiffusion, theirs: UNet2DConditionModel, task: Task) -> float:
    """max |ours − theirs| / max |theirs| of one guided call."""
    level = model.schedule.levels(task.steps)[0]
    said = predict(model, task.latent, level, task.embedding(1), task.embedding(0), GUIDANCE)
    sample = task.latent.to(task.dtype).expand(2, *task.latent.shape)
    timestep = torch.tensor(level.timestep, device=task.device)
    reference = their_call(theirs, task, sample, timestep).float()
    ours = torch.stack([said.uncond, said.cond])
    return ((ours - reference).abs().max() / reference.abs().max()).item()
