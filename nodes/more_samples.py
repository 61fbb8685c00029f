"""Sample pictures of more prompts that a finished run is asked for: a worker draws them with the weights of the result."""

import logging
from dataclasses import replace

from ..trainer.run.drawing import Drawing, room_made, with_new_prompts
from ..trainer.run.files import write_json
from ..trainer.run.locks import held
from ..trainer.run.messages import Message, MessageError, UserError, message
from ..trainer.run.resources import DRIVER, GB, drawing_memory
from ..trainer.run.run_dir import Run, RunDir, passed_over
from .comfy import device
from .comfy.base_model import Base
from .comfy.exported_files import ExportedFiles
from .comfy.folders import free_disk, runs_root
from .comfy.progress import check_interrupted
from .page.live_runs import LiveRun, QueuedNode, live_run
from .worker_process import WorkerError, run_worker

log = logging.getLogger("subject_trainer")


def draw_new_prompts(asked: Run, base: Base, node: QueuedNode, files: ExportedFiles) -> list[Message]:
    """Draw the sample prompts that the finished run has no pictures of, and return what the user should know of it.

    What fails is told, and the run is as it was before; so it is after a cancel, which raises ComfyUI's exception.
    """
    run_dir, wanted = RunDir(runs_root() / asked.id), asked.settings.samples.sample_prompts
    if not new_prompts(run_dir, wanted):
        return []
    try:
        with live_run(asked, node) as progress:

            def on_wait() -> None:
                progress.show(message("Another ComfyUI trains this run: waiting"))

            with held(run_dir.graph_lock, on_wait, check_interrupted):
                if new_prompts(run_dir, wanted):  # still: another ComfyUI may have drawn them
                    _draw(run_dir, wanted, base, files, progress)
            progress.show(message("Finished"))
    except (MessageError, OSError) as error:
        reason = error.message if isinstance(error, MessageError) else str(error)
        log.warning("%s: the new sample prompts could not be drawn: %s", asked.id, reason)
        return [message("The new sample prompts could not be drawn, and the run is as it was: {reason}", reason=reason)]
    return [message("The new sample prompts were drawn with the weights of the result; nothing was trained.")]


def new_prompts(run_dir: RunDir, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Return which of the prompts that are asked for the run has not; none of them where its run.json cannot be read."""
    with passed_over(run_dir.path):
        had = run_dir.load_run().settings.samples.sample_prompts
        return with_new_prompts(had, asked)[len(had) :]
    return ()


def _draw(run_dir: RunDir, asked: tuple[str, ...], base: Base, files: ExportedFiles, progress: LiveRun) -> None:
    """Let a worker draw, and note the prompts in run.json once all of their pictures are there."""
    run_dir.check_way()
    run = run_dir.load_run()
    check_resources(run, base, needs_base=run.result_kind != "checkpoint")
    with room_made(run_dir, run, asked) as run:  # after what may be refused: it sets pictures aside
        _draw_in_room(run_dir, run, asked, base, files, progress)


def _draw_in_room(run_dir: RunDir, run: Run, asked: tuple[str, ...], base: Base, files: ExportedFiles, progress: LiveRun) -> None:
    """Draw what the run has no pictures of, for which it has room."""
    is_base = run.result_kind == "checkpoint"
    had = run.settings.samples.sample_prompts
    prompts = with_new_prompts(had, asked)

    def save_base() -> None:
        if not (is_base or run_dir.base.is_file()):
            progress.show(message("Saving the base model"))
            base.save(run_dir.base)
        device.free()  # before the worker begins

    run_dir.remove_pictures_from(len(had))  # of a ComfyUI that was killed
    Drawing(
        prompts=prompts,
        base=str(files.file if is_base else run_dir.base),
        lora=str(files.file) if run.result_kind == "lora" else "",
        embedding=str(files.embedding or ""),
    ).write(run_dir)
    try:
        run_worker(replace(run, settings=run.settings.replace(devices=1)), run_dir, progress, save_base)
        drawn = {number for _, number in run_dir.pictures().values()}
        if not drawn.issuperset(range(len(prompts))):
            raise WorkerError("The process ended unexpectedly. Details are in {log}.", log=str(run_dir.log))
        write_json(run_dir.run_json, replace(run, settings=run.settings.replace(sample_prompts=prompts)).to_json())
    except BaseException:
        run_dir.remove_pictures_from(len(had))
        raise
    finally:
        run_dir.drawing.unlink(missing_ok=True)
        run_dir.base.unlink(missing_ok=True)


def check_resources(run: Run, base: Base, *, needs_base: bool) -> None:
    """Raise UserError when device or disk cannot take what is drawn with."""
    need, there = drawing_memory(run, base.unet_weights()) + DRIVER, device.total_memory(1) - device.held_by_models()
    if need > there:
        raise UserError(
            "Drawing needs about {memory:.1f} GB of memory on the device, which has {there:.1f} GB for it.",
            memory=need / GB,
            there=there / GB,
        )
    if needs_base and base.size() > free_disk():
        raise UserError(
            "Drawing needs about {disk:.1f} GB of disk for the base model; {free:.1f} GB are free where ComfyUI's output folder "
            "is.",
            disk=base.size() / GB,
            free=free_disk() / GB,
        )
