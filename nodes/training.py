"""What both training nodes do once the run is known: find its result, or have a worker train it."""

import logging
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..trainer.dataset.photos import check_hold_out
from ..trainer.run.choice import Asked, Choice, check_used, choices, choose
from ..trainer.run.eight_bit import REPAIR, why_no_8bit_there
from ..trainer.run.files import partial_file, write_json
from ..trainer.run.locks import held
from ..trainer.run.messages import Message, UserError, message
from ..trainer.run.resources import describe_resources, estimate, refusal
from ..trainer.run.run_dir import Run, RunDir, passed_over, shorter_run
from ..trainer.run.slow import slow_parts
from ..trainer.run.summary import summary
from .comfy import device
from .comfy.base_model import Base
from .comfy.embeddings import Embedding
from .comfy.exported_files import ExportedFiles, exported_files
from .comfy.folders import check_writable, free_disk, output_picture, runs_root
from .comfy.lora_files import Lora
from .comfy.new_run import make_run, with_its_places
from .comfy.progress import check_interrupted
from .comfy.result_changes import asked_to_go_on, give_up_result, remember_returned
from .more_samples import draw_new_prompts
from .page.language import in_all_languages, joined
from .page.live_runs import LiveRun, QueuedNode, live_run
from .page.loss_chart import draw_loss_chart
from .worker_process import WorkerError, run_worker

log = logging.getLogger("subject_trainer")

TRAINING_SHARE = 0.4
"""Share of a bare matrix product's speed that a training step is assumed to reach, for the estimate of the time."""


@dataclass(frozen=True, kw_only=True)
class TrainingRequest:
    """A run that a node wants the result of."""

    run: Run
    base: Base
    node: QueuedNode
    """The node, whose progress the page shows."""
    embedding: Embedding | None = None
    """The vectors that the token starts from."""
    lora: Lora | None = None
    """The file that a LoRA goes on from."""
    notes: Sequence[Message] = ()
    """What the user should know before, while and after it trains."""
    without_8bit: Run | None = None
    """The run that takes its place where 8-bit AdamW cannot run."""


@dataclass(frozen=True)
class Finished:
    """The result of a run as the training nodes return it."""

    run: Run
    """What was trained: not always what was asked for first, see `with_another_optimizer`."""
    exported: ExportedFiles
    loss: dict
    """LOSS_MAP: {"loss": [one a step]}."""
    ui: dict
    """What the node shows: a text, and as the job's pictures the grid of the samples, where there is one, and the chart."""


def request_for(
    name: str, asked: Asked, base: Base, hidden, embedding: Embedding | None, lora: Lora | None = None
) -> TrainingRequest:
    """Return the run that a node with these hidden inputs asks for, by its preset, its widgets and the device."""
    there = replace(device.description(asked.widgets.get("devices", 1)), eight_bit=True)
    first = run = make_run(name, asked, choose(asked, there), base, embedding, lora)

    def other(choice: Choice) -> Run:
        settings = choice.settings.replace(text_layer=base.text_layer)
        return with_its_places(replace(first, name=name, settings=settings, choice=choice.told))

    there = replace(there, held=device.held_by_models())  # the base among them, which was loaded to be hashed
    if there.held:  # more than when the graph ran before: a result of then is found all the same
        runs = [other(choice) for choice in choices(asked, there)]
        there_already = [RunDir(runs_root() / one.id) for one in runs]
        begun = (one for one, of in zip(runs, there_already, strict=True) if exported_files(of) or of.state.is_file())
        run = next(begun, runs[-1])
    check_used(asked, run)
    check_hold_out(run.settings.validation.hold_out, len(run.dataset.photos))
    without_8bit = None
    if run.settings.optimizer.optimizer == "adamw_8bit":
        without_8bit = other(choose(asked, replace(there, eight_bit=False)))
    node, notes = QueuedNode.running(hidden.unique_id), [*rename_note(name, run), *clip_skip_notes(run), *slow_parts(run)]
    return TrainingRequest(run=run, base=base, node=node, embedding=embedding, lora=lora, notes=notes, without_8bit=without_8bit)


def clip_skip_notes(run: Run) -> list[Message]:
    """Return how to read prompts where the exported file is used, if not from the text encoder's last layer."""
    layer = run.settings.training.text_layer
    if layer == -1:
        return []
    return [
        message(
            "Trained with CLIP Set Last Layer at {layer}. The CLIP of this node has it; where you load the exported file with "
            "other nodes, set it too.",
            layer=layer,
        )
    ]


