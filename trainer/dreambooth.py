"""DreamBooth (Ruiz et al. 2022): the U-Net learns the subject under its instance prompts, and keeps what it knows of the
class by training on class images beside it (prior preservation). With a trained embedding to start from, "pivotal tuning"
(Roich et al. 2021): first the word, then the model around it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from .base_model import DTYPES, BaseModel, encode_prompts, load_tokenizer, noise_schedule, tokenize
from .checkpoint import save_tensors
from .concept import Captions, cache_captions, cache_concept, distinct_captions, holding
from .embedding import load_vectors, new_ids, table_of, token_ids, tokenize_with, train_rows
from .events import Reporter, StopRequest
from .export import checkpoint_tensors, metadata, save_embedding
from .loop import Trained, make_accelerator, run_steps
from .lora import add_lora, lora_file
from .objective import concepts_loss, timestep_weights
from .optimizers import ParamGroup
from .photos import Dataset
from .rundir import Run, RunDir, at_step
from .sampling import Painter, class_image_folder, make_class_images, make_draw, save_grid
from .validation import make_measure, split_held_out

LOW_LORA_RATE = 1e-5
"""Below it the node says that a LoRA will learn next to nothing."""


def train(run: Run, run_dir: RunDir, device: str, reporter: Reporter, stop: StopRequest) -> dict:
    """Train what the settings name and write it: a checkpoint file with the base's names and types, or a LoRA file.

    A run that was given an embedding also writes the token's vectors. Returns what result.json says of the exported weights.
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
    text = _prepare_text(run, run_dir, [*texts, *prompts], text_encoder, tokenizer, stop)
    captions = text.captions
    del text_encoder  # `captions` keeps it where it is trained; else its memory is wanted

    vae = base.vae().to(accelerator.device)
    noise = {"caption_dropout": settings.caption_dropout, "noise_offset": settings.noise_offset}
    concepts = {
        name: cache_concept(name, dataset, texts, vae, run_dir.path, reporter, stop, **(noise if name == "instance" else {}))
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

    text_rate = settings.text_learning_rate or settings.learning_rate
    word = {"token_rows": text.vectors} if text.vectors is not None and text.vectors.requires_grad else {}
    groups = [
        ParamGroup(unet_params, settings.learning_rate, settings.weight_decay),
        ParamGroup(text.params, text_rate, settings.weight_decay),
        # No decay: it would only make the word weaker.
        ParamGroup(word, text_rate, weight_decay=0.0),
    ]

    def export(place: Callable[[str], Path], exported: dict) -> None:
        if run.embedding:
            save_embedding(place(run.embedding_path), text.vectors, run, exported)
        if settings.train == "lora":
            save_tensors(place(run.export_path), lora_file(unet_params, settings.lora_alpha), metadata(run, exported, "lora"))
        else:
            # The rows of a token that has no vectors of its own are CLIP's, and stay in its table.
            rows = dict(zip(text.rows, text.vectors, strict=True)) if word and not run.embedding else {}
            tensors = checkpoint_tensors(base, unet.state_dict(), text.params, rows)
            save_tensors(place(run.export_path), tensors, metadata(run, exported, "dreambooth"))

    def save(trained: Trained) -> None:
        export(lambda path: at_step(path, trained.step), trained.exported())
        reporter.emit("saved", text=at_step(run.export_path, trained.step).name)

    outcome = run_steps(
        groups=[group for group in groups if group.params],
        loss_of=loss_of,
        settings=settings,
        run_dir=run_dir,
        accelerator=accelerator,
        reporter=reporter,
        stop=stop,
        measure=make_measure(concepts, settings, schedule, predict, accelerator),
        draw=make_draw(run, run_dir, captions, Painter(unet, vae, accelerator), reporter, stop),
        save=save,
    )
    exported = outcome.exported()
    if not accelerator.is_main_process:
        return exported

    reporter.phase("exporting")
    if settings.sample_prompts and settings.sample_every:
        save_grid(run_dir)
    export(Path, exported)
    return exported


@dataclass(frozen=True)
class Text:
    """The text side of a run."""

    captions: Captions
    rows: list[int]
    """Ids that stand for the token: rows of CLIP's table, or, with an embedding, ids behind its end."""
    vectors: nn.Parameter | None
    """(V, 768): what these ids mean, where that is not what CLIP's table says."""
    params: dict[str, nn.Parameter]
    """The text encoder's own parameters, by their names in the model, where they are trained."""


def _prepare_text(
    run: Run, run_dir: RunDir, texts: list[str], text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer, stop: StopRequest
) -> Text:
    """The captions' states and what of the text encoder is trained. The token means the run's embedding if it has one."""
    settings, vectors = run.settings, None
    whole, trains_vectors = settings.train == "unet_and_text_encoder", settings.train != "unet"
    if run.embedding:
        start = load_vectors(run_dir.embedding)
        rows = new_ids(table_of(text_encoder), len(start))
        ids = tokenize_with(tokenizer, texts, settings.token, rows)
    else:
        start, rows, ids = None, token_ids(tokenizer, settings.token), tokenize(tokenizer, texts)
        trains_vectors = settings.train == "unet_and_token"
    ids = ids.to(text_encoder.device)
    params = dict(text_encoder.requires_grad_(whole).named_parameters()) if whole else {}
    if run.embedding or trains_vectors:
        own_rows = train_rows(text_encoder, rows, start).to(text_encoder.device)
        vectors = own_rows.vectors.requires_grad_(trains_vectors)
        own_rows.table.requires_grad_(whole)
    changing = (whole,) * len(texts)
    if trains_vectors and not whole:
        changing = holding(ids, rows)
    captions = cache_captions(texts, ids, text_encoder, changing, run_dir.path, stop)
    if whole:
        if settings.gradient_checkpointing:
            text_encoder.gradient_checkpointing_enable()
        text_encoder.train()
    return Text(captions, rows, vectors, {f"text_encoder.{name}": p for name, p in params.items()})


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
