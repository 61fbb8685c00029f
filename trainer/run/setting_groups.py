"""The groups of settings: each setting is said once, here, and everything else is made from it.

A field holds a setting's type, default, bounds and tooltip, and whether it decides the result. From it come the widget of the
node, the check on the server, the key of the run, the rows of the help pages and of docs/settings.md. Plain data, no torch.
"""

from dataclasses import dataclass

from ..parts import TRAIN, FrozenUNet
from ..parts.adapters import KINDS as LORA_KINDS
from ..parts.adapters import TARGETS as LORA_TARGETS
from .names import DREAMBOOTH, TEXTUAL_INVERSION
from .setting import AUTO, setting

PRIORS = ("class_images", "teacher", "teacher_outside_masks")
PRECISIONS = ("bf16", "fp16", "fp32")
MAX_STEPS, MAX_SAMPLE_PROMPTS, MAX_VECTORS = 200_000, 16, 64


@dataclass(frozen=True, kw_only=True)
class DreamBoothSettings:
    """What DreamBooth trains, and how it keeps what the model knows of the class (Ruiz et al. 2022)."""

    train: str = setting(
        "unet_and_token",
        "What is trained. auto: as the preset says. unet_and_token: the model and your token. unet: the model alone. "
        "unet_and_text_encoder: the model and the whole text encoder, which comes closest to the subject and forgets most of the "
        "class. lora: a LoRA, a small file beside the model, for cards with less than 8 GB. lora_and_token: a LoRA and an "
        "embedding of your token. lora_and_text_encoder: a LoRA of the model and of the text encoder, in one file.",
        options=tuple(TRAIN),
        advanced=False,
        methods=(DREAMBOOTH,),
        auto=AUTO,
    )
    prior: str = setting(
        "class_images",
        "What keeps the model from forgetting other members of the class. class_images: pictures of them, made (class_images) "
        "or given (class_dataset), where there are any. teacher: the original model's prediction for the class prompt is the "
        "target; no images. teacher_outside_masks: the original model's prediction is the target wherever the masks of your "
        "photos are black, so that no background is learned. A teacher of a whole model takes 1.7 GB more.",
        options=PRIORS,
        methods=(DREAMBOOTH,),
    )
    class_images: int = setting(
        0,
        "Number of pictures of the class ('a photo of a plush toy') that are made with the base model and trained on beside "
        "your photos, so that the model does not forget what other plush toys look like (prior preservation). -1: as the preset "
        "says; 0: none; 100 to 200 do well. They are kept for later runs.",
        low=0,
        high=2000,
        advanced=False,
        methods=(DREAMBOOTH,),
        auto=-1,
    )
    prior_loss_weight: float = setting(
        1.0,
        "How much the class images, or the teacher, count beside your photos. It has no effect without either. 1 suits class "
        "images; 3 lets a teacher keep about as much of the class.",
        low=0.0,
        high=100.0,
        step=0.01,
        methods=(DREAMBOOTH,),
    )
    text_learning_rate: float = setting(
        0.0,
        "Learning rate of all that is trained of the text: the token, the vectors of an embedding, the text encoder. 0: as the "
        "preset says, and where it says nothing, 1e-4 for unet_and_token and lora_and_token, 5e-5 for lora_and_text_encoder, "
        "else that of learning_rate.",
        low=0.0,
        high=1.0,
        step=1e-7,
        methods=(DREAMBOOTH,),
        auto=0.0,
    )
    lora_kind: str = setting(
        "lora",
        "LoRA: how it changes the layers (LyCORIS' algo). lora: by two narrow matrices, the usual one. lokr: by a Kronecker "
        "product, which takes more memory and makes a file about a twentieth as large. auto: lora.",
        options=LORA_KINDS,
        methods=(DREAMBOOTH,),
        auto=AUTO,
    )
    lora_rank: int = setting(
        16,
        "LoRA: how much it can learn, and how large its file becomes. 0: as the preset says, which is 16, or that of the LoRA "
        "to go on from.",
        low=1,
        high=320,
        methods=(DREAMBOOTH,),
        auto=0,
    )
    # The adapter's output is scaled by alpha / rank (Hu et al. 2021, section 4.1).
    lora_alpha: float = setting(
        16.0,
        "LoRA: what it adds to a layer is scaled by alpha / rank. 0: alpha equals the rank, which is usual; half of it is, too.",
        low=0.001,
        high=10_000.0,
        step=0.01,
        methods=(DREAMBOOTH,),
        auto=0.0,
    )
    lora_layers: str = setting(
        "attention_and_feed_forward",
        "LoRA: which layers it changes (peft's target modules). attention: the fewest, in the smallest file. "
        "attention_and_feed_forward: the rest of the transformer blocks too, which learns more at the same rank. all: the "
        "residual blocks too, with their convolutions; the file becomes more than twice as large. auto: "
        "attention_and_feed_forward.",
        options=tuple(LORA_TARGETS),
        methods=(DREAMBOOTH,),
        auto=AUTO,
    )
    class_prompt: str = ""
    """The prompt that class images are made with; from the dataset, no widget."""


