"""DreamBooth (Ruiz et al. 2022): the U-Net learns the subject under its instance prompts, and keeps what it knows of the
class by training on class images beside it (prior preservation)."""

from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from .base_model import BaseModel, encode_prompts, load_tokenizer, noise_schedule, tokenize
from .checkpoint import save_tensors
from .concept import Captions, cache_captions, cache_concept, distinct_captions, holding
from .config import Settings
from .embedding import train_rows
from .events import Reporter, StopRequest
from .export import checkpoint_tensors, metadata
from .loop import make_accelerator, run_steps
from .lora import add_lora, lora_file
from .objective import concepts_loss, timestep_weights
from .optimizers import ParamGroup
from .photos import Dataset
from .rundir import Run, RunDir
from .sampling import Painter, class_image_folder, draw_samples, make_class_images, save_grid
from .validation import fixed_batches, measure, split_held_out

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
LOW_LORA_RATE = 1e-5
"""Below it the node says that a LoRA will learn next to nothing."""


def train(run: Run, run_dir: RunDir, device: str, reporter: Reporter, stop: StopRequest) -> dict:
    """Train what the settings name and write it: a checkpoint file with the base's names and types, or a LoRA file.

    Returns what result.json says of the exported weights.
    """
    settings = run.settings
    accelerator = make_accelerator(device, settings.precision)

    reporter.phase("loading")
    base = BaseModel(run_dir.base)
    tokenizer = load_tokenizer(run.tokenizer_path)
    text_encoder = base.text_encoder().to(accelerator.device)
    trained_photos, held_out = split_held_out(run.dataset, settings.hold_out, settings.seed)
    class_photos = run.class_dataset or _class_images(run, run_dir, base, text_encoder, tokenizer, accelerator, reporter, stop)

    datasets = {"instance": trained_photos, "class": class_photos, "held-out": held_out}
    datasets = {name: dataset for name, dataset in datasets.items() if dataset}
    texts = distinct_captions(list(datasets.values()))
    prompts = [prompt for prompt in settings.sample_prompts if prompt not in texts]
    rows = token_ids(tokenizer, settings.token)
    captions, text_params = _prepare_text(settings, [*texts, *prompts], rows, text_encoder, tokenizer)
    del text_encoder  # `captions` keeps it where it is trained; else its memory is wanted

    vae = base.vae().to(accelerator.device)
    noise = {"caption_dropout": settings.caption_dropout, "noise_offset": settings.noise_offset}
    concepts = {
        name: cache_concept(name, dataset, texts, vae, reporter, stop, **(noise if name == "instance" else {}))
        for name, dataset in datasets.items()
    }
    vae = vae.to("cpu") if settings.sample_prompts else None

    stop.check()
    unet = base.unet()
    if settings.train == "lora":
        unet_params = add_lora(unet, settings, DTYPES[settings.precision])
        if settings.learning_rate < LOW_LORA_RATE:
            reporter.warning(f"A learning rate of {settings.learning_rate:g} is low for a LoRA: it usually needs about 1e-4.")
    else:
        unet_params = dict(unet.requires_grad_(True).named_parameters())
    unet.train()
    if settings.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    unet.to(accelerator.device)  # in place: the parameters stay the same objects
    schedule = noise_schedule()
    weights = timestep_weights(schedule, settings.min_snr_gamma, accelerator.device)
    concept_weights = {"instance": 1.0, "class": settings.prior_loss_weight}
    weighted = [(concept, concept_weights[name]) for name, concept in concepts.items() if name in concept_weights]

    def predict(noisy: Tensor, timesteps: Tensor, batch_captions: list[int]) -> Tensor:
        return unet(noisy, timesteps, captions.states(batch_captions)).sample

    def loss_of(step: int) -> Tensor:
        share = accelerator.process_index, accelerator.num_processes
        batches = [c.step_batch(settings.seed, step, settings.batch_size, schedule, *share) for c, _ in weighted]
        return concepts_loss(batches, [weight for _, weight in weighted], weights, predict)

    names = {"held-out": "held_out", "instance": "trained", "class": "class"}
    fixed = {names[name]: fixed_batches(concept, schedule) for name, concept in concepts.items() if settings.validate_every}

    def measured() -> dict[str, float]:
        with accelerator.autocast():
            return measure(fixed, predict)

    def draw(step: int) -> None:
        with accelerator.autocast(), torch.no_grad():
            *states, empty = captions.states([captions.texts.index(p) for p in (*settings.sample_prompts, "")])
        painter = Painter(unet, vae, accelerator)
        draw_samples(run_dir, step, painter, states, empty, run.dataset.resolution, settings.seed, reporter, stop)

    text_rate = settings.text_learning_rate or settings.learning_rate
    # A token's rows are pulled towards nothing: decay would only weaken the word.
    text_decay = 0.0 if settings.train == "unet_and_token" else settings.weight_decay
    outcome = run_steps(
        groups=[
            ParamGroup(unet_params, settings.learning_rate, settings.weight_decay),
            *([ParamGroup(text_params, text_rate, text_decay)] if text_params else []),
        ],
        loss_of=loss_of,
        settings=settings,
        run_dir=run_dir,
        accelerator=accelerator,
        reporter=reporter,
        stop=stop,
        measure=measured if fixed else None,
        draw=draw if settings.sample_prompts else None,
    )
    exported = {"step": outcome.step, "weights": "ema" if outcome.averaged else "last"}
    if not accelerator.is_main_process:
        return exported

    reporter.phase("exporting")
    if settings.sample_prompts and settings.sample_every:
        save_grid(run_dir)
    if settings.train == "lora":
        tensors = lora_file(unet_params, settings.lora_alpha)
    else:
        tensors = checkpoint_tensors(base, unet.state_dict(), text_params, rows)
    save_tensors(Path(run.export_path), tensors, metadata(run, exported))
    return exported


