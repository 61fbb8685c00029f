"""The widgets of both training nodes beyond the base's sockets: how it is trained, measured and shown.

`Settings` documents what each one does.
"""

from comfy_api.latest import io

from ..trainer.config import EARLY_STOPPING, MAX_STEPS, OPTIMIZERS, Settings


def number(kind, name: str, default, low, high, step, tooltip: str, *, advanced: bool = True) -> io.Input:
    """An optional number; `kind` is io.Int or io.Float."""
    options = {"round": 1e-9} if kind is io.Float else {}
    return kind.Input(
        name, optional=True, default=default, min=low, max=high, step=step, advanced=advanced, tooltip=tooltip, **options
    )


def choice(name: str, options: tuple[str, ...], default: str, tooltip: str, *, advanced: bool = True) -> io.Input:
    return io.Combo.Input(name, optional=True, options=list(options), default=default, advanced=advanced, tooltip=tooltip)


def common_inputs() -> dict[str, io.Input]:
    """By name. All optional, so that a graph which does not name them gets the defaults."""
    inputs = [
        number(
            io.Int,
            "hold_out",
            0,
            0,
            10_000,
            1,
            "So many photos are not trained on. When the loss on them rises, training has begun to learn your photos by heart. "
            "2 of 15 is a good share.",
            advanced=False,
        ),
        choice(
            "early_stopping",
            EARLY_STOPPING,
            Settings.early_stopping,
            "By the held-out photos: export_best exports the step that was best on them; stop_and_export_best also ends the run "
            "when it no longer gets better.",
            advanced=False,
        ),
        io.String.Input(
            "sample_prompts",
            optional=True,
            default="",
            multiline=True,
            placeholder="a photo of mysks plush toy near books",
            tooltip="One prompt a line. Pictures of them are drawn during training, always from the same noise, and laid side by "
            "side at the end.",
        ),
        number(
            io.Int,
            "sample_every",
            0,
            0,
            MAX_STEPS,
            50,
            "Steps between two rounds of sample pictures. 0: eight rounds over the run.",
        ),
        number(
            io.Int,
            "validate_every",
            0,
            0,
            MAX_STEPS,
            10,
            "Steps between two measurements of the loss on held-out photos, trained photos and class pictures, always with "
            "the same noise. 0: twenty over the run when photos are held out, else none.",
        ),
        number(
            io.Int,
            "gradient_accumulation_steps",
            1,
            1,
            1000,
            1,
            "So many batches are averaged into one step: like a larger batch_size, with the memory of a small one.",
        ),
        choice(
            "optimizer",
            OPTIMIZERS,
            Settings.optimizer,
            "adamw: the usual one. adamw_8bit: the same in a quarter of its memory, as in the study. adafactor: needs the "
            "least. prodigy: finds the learning rate by itself; set learning_rate to 1.",
        ),
        number(
            io.Float,
            "max_grad_norm",
            Settings.max_grad_norm,
            0.0,
            1000.0,
            0.1,
            "Larger gradients are scaled down to this, so that one odd photo cannot throw training off. 0: never.",
        ),
        number(
            io.Float,
            "min_snr_gamma",
            Settings.min_snr_gamma,
            0.0,
            100.0,
            0.5,
            "Above 0, nearly clean pictures count less in the loss: steadier training. 5 is usual; 0: off, as in the study.",
        ),
        number(
            io.Float,
            "noise_offset",
            Settings.noise_offset,
            0.0,
            1.0,
            0.01,
            "Above 0, very dark and very bright pictures can be learned. 0.05 to 0.1 is usual.",
        ),
        number(
            io.Float,
            "ema_decay",
            Settings.ema_decay,
            0.0,
            0.99999,
            0.001,
            "Above 0, a moving average of the weights is exported, which is smoother. 0.99 for some hundred steps, 0.9999 for "
            "many thousands. Needs 4 bytes more for each trained weight.",
        ),
        number(
            io.Int,
            "devices",
            1,
            1,
            64,
            1,
            "GPUs of this computer that share the batch. The result is the same.",
        ),
        io.Boolean.Input(
            "keep_state",
            optional=True,
            default=False,
            advanced=True,
            tooltip="Keep the saved state when the run is finished (as large as what is trained, three times), so that the same "
            "run with more steps goes on from there. A run that was stopped goes on in any case.",
        ),
        io.Boolean.Input(
            "export_on_cancel",
            optional=True,
            default=False,
            advanced=True,
            tooltip="When you cancel, also export what there is, as <run>-step-000120. The state is saved in any case.",
        ),
    ]
    return {each.id: each for each in inputs}


def common_settings(widgets: dict) -> dict:
    """The widgets' values as fields of `Settings`: the prompts as a tuple, and the intervals that 0 leaves to us."""
    prompts = tuple(" ".join(line.split()) for line in widgets.get("sample_prompts", "").splitlines() if line.strip())
    steps = widgets["steps"]
    validate_every = widgets.get("validate_every", 0) or (max(1, steps // 20) if widgets.get("hold_out", 0) else 0)
    sample_every = (widgets.get("sample_every", 0) or max(1, steps // 8)) if prompts else 0
    return widgets | {"sample_prompts": prompts, "sample_every": sample_every, "validate_every": validate_every}