@dataclass(frozen=True, kw_only=True)
class TextualInversionSettings:
    """Which embedding vectors are learned, and under which prompts (Gal et al. 2022)."""

    initializer: str = setting(
        "",
        "Where training starts: one or more words close to the subject ('brown toy'), or an embedding, as 'embedding:name', with "
        "as many vectors as it has. Empty: the mean of the class word.",
        placeholder="toy",
        advanced=False,
        methods=(TEXTUAL_INVERSION,),
    )
    vectors: int = setting(
        1,
        "Number of embedding vectors of the token. More hold more of the subject, and take as many of the 75 places that a "
        "prompt has; 1 to 8 are usual.",
        low=1,
        high=MAX_VECTORS,
        advanced=False,
        methods=(TEXTUAL_INVERSION,),
    )
    template_set: str = setting(
        "captions",
        "The prompts that the photos are trained under. captions: their own, with the token put in. object or style: those that "
        "were published with the method ('a photo of a mysks', 'a painting in the style of mysks').",
        options=("captions", "object", "style"),
        advanced=False,
        methods=(TEXTUAL_INVERSION,),
    )
    norm_limit: float = setting(
        0.0,
        "Limits the length of each vector to this many times the median length in CLIP's vocabulary, so that your token does not "
        "drown out the rest of the prompt. 0: no limit; 1 to 3 is strict.",
        low=0.0,
        high=1000.0,
        step=0.1,
        methods=(TEXTUAL_INVERSION,),
    )


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """How long the run is, and how a step is computed."""

    steps: int = setting(
        800,
        "Optimizer steps of the run. 0: as the preset says; where it says nothing, 100 for each photo, at least 400 and at most "
        "3000, or for an embedding 200 for each, at least 2000 and at most 3000. DreamBooth's preset 'study, 24 GB' has 1600 for "
        "15 photos.",
        low=1,
        high=MAX_STEPS,
        advanced=False,
        inversion_default=2000,
        auto=0,
    )
    batch_size: int = setting(
        1,
        "Photos per step; DreamBooth adds as many class images, where there are any. 0: as the preset says. DreamBooth's preset "
        "'study, 24 GB' has 8.",
        low=1,
        high=64,
        auto=0,
    )
    gradient_accumulation_steps: int = setting(
        1,
        "Number of batches whose gradients are averaged into one step: like a larger batch_size, with the memory of a small one.",
        low=1,
        high=1000,
    )
    seed: int = setting(
        0,
        "Decides noise, timesteps and the order of the photos. The same seed gives the same result.",
        low=0,
        high=2**64 - 1,
    )
    # What is trained is always fp32.
    precision: str = setting(
        "fp32",
        "Type of the forward pass. auto: as the preset says, and where it says nothing, bf16 if the device has it, else fp16 on "
        "NVIDIA cards that can, else fp32. The trained weights themselves are always kept as fp32.",
        options=PRECISIONS,
        auto=AUTO,
    )
    gradient_checkpointing: bool = setting(
        False,
        "Needs less memory and more time: parts of the forward pass are computed twice. The result is the same. auto: as the "
        "preset says.",
        decides=False,
        auto=AUTO,
    )
    low_memory: bool = setting(
        False,
        "Lets a whole model be trained on a card of 8 GB: gradients are kept in the computer's own memory, 2 GB of it or with "
        "gradient_accumulation_steps 6, and what bf16 cannot hold of a weight is kept apart. Takes more time; the result is the "
        "same but for rounding. It does most in bf16 with adamw_8bit, less with ema_decay or several devices, nothing with "
        "prodigy. auto: as the preset says.",
        decides=False,
        methods=(DREAMBOOTH,),
        auto=AUTO,
    )
    checkpoint_every: int = setting(
        0,
        "Steps between two saved states, from which a run that was stopped goes on. 0: every five minutes, or less often where "
        "saving takes long.",
        low=0,
        high=MAX_STEPS,
        decides=False,
    )
    devices: int = setting(
        1, "Number of GPUs of this computer that share the batch. The result is the same.", low=1, high=64, decides=False
    )
    keep_state: bool = setting(
        False,
        "Keeps the saved state of the finished run (with AdamW three times the size of what is trained), so that the same run "
        "with more steps goes on from there. A run that was stopped goes on in any case.",
        decides=False,
    )
    export_on_cancel: bool = setting(
        False,
        "When you cancel, also exports the weights trained so far, as <run>-step-000120. The state is saved in any case.",
        decides=False,
    )
    # It decides: a finished run that has not kept these files is not the one that was asked for.
    save_every: int = setting(
        0,
        "Steps between two files of the result as it is then, named <run>-step-000500, so that you can go back to an earlier "
        "one. A whole model takes 2 to 4 GB each time. 0: only the last is kept.",
        low=0,
        high=MAX_STEPS,
    )
    text_layer: int = -1
    """The layer of the text encoder that prompts are read from, counted as ComfyUI's CLIP Set Last Layer does: -1 is the last, -2
    the last but one ("clip skip 2"). From the base's CLIP, no widget."""


