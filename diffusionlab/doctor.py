"""What `diffusionlab doctor` looks at: each check says what it found, and the fix or nothing.

What is heavy is imported inside the functions; none of them changes anything.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from diffusionlab.errors import shown

EXTENSIONS = {  # package → its folder among JupyterLab's extensions
    "anywidget": "anywidget",
    "jupyterlab_widgets": "@jupyter-widgets/jupyterlab-manager",
}


def check_python() -> tuple[str, str]:
    """The interpreter: 3.11 or newer."""
    found = ".".join(map(str, sys.version_info[:3]))
    old = sys.version_info < (3, 11)
    return f"{found} ({sys.executable})", "install Python 3.11 or newer" if old else ""


def check_torch() -> tuple[str, str]:
    """PyTorch's version: 2.10 or newer."""
    try:
        import torch
    except ImportError as error:
        return f"not usable ({shown(str(error))})", 'pip install "torch>=2.10"'
    numbers = tuple(int(part) for part in torch.__version__.split(".")[:2])
    return torch.__version__, 'pip install -U "torch>=2.10"' if numbers < (2, 10) else ""


def check_device() -> tuple[str, str]:
    """Where models run: the accelerator if torch sees one."""
    try:
        import torch
    except ImportError:
        return "unknown without torch", ""
    if torch.accelerator.is_available():
        device = torch.accelerator.current_accelerator()
        name = f" ({torch.cuda.get_device_name(0)})" if device.type == "cuda" else ""
        return device.type + name, ""
    cpu = f"cpu ({torch.get_num_threads()} threads)"
    fix = "pip install torch, the CUDA build (this one has none)"
    return cpu, fix if shutil.which("nvidia-smi") and not torch.version.cuda else ""


def check_kernel() -> tuple[str, str]:
    """What the notebooks run on: the widgets' Python side, and which Python a notebook starts."""
    found, missing = _installed("anywidget", "ipywidgets", "ipykernel")
    if missing:
        return found, f"pip install {' '.join(missing)}, then restart the kernel"
    python = Path(_kernel_command())
    if python.is_absolute() and python.parent != Path(sys.executable).parent:
        return f"{found}, but notebooks start {python}", "python -m ipykernel install --sys-prefix"
    return found, ""


def _kernel_command() -> str:
    """The program that a notebook's "python3" starts; "python" is the server's own."""
    try:
        from jupyter_client.kernelspec import KernelSpecManager

        return KernelSpecManager().get_kernel_spec("python3").argv[0]
    except (ImportError, KeyError):  # no Jupyter, which `check_server` says; no such kernel
        return "python"


def check_server() -> tuple[str, str]:
    """What shows the notebooks: JupyterLab, and the widgets' side in its pages."""
    found, missing = _installed("jupyterlab", "jupyterlab_widgets")
    if missing:
        return found, f"pip install {' '.join(missing)}, then restart JupyterLab"
    from jupyter_core.paths import jupyter_path

    places = [Path(place) for place in jupyter_path("labextensions")]
    absent = [p for p, name in EXTENSIONS.items() if not any((q / name).is_dir() for q in places)]
    if absent:
        again = f"pip install --force-reinstall --no-deps {' '.join(absent)}"
        return f"{found}, without the page's side of {', '.join(absent)}", again
    other = shutil.which("jupyter-lab")
    if other and Path(other).parent != Path(sys.executable).parent:
        found += f" (`{other}` is another one: open this one by `diffusionlab lab`)"
    return found, ""


def check_trust() -> tuple[str, str]:
    """What a notebook of somebody else's needs before its pages show."""
    return (
        "a notebook from elsewhere shows its pages once it is run, or `jupyter trust x.ipynb`",
        "",
    )


def _installed(*packages: str) -> tuple[str, list[str]]:
    """The packages with their versions as one text, and those that are not there."""
    from importlib.metadata import PackageNotFoundError, version

    found, missing = [], []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    return ", ".join(found) or "none", missing


def check_cache() -> tuple[str, str]:
    """The folder that downloaded checkpoints go to."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE)
    nearest = next(place for place in (folder, *folder.parents) if place.exists())
    writable = os.access(nearest, os.W_OK)
    fix = "" if writable else "set HF_HOME to a folder that you can write into"
    return f"{folder}{'' if folder.exists() else ' (not there yet)'}", fix


def check_offline() -> tuple[str, str]:
    """Whether downloads are switched off; Toyland needs none."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return "yes: only Toyland, folders and what is cached load (unset HF_HUB_OFFLINE)", ""
    return "no: `--model <hub id>` may download", ""


CHECKS: dict[str, Callable[[], tuple[str, str]]] = {
    "Python": check_python,
    "torch": check_torch,
    "device": check_device,
    "kernel": check_kernel,
    "server": check_server,
    "trust": check_trust,
    "cache": check_cache,
    "offline": check_offline,
}
