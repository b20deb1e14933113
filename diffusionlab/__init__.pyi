"""What type checkers and editors see; plots and samplers are looked up in their packages."""

from typing import Any

from . import analysis as analysis
from . import display as display
from . import errors as errors
from . import ideal as ideal
from . import images as images
from . import models as models
from . import noise as noise
from . import pipeline as pipeline
from . import plan as plan
from . import plots as plots
from . import samplers as samplers
from . import schedule as schedule
from . import stages as stages
from . import taps as taps
from . import toyland as toyland
from . import trace as trace
from . import vocabulary as vocabulary
from .errors import (
    CheckpointError as CheckpointError,
)
from .errors import (
    DiffusionLabError as DiffusionLabError,
)
from .errors import (
    InputError as InputError,
)
from .errors import (
    MemoryExceeded as MemoryExceeded,
)
from .errors import (
    NumericsError as NumericsError,
)
from .errors import (
    TraceError as TraceError,
)
from .generate import (
    compare as compare,
)
from .generate import (
    denoise as denoise,
)
from .generate import (
    generate as generate,
)
from .noise import (
    BrownianPath as BrownianPath,
)
from .noise import (
    Sequential as Sequential,
)
from .pipeline import (
    LatentDiffusion as LatentDiffusion,
)
from .pipeline import (
    load as load,
)
from .pipeline import (
    save as save,
)
from .samplers import (
    SAMPLERS as SAMPLERS,
)
from .samplers import (
    Sampler as Sampler,
)
from .samplers import (
    make_plan as make_plan,
)
from .schedule import (
    SPACINGS as SPACINGS,
)
from .schedule import (
    NoiseLevel as NoiseLevel,
)
from .schedule import (
    NoiseSchedule as NoiseSchedule,
)
from .stages import (
    add_noise as add_noise,
)
from .stages import (
    decode as decode,
)
from .stages import (
    draw_noise as draw_noise,
)
from .stages import (
    embed as embed,
)
from .stages import (
    encode as encode,
)
from .stages import (
    predict as predict,
)
from .stages import (
    tokenize as tokenize,
)
from .stages import (
    update as update,
)
from .taps import (
    find_taps as find_taps,
)
from .taps import (
    recording as recording,
)
from .taps import (
    watching as watching,
)
from .trace import (
    Comparison as Comparison,
)
from .trace import (
    Latent as Latent,
)
from .trace import (
    Prediction as Prediction,
)
from .trace import (
    Settings as Settings,
)
from .trace import (
    Step as Step,
)
from .trace import (
    TextEmbedding as TextEmbedding,
)
from .trace import (
    Tokens as Tokens,
)
from .trace import (
    Trace as Trace,
)

__version__: str

def __getattr__(name: str) -> Any: ...  # plot_… and the samplers
