"""What type checkers and editors see; plots and samplers are looked up in their packages."""

from typing import Any

from . import (
    analysis as analysis,
    display as display,
    errors as errors,
    ideal as ideal,
    images as images,
    inside as inside,
    models as models,
    noise as noise,
    pipeline as pipeline,
    plan as plan,
    plots as plots,
    samplers as samplers,
    schedule as schedule,
    stages as stages,
    taps as taps,
    toyland as toyland,
    trace as trace,
    views as views,
    vocabulary as vocabulary,
)
from .budget import RecordingSize as RecordingSize
from .budget import recording_size as recording_size
from .errors import (
    CheckpointError as CheckpointError,
    DiffusionLabError as DiffusionLabError,
    InputError as InputError,
    MemoryExceeded as MemoryExceeded,
    NumericsError as NumericsError,
    TraceError as TraceError,
)
from .generate import (
    denoise as denoise,
    denoise_many as denoise_many,
    generate as generate,
)
from .inside.anatomy import anatomy as anatomy
from .inside.estimate import estimate as estimate
from .inside.interventions import (
    freeze_attention as freeze_attention,
    reweight_words as reweight_words,
    swap_text as swap_text,
    zero_heads as zero_heads,
    zero_tap as zero_tap,
)
from .inside.merges import merge_steps as merge_steps
from .inside.noising import (
    fit_preview as fit_preview,
    noise_image as noise_image,
)
from .inside.text import (
    embed_images as embed_images,
    embed_layers as embed_layers,
)
from .noise import (
    BrownianPath as BrownianPath,
    Sequential as Sequential,
)
from .pipeline import (
    LatentDiffusion as LatentDiffusion,
    checkpoints as checkpoints,
    load as load,
    save as save,
)
from .pipeline.offload import offloaded as offloaded
from .playground import playground as playground
from .samplers import (
    SAMPLERS as SAMPLERS,
    Sampler as Sampler,
    make_plan as make_plan,
    translate_name as translate_name,
)
from .schedule import (
    SPACINGS as SPACINGS,
    NoiseLevel as NoiseLevel,
    NoiseSchedule as NoiseSchedule,
    custom_spacing as custom_spacing,
    flow_levels as flow_levels,
)
from .side_by_side import compare as compare
from .stages import (
    add_noise as add_noise,
    decode as decode,
    draw_noise as draw_noise,
    embed as embed,
    encode as encode,
    predict as predict,
    tokenize as tokenize,
    update as update,
)
from .taps import (
    find_taps as find_taps,
    recording as recording,
    watching as watching,
)
from .trace import (
    Anatomy as Anatomy,
    Comparison as Comparison,
    Estimate as Estimate,
    Guidance as Guidance,
    Latent as Latent,
    Merges as Merges,
    Noising as Noising,
    Prediction as Prediction,
    Settings as Settings,
    Step as Step,
    TextEmbedding as TextEmbedding,
    TextLayers as TextLayers,
    Tokens as Tokens,
    Trace as Trace,
)
from .views import (
    View as View,
    diff as diff,
    exhibit as exhibit,
    explore as explore,
    explore_schedule as explore_schedule,
    explore_text as explore_text,
    quiz as quiz,
    race as race,
)

__version__: str

def __getattr__(name: str) -> Any: ...  # plot_… and the samplers
