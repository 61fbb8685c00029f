"""What a run is told: frozen settings, checked when they are made. Plain data, no torch."""

import re
from dataclasses import asdict, dataclass, fields
from typing import get_origin

METHODS = ("dreambooth", "textual_inversion")
PRECISIONS = ("bf16", "fp16", "fp32")
LR_SCHEDULERS = ("constant", "linear", "cosine", "cosine_with_restarts", "polynomial")
OPTIMIZERS = ("adamw", "adamw_8bit", "adafactor", "prodigy")
TRAINED = ("unet", "unet_and_token", "unet_and_text_encoder", "lora")
LORA_LAYERS = ("attention", "attention_and_convolution")
TEMPLATE_SETS = ("captions", "object", "style")
EARLY_STOPPING = ("off", "export_best", "stop_and_export_best")
MAX_STEPS, MAX_BATCH = 200_000, 64
MAX_CLASS_IMAGES, MAX_SAMPLE_PROMPTS, MAX_VECTORS = 2000, 16, 64

NOT_DECIDING = ("gradient_checkpointing", "checkpoint_every", "devices", "keep_state", "export_on_cancel")
"""Settings that do not change the result: how fast it is reached, and what is kept beside it."""

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


def check_shared(batch_size: int, devices: int) -> None:
    """ValueError when so many devices cannot share a batch evenly."""
    if batch_size % devices:
        raise ValueError(f"batch_size is {batch_size}; {devices} devices cannot share it evenly. Use a multiple of {devices}.")


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
    """Everything a run is asked to do, in the units of the widgets. All of it decides the result, but NOT_DECIDING."""

    method: str
    """One of METHODS."""
    token: str
    """The word that stands for the subject; in textual inversion the placeholder token."""
    class_word: str = ""
    """What the subject is ("plush toy"); may be empty."""
    steps: int
    """Optimizer steps."""
    batch_size: int
    """Photos that the device (or all devices together) sees at a time; with prior preservation as many class images again."""
    gradient_accumulation_steps: int = 1
    """Batches whose gradients are averaged into one optimizer step."""
    learning_rate: float
    lr_scheduler: str = "constant"
    """One of LR_SCHEDULERS: how diffusers' schedule of that name goes on after the warm-up."""
    lr_warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    optimizer: str = "adamw"
    """One of OPTIMIZERS."""
    weight_decay: float = 1e-2
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm where it is larger; 0 leaves it as it is."""
    seed: int
    precision: str
    """One of PRECISIONS: the type that the forward pass is cast to. What is trained, and the optimizer, are always fp32."""

    # Textual Inversion
    vectors: int = 1
    """How many embedding vectors the token stands for."""
    initializer: str = ""
    """The words whose embeddings the vectors start from; empty: the mean of the class word's."""
    template_set: str = "captions"
    """One of TEMPLATE_SETS: under the photos' own captions, or under the published prompts for a subject or a style."""
    norm_limit: float = 0.0
    """No vector grows longer than so many times the median of CLIP's vocabulary; 0: as long as it likes."""
    save_every: int = 0
    """Steps between two files of the embedding as it then is; 0: only the last."""

    # DreamBooth
    train: str = "unet"
    """One of TRAINED. "unet_and_token": the embedding rows of the token's CLIP pieces too, the study's recipe.

    In a run that was given an embedding, the token's own vectors are trained with all of them but "unet".
    """
    text_learning_rate: float = 0.0
    """Of the token's rows or the text encoder; 0 means learning_rate."""
    lora_rank: int = 16
    lora_alpha: float = 16.0
    """The adapter's output is scaled by alpha / rank (Hu et al. 2021, section 4.1)."""
    lora_layers: str = "attention"
    """One of LORA_LAYERS."""
    prior_loss_weight: float = 0.0
    """Prior preservation: how much the loss on class images counts beside the subject's; 0 without class images."""
    class_images: int = 0
    """How many class images are made from the base with the class prompt; 0 when they are given, or not wanted."""
    class_prompt: str = ""
    """What they are made with."""
    caption_dropout: float = 0.0
    """Share of the captions that are left empty, for classifier-free guidance (Ho and Salimans 2022)."""
    min_snr_gamma: float = 0.0
    """Loss weight min(SNR, gamma) / SNR of a timestep (Hang et al. 2023); 0: all timesteps alike. The paper has 5."""
    noise_offset: float = 0.0
    """How much noise that is constant over the picture is added, so that brightness is learned too."""
    ema_decay: float = 0.0
    """Export an exponential moving average of the weights, its decay rising to this value; 0: the weights themselves."""
    hold_out: int = 0
    """Photos that are not trained on but measured."""
    validate_every: int = 0
    """Steps between two measurements of the loss under fixed noise and timesteps; 0: none."""
    early_stopping: str = "off"
    """One of EARLY_STOPPING: what follows from the held-out loss."""
    sample_prompts: tuple[str, ...] = ()
    sample_every: int = 0
    """Steps between two rounds of sample pictures; 0: none."""

    gradient_checkpointing: bool = False
    """Compute the forward pass twice a step to keep few of its activations in memory."""
    checkpoint_every: int = 500
    """Steps between two saved states."""
    keep_state: bool = False
    """Keep the saved state of the finished run, so that it can be made longer."""
    export_on_cancel: bool = False
    """Also export what there is when the run is stopped before its end."""
    devices: int = 1
    """Processes, each with a device of its own, that share the batch."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, kind = getattr(self, field.name), get_origin(field.type) or field.type
            if not isinstance(value, (int, float) if kind is float else kind) or (isinstance(value, bool) and kind is not bool):
                raise ValueError(f"{field.name} is {value!r}; it must be a {kind.__name__}.")
        check_token(self.token)
        for name, low, high in (
            ("steps", 1, MAX_STEPS),
            ("batch_size", 1, MAX_BATCH),
            ("gradient_accumulation_steps", 1, 1000),
            ("lr_warmup_steps", 0, self.steps),
            ("checkpoint_every", 1, MAX_STEPS),
            ("learning_rate", 0, 1),
            ("text_learning_rate", 0, 1),
            ("weight_decay", 0, 1),
            ("max_grad_norm", 0, 1000),
            ("lora_rank", 1, 320),
            ("lora_alpha", 0.001, 10_000),
            ("prior_loss_weight", 0, 100),
            ("class_images", 0, MAX_CLASS_IMAGES),
            ("caption_dropout", 0, 1),
            ("min_snr_gamma", 0, 1000),
            ("noise_offset", 0, 1),
            ("ema_decay", 0, 0.99999),
            ("hold_out", 0, 10_000),
            ("validate_every", 0, MAX_STEPS),
            ("sample_every", 0, MAX_STEPS),
            ("save_every", 0, MAX_STEPS),
            ("vectors", 1, MAX_VECTORS),
            ("norm_limit", 0, 1000),
            ("devices", 1, 64),
            ("seed", 0, 2**64 - 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} is {value}; it must be between {low} and {high}.")
        for name, known in (
            ("method", METHODS),
            ("precision", PRECISIONS),
            ("lr_scheduler", LR_SCHEDULERS),
            ("optimizer", OPTIMIZERS),
            ("train", TRAINED),
            ("lora_layers", LORA_LAYERS),
            ("early_stopping", EARLY_STOPPING),
            ("template_set", TEMPLATE_SETS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"Unknown {name} {getattr(self, name)!r}; known are {', '.join(known)}.")
        self._check_together()

    def _check_together(self) -> None:
        """ValueError for settings that contradict each other."""
        check_shared(self.batch_size, self.devices)
        if self.early_stopping != "off" and not (self.hold_out and self.validate_every):
            raise ValueError(
                f"early_stopping '{self.early_stopping}' goes by the loss on held-out photos, measured every validate_every "
                "steps: set hold_out to 1 or more."
            )
        if self.optimizer == "prodigy" and (self.learning_rate < 0.1 or self.text_learning_rate):
            raise ValueError(
                "Prodigy finds the learning rates itself: set learning_rate to 1 and text_learning_rate to 0, "
                f"not {self.learning_rate:g} and {self.text_learning_rate:g}."
            )
        if self.class_images and not (self.class_prompt.strip() and self.prior_loss_weight):
            raise ValueError("Class images need a class prompt and a prior_loss_weight above 0.")
        if len(self.sample_prompts) > MAX_SAMPLE_PROMPTS:
            raise ValueError(f"There are {len(self.sample_prompts)} sample prompts; at most {MAX_SAMPLE_PROMPTS} are drawn.")

    def deciding(self) -> dict:
        """The settings that decide the result: what a run's key is made of.

        Those at their defaults are left out, so that a new setting leaves the keys of older runs as they are. A default that
        changes is a new format of runs.
        """
        defaults = {field.name: field.default for field in fields(self)}
        named = {name: value for name, value in asdict(self).items() if name not in NOT_DECIDING}
        return {name: value for name, value in named.items() if value != defaults[name]}

    def trigger(self, word: str) -> str:
        """What means the subject in a prompt, where `word` stands for the token: with the class, if training saw it there."""
        return f"{word} {self.class_word if self.template_set == 'captions' else ''}".strip()
