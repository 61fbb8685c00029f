"""The settings of a run, checked when they are made. Plain data, no torch. Each one is said in setting_groups.py."""

import dataclasses
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, fields
from typing import Any, get_origin

from .checks import check_between, check_option
from .messages import UserError
from .names import METHODS, TEXTUAL_INVERSION, check_token
from .setting import AUTO, Setting
from .setting_groups import (
    MAX_SAMPLE_PROMPTS,
    DreamBoothSettings,
    LossSettings,
    OptimizerSettings,
    SampleSettings,
    TextualInversionSettings,
    TrainingSettings,
    ValidationSettings,
)

SWITCH = {"on": True, "off": False}
"""What the widget of a switch calls its values where a preset may decide it."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that a run is asked to do. Raises UserError for a value that is out of bounds or contradicts another."""

    method: str
    """One of METHODS."""
    token: str
    """The rare word that stands for the subject; in Textual Inversion the placeholder token."""
    class_word: str = ""
    """What the subject is ("plush toy"); may be empty."""
    dreambooth: DreamBoothSettings = field(default_factory=DreamBoothSettings)
    inversion: TextualInversionSettings = field(default_factory=TextualInversionSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    validation: ValidationSettings = field(default_factory=ValidationSettings)
    samples: SampleSettings = field(default_factory=SampleSettings)
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    loss: LossSettings = field(default_factory=LossSettings)

    @classmethod
    def of(cls, **values: Any) -> "Settings":
        """Return the settings of values by name, each put into its group; a setting that is not named has its default.

        Raises TypeError for a name that no setting has.
        """
        own = {name: values.pop(name) for name in ("method", "token", "class_word") if name in values}
        groups = {
            group: kind(**{f.name: values.pop(f.name) for f in fields(kind) if f.name in values})
            for group, kind in GROUPS.items()
        }
        if values:
            raise TypeError(f"There are no settings {', '.join(values)}.")
        return cls(**own, **groups)

    def replace(self, **values: Any) -> "Settings":
        """Return the same settings with other values, given by name whatever their group."""
        return Settings.of(**{**self.flat(), **values})

    def flat(self) -> dict[str, Any]:
        """Return the value of each setting by its name."""
        own = {"method": self.method, "token": self.token, "class_word": self.class_word}
        return own | {f.name: value for f, value in self._each()}

    @classmethod
    def from_json(cls, data: dict) -> "Settings":
        """Read what `dataclasses.asdict` gave to JSON. Raises KeyError, TypeError or ValueError for anything else."""
        groups = {group: kind(**data[group]) for group, kind in GROUPS.items()}
        prompts = groups["samples"].sample_prompts
        if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
            raise TypeError("sample_prompts is not a list of texts")
        groups["samples"] = dataclasses.replace(groups["samples"], sample_prompts=tuple(prompts))
        return cls(method=data["method"], token=data["token"], class_word=data["class_word"], **groups)

    def deciding(self, unused: Collection[str] = (), has_class: bool = False) -> dict[str, Any]:
        """Return the settings that decide the result, by name: what a run's key is made of.

        `unused` are those that change nothing because of what is trained; `has_class` is whether class images are given.
        Settings at their defaults are left out, so that a new setting leaves the keys of older runs as they are. A default that
        changes is a new format of runs.
        """
        unused = {*unused, *self._without_effect(has_class)}
        own = {"method": self.method, "token": self.token, "class_word": self.class_word}
        named = own | {f.name: value for f, value in self._each() if value != f.default and _decides(f)}
        return {name: value for name, value in named.items() if name not in unused}

    def _without_effect(self, has_class: bool) -> Iterator[str]:
        """Return the settings that change nothing of the result, whatever their value, because of other settings."""
        if not self.has_class_prompt:
            yield "class_prompt"
        if not (self.has_class_prompt or self.has_teacher or has_class):
            yield "prior_loss_weight"
        if self.dreambooth.text_learning_rate == self.optimizer.learning_rate:  # what its default, 0, means
            yield "text_learning_rate"
        if self.validation.early_stopping == "off":
            yield "validate_every"
        if self.training.save_every >= self.training.steps:
            yield "save_every"

    @property
    def has_teacher(self) -> bool:
        """Return whether the model as it was says what the trained one shall predict: for the class, or outside of masks."""
        return self.dreambooth.prior != "class_images"

    @property
    def has_class_teacher(self) -> bool:
        """Return whether it says so for the class."""
        return self.dreambooth.prior == "teacher"

    @property
    def has_class_prompt(self) -> bool:
        """Return whether the class prompt is used: for class images that are made, or a teacher of the class."""
        return self.has_class_teacher or self.dreambooth.class_images > 0

    @property
    def splits_weights(self) -> bool:
        """Return whether masters of bf16 are kept in two pieces: not where all of them are needed at once."""
        optimizer = self.optimizer
        needs_all = optimizer.ema_decay or optimizer.optimizer == "prodigy"
        return self.training.low_memory and self.training.precision == "bf16" and not needs_all

    @property
    def moves_gradients(self) -> bool:
        """Return whether gradients lie in the computer's memory: not those that devices exchange, or Prodigy needs at once."""
        training = self.training
        return training.low_memory and training.devices == 1 and self.optimizer.optimizer != "prodigy"

    @property
    def uses_captions(self) -> bool:
        """Return whether the photos are trained under their captions, and not under published prompts."""
        return self.inversion.template_set == "captions"  # as always in DreamBooth, which has no such widget

    def trigger(self, token: str) -> str:
        """Return what means the subject in a prompt, `token` spelled as given: with the class, if training saw it there."""
        return f"{token} {self.class_word if self.uses_captions else ''}".strip()

    def _each(self) -> Iterator[tuple[dataclasses.Field, Any]]:
        for group in GROUPS:
            for f in fields(getattr(self, group)):
                yield f, getattr(getattr(self, group), f.name)

    def __post_init__(self) -> None:
        check_token(self.token)
        check_option("method", self.method, METHODS)
        for f, value in self._each():
            _check_type(f, value)
            if "setting" in f.metadata:
                _check_bounds(f.name, value, f.metadata["setting"])
        self._check_together()

    def _check_together(self) -> None:
        """Raise UserError for settings that contradict each other."""
        training, optimizer, validation = self.training, self.optimizer, self.validation
        check_batch_split(training.batch_size, training.devices)
        check_between("lr_warmup_steps", optimizer.lr_warmup_steps, 0, training.steps)
        if validation.early_stopping != "off" and not (validation.hold_out and validation.validate_every):
            raise UserError(
                "early_stopping {choice!r} goes by the loss on held-out photos, measured every validate_every steps: set "
                "hold_out to 1 or more.",
                choice=validation.early_stopping,
            )
        rates = {"learning_rate": optimizer.learning_rate} if optimizer.learning_rate < 0.1 else {}
        if self.dreambooth.text_learning_rate:
            rates["text_learning_rate"] = self.dreambooth.text_learning_rate
        if optimizer.optimizer == "prodigy" and rates:
            raise UserError(
                "Prodigy finds the learning rates itself: leave learning_rate and text_learning_rate at 0, in place of {rates}.",
                rates=[f"{name} {rate:g}" for name, rate in rates.items()],
            )
        if self.has_class_prompt and not (self.dreambooth.class_prompt.strip() and self.dreambooth.prior_loss_weight):
            raise UserError("Class images and a teacher need a class prompt and a prior_loss_weight above 0.")
        if self.has_teacher and not self.dreambooth.prior_loss_weight:
            raise UserError("prior is {prior}, which prior_loss_weight 0 leaves without effect.", prior=self.dreambooth.prior)
        if self.has_teacher and self.dreambooth.class_images:
            raise UserError(
                "class_images is {count}, but prior is {prior}, which needs none. Set class_images to 0, or prior to "
                "class_images.",
                count=self.dreambooth.class_images,
                prior=self.dreambooth.prior,
            )
        if len(self.samples.sample_prompts) > MAX_SAMPLE_PROMPTS:
            raise UserError(
                "There are {count} sample prompts; at most {most} are drawn.",
                count=len(self.samples.sample_prompts),
                most=MAX_SAMPLE_PROMPTS,
            )


GROUPS: dict[str, Any] = {f.name: f.type for f in fields(Settings) if dataclasses.is_dataclass(f.type)}
"""The groups of settings by their names in `Settings`, in the order of the nodes' widgets."""


def method_settings(method: str) -> dict[str, dataclasses.Field]:
    """Return the settings that the node of a method (one of METHODS) has as widgets, by name, in their order."""
    each = (f for kind in GROUPS.values() for f in fields(kind) if "setting" in f.metadata)
    return {f.name: f for f in each if method in f.metadata["setting"].methods}


def widget_default(f: dataclasses.Field) -> Any:
    """Return the default of a setting's widget: what leaves it to the preset where one decides it; of prompts a text."""
    of: Setting = f.metadata["setting"]
    if of.auto is not None:
        return of.auto
    return "\n".join(f.default) if isinstance(f.default, tuple) else f.default


def plain_default(f: dataclasses.Field, method: str) -> Any:
    """Return what a setting is where neither the user nor a preset says it."""
    of: Setting = f.metadata["setting"]
    return of.inversion_default if method == TEXTUAL_INVERSION and of.inversion_default is not None else f.default


def widget_options(f: dataclasses.Field) -> tuple[str, ...]:
    """Return the choices of a setting's widget; none for what is no choice, nor a switch that a preset may decide."""
    of: Setting = f.metadata["setting"]
    options = of.options or (tuple(SWITCH) if f.type is bool and of.auto is not None else ())
    return (AUTO, *options) if options and of.auto is not None else options


def check_batch_split(batch_size: int, devices: int) -> None:
    """Raise UserError unless the devices can share a batch evenly."""
    if batch_size % devices:
        raise UserError(
            "batch_size is {batch_size}; {devices} devices cannot share it evenly. Use a multiple of {devices}.",
            batch_size=batch_size,
            devices=devices,
        )


def check_text_layer(layer: int, depth: int) -> None:
    """Raise UserError unless a text encoder of so many layers has this one: -1 is its last, -depth its first."""
    if not -depth <= layer <= -1:
        raise UserError(
            "The text encoder has {depth} layers, and CLIP Set Last Layer is {layer}. Set it between {low} and -1; -1 and -2 are "
            "usual.",
            depth=depth,
            layer=layer,
            low=-depth,
        )


def _decides(f: dataclasses.Field) -> bool:
    return f.metadata["setting"].decides if "setting" in f.metadata else True


def _check_type(f: dataclasses.Field, value: Any) -> None:
    kind: Any = get_origin(f.type) or f.type
    fits = isinstance(value, int | float if kind is float else kind) and (kind is bool or not isinstance(value, bool))
    if not fits:
        raise UserError("{name} is {value!r}; it must be a {kind}.", name=f.name, value=value, kind=kind.__name__)


def _check_bounds(name: str, value: Any, of: Setting) -> None:
    if of.options:
        check_option(name, value, of.options)
    elif of.low is not None and of.high is not None:
        check_between(name, value, of.low, of.high)
