"""The two networks of a latent diffusion model, ours, in the layout of diffusers' checkpoints."""

from .unet import UNet
from .unet_config import UNetConfig
from .vae import VAE, VAEConfig, rename_attention_of_2022

__all__ = ["VAE", "UNet", "UNetConfig", "VAEConfig", "rename_attention_of_2022"]
