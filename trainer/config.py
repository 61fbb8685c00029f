"""What a run is told: frozen settings, checked when they are made. Plain data, no torch."""

import re
from dataclasses import asdict, dataclass

METHODS = ("dreambooth", "textual_inversion")
PRECISIONS = ("bf16", "fp16", "fp32")
LR_SCHEDULERS = ("constant", "linear", "cosine")
MAX_STEPS, MAX_BATCH = 200_000, 64

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(r"\w[\w .-]{0,63}")
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}


def check_token(token: str) -> str:
    """The token without surrounding blanks; ValueError unless it is one word that can also be a file name."""
    token = token.strip()
    if not token:
        raise ValueError("The token is empty. Give the subject a rare word of its own, for example 'mysks'.")
    if not _TOKEN.fullmatch(token) or token.lower() in _RESERVED:
        raise ValueError(
            f"The token {token!r} cannot be used: it must be one word of letters A-Z, digits, '-' and '_' (at most 64). "
            "Try 'mysks'."
        )
    return token


def check_name(name: str) -> str:
    """The run name without surrounding blanks; ValueError unless it is a plain file name on every system."""
    name = name.strip()
    if not name:
        raise ValueError("The name is empty. Give the run a name, for example 'my-plush-toy'.")
    if not _NAME.fullmatch(name) or name.endswith(".") or name.split(".")[0].strip().lower() in _RESERVED:
        raise ValueError(
            f"The name {name!r} cannot be a file name: use letters, digits, blanks, '.', '-' and '_' (at most 64), "
            "beginning with a letter or digit."
        )
    return name


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything a run is asked to do, in the units of the widgets. All of it but the last two decides the result."""

    method: str
    """One of METHODS."""
    token: str
    """The word that stands for the subject; in textual inversion the placeholder token."""
    class_word: str = ""
    """What the subject is ("plush toy"); may be empty."""
    initializer: str = ""
    """Textual inversion: the words whose embedding the vector starts from."""
    prior_loss_weight: float = 0.0
    """Prior preservation: how much the loss on class images counts beside the subject's; 0 without class images."""
    steps: int
    """Optimizer steps."""
    batch_size: int
    """Photos per step; with prior preservation as many class images again."""
    learning_rate: float
    lr_scheduler: str = "constant"
    """One of LR_SCHEDULERS: how diffusers' schedule of that name goes on after the warm-up."""
    lr_warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    weight_decay: float = 1e-2
    seed: int
    precision: str
    """One of PRECISIONS: the type that the forward pass is cast to. Weights and optimizer are always fp32."""
    gradient_checkpointing: bool = False
    """Compute the forward pass twice a step to keep few of its activations in memory. Does not change the result."""
    checkpoint_every: int = 500
    """Steps between two saved states. Does not change the result."""

    def __post_init__(self) -> None:
        check_token(self.token)
        if self.method not in METHODS:
            raise ValueError(f"Unknown method {self.method!r}; known are {', '.join(METHODS)}.")
        for name, low, high in (
            ("steps", 1, MAX_STEPS),
            ("batch_size", 1, MAX_BATCH),
            ("lr_warmup_steps", 0, self.steps),
            ("checkpoint_every", 1, MAX_STEPS),
            ("learning_rate", 0, 1),
            ("weight_decay", 0, 1),
            ("prior_loss_weight", 0, 100),
            ("seed", 0, 2**64 - 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; it must be between {low} and {high}.")
        if self.precision not in PRECISIONS:
            raise ValueError(f"Unknown precision {self.precision!r}; known are {', '.join(PRECISIONS)}.")
        if self.lr_scheduler not in LR_SCHEDULERS:
            raise ValueError(f"Unknown lr_scheduler {self.lr_scheduler!r}; known are {', '.join(LR_SCHEDULERS)}.")

    def deciding(self) -> dict:
        """The settings that decide the result: what a run's key is made of."""
        settings = asdict(self)
        del settings["gradient_checkpointing"], settings["checkpoint_every"]
        return settings
