"""Textual Inversion (Gal et al. 2022): the model stays as it is, a new word's embedding learns the subject."""

from pathlib import Path

from torch import Tensor

from .base_model import DTYPES, BaseModel, freeze_as, load_tokenizer, noise_schedule
from .captions import has_word
from .concept import cache_captions, cache_concept, distinct_captions, holding
from .embedding import initial_vectors, load_vectors, new_ids, norm_limiter, table_of, tokenize_with, train_rows
from .events import Reporter, StopRequest
from .export import save_embedding
from .loop import Trained, make_accelerator, run_steps
from .objective import concepts_loss, timestep_weights
from .optimizers import ParamGroup
from .rundir import Run, RunDir, at_step
from .sampling import Painter, make_draw, save_grid
from .templates import SETS
from .validation import make_measure, split_held_out


def train(run: Run, run_dir: RunDir, device: str, reporter: Reporter, stop: StopRequest) -> dict:
    """Train the vectors of the run's token and write them as an embedding file.

    Returns what result.json says of the exported vectors.
    """
    settings = run.settings
    accelerator = make_accelerator(device, settings.precision)

    reporter.phase("loading")
    base = BaseModel(run_dir.base)
    tokenizer = load_tokenizer(run.tokenizer_path)
    text_encoder = base.text_encoder()
    table = table_of(text_encoder)
    if run.embedding:
        start = load_vectors(run_dir.embedding)
    else:
        start = initial_vectors(table, tokenizer, settings.initializer, settings.class_word, settings.vectors)
    ids = new_ids(table, len(start))
    vectors = train_rows(text_encoder, ids, start).to(accelerator.device).vectors
    text_encoder.to(accelerator.device)

    trained_photos, held_out = split_held_out(run.dataset, settings.hold_out, settings.seed)
    datasets = {"instance": trained_photos, "held-out": held_out}
    datasets = {name: dataset for name, dataset in datasets.items() if dataset}
    wordings = [template.format(settings.token) for template in SETS.get(settings.template_set, ())]
    texts = ["", *dict.fromkeys(wordings)] if wordings else distinct_captions(list(datasets.values()))
    wordless = [text for text in texts if text and not has_word(text, settings.token)]
    if wordless:
        raise ValueError(f"The caption {wordless[0]!r} does not contain the token {settings.token!r}.")
    texts += [prompt for prompt in settings.sample_prompts if prompt not in texts]
    tokens = tokenize_with(tokenizer, texts, settings.token, ids).to(accelerator.device)
    captions = cache_captions(texts, tokens, text_encoder, holding(tokens, ids), run_dir.path, stop)

    vae = base.vae().to(accelerator.device)
    noise = {"noise_offset": settings.noise_offset}
    concepts = {
        name: cache_concept(
            name, dataset, texts, vae, run_dir.path, reporter, stop, wordings=wordings, **(noise if name == "instance" else {})
        )
        for name, dataset in datasets.items()
    }
    vae = vae.to("cpu") if settings.sample_prompts else None

    stop.check()
    unet = base.unet()
    freeze_as(unet, DTYPES[settings.precision])  # gradients flow through it, none are kept for it
    if settings.gradient_checkpointing:
        unet.train().enable_gradient_checkpointing()
        text_encoder.train()
        text_encoder.gradient_checkpointing_enable()
    unet.to(accelerator.device)
    schedule = noise_schedule()
    weights = timestep_weights(schedule, settings.min_snr_gamma, accelerator.device)

    def predict(noisy: Tensor, timesteps: Tensor, batch_captions: list[int]) -> Tensor:
        return unet(noisy, timesteps, captions.states(batch_captions)).sample

    def loss_of(step: int) -> Tensor:
        share = accelerator.process_index, accelerator.num_processes
        batch = concepts["instance"].step_batch(settings.seed, step, settings.batch_size, schedule, *share)
        return concepts_loss([batch], [1.0], weights, predict)

    export_path = Path(run.export_path)

    def save(trained: Trained) -> None:
        path = at_step(export_path.with_name(f"{run.id}.safetensors"), trained.step)
        save_embedding(path, vectors, run, trained.exported())
        reporter.emit("saved", text=path.name)

    outcome = run_steps(
        # No decay: it would only make the word weaker.
        groups=[ParamGroup({"vectors": vectors}, settings.learning_rate, weight_decay=0.0)],
        loss_of=loss_of,
        settings=settings,
        run_dir=run_dir,
        accelerator=accelerator,
        reporter=reporter,
        stop=stop,
        measure=make_measure(concepts, settings, schedule, predict, accelerator),
        draw=make_draw(run, run_dir, captions, Painter(unet, vae, accelerator), reporter, stop),
        save=save,
        after_step=norm_limiter(vectors, table, settings.norm_limit) if settings.norm_limit else None,
    )
    exported = outcome.exported()
    if not accelerator.is_main_process:
        return exported

    reporter.phase("exporting")
    if settings.sample_prompts and settings.sample_every:
        save_grid(run_dir)
    save_embedding(export_path, vectors, run, exported)
    return exported
