"""The networks of a latent diffusion model, ours, in the layout of diffusers' checkpoints."""

from .tiny_vae import TINY, TinyVAE, TinyVAEConfig
from .unet import UNet
from .unet_config import UNetConfig
from .vae import VAE, VAEConfig, rename_attention_of_2022

__all__ = [
    "TINY",
    "VAE",
    "TinyVAE",
    "TinyVAEConfig",
    "UNet",
    "UNetConfig",
    "VAEConfig",
    "rename_attention_of_2022",
]