def token_ids(tokenizer: CLIPTokenizer, token: str) -> list[int]:
    """The rows of CLIP's table that make up the token, each once: "mysks" -> those of "my" and "sks"."""
    return sorted(set(tokenizer(token, add_special_tokens=False).input_ids))


def _prepare_text(
    settings: Settings, texts: list[str], rows: list[int], text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> tuple[Captions, dict[str, nn.Parameter]]:
    """The captions' states, and what of the text encoder is trained, by its name in the model."""
    ids = tokenize(tokenizer, texts).to(text_encoder.device)
    if settings.train == "unet_and_token":
        vectors = train_rows(text_encoder, rows).vectors
        return cache_captions(texts, ids, text_encoder, holding(ids, rows)), {"token_rows": vectors}
    whole = settings.train == "unet_and_text_encoder"
    captions = cache_captions(texts, ids, text_encoder, (whole,) * len(texts))
    if not whole:
        return captions, {}
    if settings.gradient_checkpointing:
        text_encoder.gradient_checkpointing_enable()
    text_encoder.requires_grad_(True).train()
    return captions, {f"text_encoder.{name}": p for name, p in text_encoder.named_parameters()}


def _class_images(
    run: Run,
    run_dir: RunDir,
    base: BaseModel,
    text_encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    accelerator: Accelerator,
    reporter: Reporter,
    stop: StopRequest,
) -> Dataset | None:
    """Class images of the base itself, where a number of them is asked for."""
    settings = run.settings
    if not settings.class_images:
        return None
    prompt, size = settings.class_prompt, run.dataset.resolution
    states = encode_prompts(text_encoder, tokenizer, [prompt, ""])

    def painter() -> Painter:
        return Painter(base.unet().to(accelerator.device), base.vae(), accelerator)

    folder = class_image_folder(run_dir.path.parent, run.base_fingerprint, prompt, size)
    return make_class_images(
        folder, settings.class_images, prompt, run.dataset, painter, (states[0], states[1]), accelerator, reporter, stop
    )