def trained_or_loaded(request: TrainingRequest) -> Finished:
    """Return the run's result: at once when it is finished, else after training from its newest state.

    Raises UserError when device, disk or folders cannot take the run, WorkerError when training fails, and ComfyUI's exception
    on cancel.
    """
    run_dir = RunDir(runs_root() / request.run.id)
    goes_on = asked_to_go_on(run_dir)
    result = None if goes_on else exported_files(run_dir)
    of_finished: list[Message] = []
    if result:
        of_finished += kept_as_trained(request.run, run_dir)
        of_finished += draw_new_prompts(request.run, request.base, request.node, result)
    if result is None and request.run.settings.optimizer.optimizer == "adamw_8bit":
        reason = why_no_8bit_there(device.name())
        if reason:
            return trained_or_loaded(with_another_optimizer(request, run_dir, reason))
    result = result or _train(request, run_dir, goes_on)
    remember_returned(request.run, result)
    choice = request.run.choice
    assert choice  # every node's run has one
    lines: list[Message | str] = [*request.notes, *of_finished]
    with passed_over(run_dir.path):  # what it says of itself is no more than told
        lines += summary(run_dir)
        draw_loss_chart(run_dir)
    lines += [choice, result.file.name]
    log.info("%s: %s", request.run.id, ", ".join(map(str, lines)))
    # Always the same names: of a node that runs for each item of a list, ComfyUI joins what is shown by the names of the first.
    pictures = [output_picture(path) for path in (run_dir.grid, run_dir.loss_chart) if path.is_file()]
    ui = {"text": (joined(lines),), "told": (in_all_languages(lines),), "run": (request.run.id,), "images": pictures}
    return Finished(request.run, result, {"loss": run_dir.losses()}, ui)


def rename_note(asked: str, run: Run) -> list[Message]:
    """Return that the run goes by the name that it had before, if so."""
    if run.name == asked:
        return []
    return [message("This run is there already, as {run}: another name alone trains nothing anew.", run=run.id)]


def kept_as_trained(run: Run, run_dir: RunDir) -> list[Message]:
    """Return what is asked of a finished run that would have had to happen while it trained: not pictures of more prompts."""
    was: dict = {}
    with passed_over(run_dir.path):
        was = run_dir.load_run().settings.flat()
    asked = run.settings.flat()
    names = ["validate_every", *(["sample_every"] if was.get("sample_prompts") else [])]
    changed = [name for name in names if name in was and asked[name] and was[name] != asked[name]]
    if not changed:
        return []
    return [
        message(
            "{run} is finished, and is not trained again for another {settings}: its pictures and measurements are those that it "
            "was trained with.",
            run=run.id,
            settings=changed,
        )
    ]


def with_another_optimizer(request: TrainingRequest, run_dir: RunDir, reason: str) -> TrainingRequest:
    """Return the request of what to train where 8-bit AdamW cannot run: so the memory of what will run is checked.

    Raises UserError for a run that has begun with 8-bit AdamW: its state is of no use to another.
    """
    if run_dir.state.is_file() or shorter_run(request.run, run_dir.path.parent):
        raise UserError(
            "{run} has begun with 8-bit AdamW, which cannot run here any more ({reason}). Repair it in ComfyUI's Python "
            "({repair}), restart ComfyUI and queue the graph again to go on; or choose optimizer adamw to begin anew.",
            run=request.run.id,
            reason=reason,
            repair=REPAIR,
        )
    assert request.without_8bit
    note = message(
        "8-bit AdamW cannot run here ({reason}): AdamW is used instead. It needs 6 more bytes for each trained weight.",
        reason=reason,
    )
    if request.without_8bit.settings.optimizer.optimizer != "adamw":
        note = message("8-bit AdamW cannot run here ({reason}): another choice was made", reason=reason)
    return replace(request, run=request.without_8bit, notes=(*request.notes, note), without_8bit=None)