@dataclass(frozen=True, kw_only=True)
class ValidationSettings:
    """How overfitting is measured, and what follows from it."""

    hold_out: int = setting(
        0,
        "Number of photos kept out of training, to measure overfitting: when the loss on them rises, the model has begun to "
        "memorise your photos. 2 of 15 photos are usual.",
        low=0,
        high=10_000,
        advanced=False,
    )
    early_stopping: str = setting(
        "off",
        "What the loss on the held-out photos decides. export_best exports the step at which it was lowest; "
        "stop_and_export_best also ends the run when it no longer falls.",
        options=("off", "export_best", "stop_and_export_best"),
    )
    validate_every: int = setting(
        0,
        "Steps between two measurements of the loss on held-out photos, on trained photos and, where there are any, on class "
        "images, always under the same noise. 0: twenty over the run when photos are held out, else none.",
        low=0,
        high=MAX_STEPS,
    )


@dataclass(frozen=True, kw_only=True)
class SampleSettings:
    """The pictures that are drawn while the run trains, and of more prompts later."""

    sample_prompts: tuple[str, ...] = setting(
        (),
        "Prompts, one a line. Pictures of them are drawn during training, always from the same noise, and laid side by side at "
        "the end. A finished run draws those that you add with its result.",
        multiline=True,
        placeholder="a photo of mysks plush toy near books",
        advanced=False,
        decides=False,
    )
    sample_every: int = setting(
        0,
        "Steps between two rounds of sample pictures. 0: eight rounds over the run.",
        low=0,
        high=MAX_STEPS,
        decides=False,
    )


@dataclass(frozen=True, kw_only=True)
class OptimizerSettings:
    """The optimizer, its learning rate over the run, and the average of the weights."""

    learning_rate: float = setting(
        2e-6,
        "How far a step goes. 0: as the preset says, which is 2e-6 to 5e-6 for the model, where too high a rate overfits and "
        "forgets the class, 1e-4 for a LoRA, 5e-3 for an embedding.",
        low=0.0,
        high=1.0,
        step=1e-7,
        inversion_default=FrozenUNet.learning_rate,
        auto=0.0,
    )
    lr_scheduler: str = setting(
        "constant",
        "How the learning rate changes over the run, after the warm-up. auto: as the preset says. cosine_with_restarts starts "
        "from the top three times; polynomial falls as a square does, sooner than linear.",
        options=("constant", "linear", "cosine", "cosine_with_restarts", "polynomial"),
        auto=AUTO,
    )
    lr_warmup_steps: int = setting(
        0, "Steps over which the learning rate rises from 0. Not more than steps.", low=0, high=MAX_STEPS
    )
    optimizer: str = setting(
        "adamw",
        "auto: as the preset says. adamw: the usual one. adamw_8bit: the same with a quarter of its memory. "
        "adafactor: about as little memory, without bitsandbytes. prodigy: finds the learning rates by itself; leave them at 0.",
        options=("adamw", "adamw_8bit", "adafactor", "prodigy"),
        auto=AUTO,
    )
    weight_decay: float = setting(
        1e-2,
        "Pulls the trained weights towards zero a little. The token is never pulled.",
        low=0.0,
        high=1.0,
        step=0.0001,
        methods=(DREAMBOOTH,),
    )
    max_grad_norm: float = setting(
        1.0,
        "Scales larger gradients down to this norm, so that one odd photo cannot throw training off. 0: never.",
        low=0.0,
        high=1000.0,
        step=0.01,
    )
    ema_decay: float = setting(
        0.0,
        "Exports an exponential moving average of the weights, which is smoother. 0: the weights themselves; 0.99 suits a few "
        "hundred steps, 0.9999 many thousands. Needs 4 bytes more for each trained weight.",
        low=0.0,
        high=0.99999,
        step=0.00001,
    )


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """What the loss counts, and under which noise and captions it is computed."""

    # min(SNR, gamma) / SNR of a timestep (Hang et al. 2023).
    min_snr_gamma: float = setting(
        0.0,
        "Lets nearly clean pictures count less in the loss, for steadier training (min-SNR). 0: off; 5 is usual.",
        low=0.0,
        high=1000.0,
        step=0.5,
    )
    # Guttenberg 2023, "Diffusion with offset noise".
    noise_offset: float = setting(
        0.0,
        "Adds noise that is constant over the picture, so that very dark and very bright pictures can be learned. 0: off; 0.05 "
        "to 0.1 is usual.",
        low=0.0,
        high=1.0,
        step=0.001,
    )
    # For classifier-free guidance (Ho and Salimans 2022).
    caption_dropout: float = setting(
        0.0,
        "Share of the captions that are left empty, which makes the sampler's cfg work better on your subject. 0.1 is usual.",
        low=0.0,
        high=1.0,
        step=0.01,
        methods=(DREAMBOOTH,),
    )