def _train(request: TrainingRequest, run_dir: RunDir, goes_on: bool) -> ExportedFiles:
    """Train the run, unless another ComfyUI does so meanwhile; one that goes on gives up its result once nothing refuses it."""
    run = request.run
    for note in request.notes:
        log.warning("%s: %s", run.id, note)
    run_dir.check_way()
    resources = check_resources(run, run_dir, request.base)
    with live_run(run, request.node, request.notes) as progress:

        def on_wait() -> None:
            progress.show(message("Another ComfyUI trains this run: waiting"))

        with held(run_dir.graph_lock, on_wait, check_interrupted):
            if goes_on:
                give_up_result(run_dir)
            result = exported_files(run_dir)
            if result is None:
                _prepare(request, run_dir, progress, resources)
                result = _run_worker(request, run_dir, progress)
        progress.show(message("Finished"))
    return result


def check_resources(run: Run, run_dir: RunDir, base: Base) -> Message:
    """Return what the run will need. Raises UserError when a folder, the disk or the devices cannot give it."""
    training = run.settings.training
    refused = device.refusal(training.devices, training.precision, training.low_memory)
    if refused:
        raise UserError(refused.template, **refused.values)
    for folder in {run_dir.path.parent, *(Path(path).parent for path in (run.export_path, run.embedding_path) if path)}:
        check_writable(folder)
    resources = estimate(run, base.unet_weights(), base.size())
    written = sum(path.stat().st_size for path in (run_dir.base, run_dir.state) if path.is_file())
    there = replace(device.description(training.devices), held=device.held_by_models())
    reason = refusal(resources, run, there, free_disk() + written)
    if reason:
        raise UserError(reason.template, **reason.values)
    seconds = resources.flop / training.devices / (device.matmul_speed(training.precision) * TRAINING_SHARE)
    text = describe_resources(run.choice, resources, seconds)
    log.info("%s: %s", run.id, text)
    return text


def _prepare(request: TrainingRequest, run_dir: RunDir, progress: LiveRun, resources: Message) -> None:
    """Write what the worker reads, but for the base: run.json, what training starts from, and the state of a shorter run."""
    # In this order: a worker that outlived its ComfyUI may be finishing the run right now.
    if run_dir.finished and exported_files(run_dir) is None:
        run_dir.result_json.unlink()  # its exported file was deleted
    run_dir.set_samples_aside(request.run.settings.samples.sample_prompts)
    write_json(run_dir.run_json, request.run.to_json())  # first of all: a page that learns of the run asks for it
    progress.show_choice(resources)
    if request.embedding and not run_dir.embedding.is_file():
        request.embedding.save(run_dir.embedding)
    if request.lora and not run_dir.lora.is_file():
        request.lora.save(run_dir.lora)
    if not run_dir.state.is_file():
        progress.show(lengthen(request.run, run_dir))


def lengthen(run: Run, run_dir: RunDir) -> Message:
    """Begin with the state of the same run with fewer steps, where that equals having asked for all steps at once.

    Returns what was done, for the user.
    """
    shorter = shorter_run(run, run_dir.path.parent)
    if shorter is None:
        return message("Beginning")
    if run.settings.optimizer.lr_scheduler != "constant" or run.settings.validation.early_stopping != "off":
        text = message(
            "Beginning anew: {run} cannot be made longer, because its lr_scheduler or early_stopping depends on the number of "
            "steps",
            run=shorter.path.name,
        )
    else:
        # In this order: metrics may be newer than the state, should the shorter run be training now, but not older.
        for source, target in ((shorter.state, run_dir.state), (shorter.metrics, run_dir.metrics)):
            with partial_file(target) as partial:
                shutil.copyfile(source, partial)
        text = message("Going on from the state of {run}", run=shorter.path.name)
    log.info("%s: %s", run.id, text)
    return text


def _run_worker(request: TrainingRequest, run_dir: RunDir, progress: LiveRun) -> ExportedFiles:
    """Let the worker train the run to its end, and return what it has exported."""

    def save_base() -> None:
        if not run_dir.base.is_file():
            progress.show(message("Saving the base model"))
            request.base.save(run_dir.base)
        device.free()  # before the worker begins

    try:
        run_worker(request.run, run_dir, progress, save_base)
    finally:
        if not run_dir.state.is_file():  # nothing to go on from: then the base can as well be saved again
            run_dir.base.unlink(missing_ok=True)
    result = exported_files(run_dir)
    if result is None:
        raise WorkerError(
            "The exported file of {run} has disappeared. Queue the graph once more; details are in {log}.",
            run=request.run.id,
            log=str(run_dir.log),
        )
    return result
