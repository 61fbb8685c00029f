"""The node that says in numbers how well a training went."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..trainer.dataset.photos import Dataset as PhotoDataset
from ..trainer.run.evaluations import (
    MEASURED_WITH,
    PHOTOS_COPIED,
    append_evaluation,
    latest_by_step,
    measured_with,
    step_to_use,
)
from ..trainer.run.messages import Message, UserError, message
from .comfy.encoders import PictureEncoder, dataset_pictures, encoder_name, prompt_vector, subject_pictures, wired_images
from .comfy.exported_files import StepFile, step_file
from .comfy.progress import NodeProgress
from .inputs import checked_inputs
from .page.evaluation_chart import curves_over_steps, draw_bars
from .page.language import in_all_languages, joined, translated_errors
from .queued import answer, check_wired
from .similarity import Scores, by_step, drift, fidelity, score, score_photos
from .widgets import CATEGORY, SEARCHED, Dataset

COLUMNS = ("likeness", "copying", "copied", "variety")
"""Of the table: the fields of Scores, which are outputs of the node, too."""
COPY_THRESHOLD = 0.95
WIRED = PICTURES, BEFORE, CLASS_BEFORE, CLASS_AFTER = "pictures", "pictures_before", "class_before", "class_after"


class EvaluateSubject(io.ComfyNode):
    """Measures likeness, copying, variety, drift of the class and prompt fidelity."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's sockets and widgets."""
        return io.Schema(
            node_id="EvaluateSubject",
            display_name="Evaluate a Subject",
            category=CATEGORY,
            description="Says in numbers how like the subject the pictures are, and whether they only copy the photos.",
            search_aliases=[*SEARCHED, "evaluate", "metric", "similarity", "CLIP-I", "DINO", "CLIP-T", "dreambench"],
            is_input_list=True,  # a list of pictures is one set
            is_output_node=True,
            inputs=_inputs(),
            outputs=_outputs(),
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, prompt: Sequence | None = None) -> bool | str:
        """Check that something comes to each socket that needs it; ComfyUI tells it beside an input, which is `prompt`."""
        return answer(partial(check_wired, cls))

    @classmethod
    @translated_errors
    @checked_inputs
    def execute(
        cls, clip_vision: list, dataset: list, copy_threshold: Sequence = (COPY_THRESHOLD,), **more: list
    ) -> io.NodeOutput:
        """Encode all pictures, compare them, and keep the numbers where the run is known."""
        files, threshold = files_of_pictures(more), copy_threshold[0]
        steps = [file.step for file in files] or [0]
        check_class_pictures(more, len(steps))
        prompt = the_prompt(more)
        sets = encoded_sets(clip_vision[0], dataset[0], more, NodeProgress(cls.hidden.unique_id))
        of_steps = {name: by_step(sets[name], batch_sizes(more[name]), len(steps)) for name in WIRED if name in sets}
        photos = sets["dataset"], sets["subjects"]
        rows = {"dataset": score_photos(*photos, threshold)}
        scores = [score(vectors, *photos, threshold) for vectors in of_steps[PICTURES]]
        singles = single_numbers(of_steps, more, prompt)
        if BEFORE in sets:
            rows[BEFORE] = score(sets[BEFORE], *photos, threshold)
        common = {MEASURED_WITH: measured_with(encoder_name(clip_vision[0]), dataset[0], threshold)}
        common |= finite({PHOTOS_COPIED: rows["dataset"].copied})
        numbers = zip(steps, scores, singles, strict=True)
        entries = [{"step": step, **finite({**vars(one), **single}), **common} for step, one, single in numbers]
        best = steps.index(step_to_use(entries))
        single = singles[best]
        chart, notes = draw_bars({**rows, PICTURES: scores[best]}, single), []
        compared = keep(files, entries)
        if len(compared) > 1:
            chart, notes = curves_over_steps(compared, files[0].run_dir.measurements()), [advice(compared)]
        names = [f"step {file.step}" for file in files] if len(files) > 1 else [PICTURES]
        text = table({**rows, **dict(zip(names, scores, strict=True))}, single)
        pixels = torch.from_numpy(np.asarray(chart, dtype=np.float32) / 255.0)[None]
        values, path = [*vars(scores[best]).values(), *single.values()], str(files[best].path) if files else ""
        lines = [text, *notes]
        told = {"text": (joined(lines),), "told": (in_all_languages(lines),)}
        return io.NodeOutput(*values, text, pixels, path, ui=told)


def _inputs() -> list:
    """Return the node's inputs."""
    return [
        io.ClipVision.Input(
            "clip_vision",
            tooltip="The encoder that compares pictures, from Load CLIP Vision. DINOv2 tells one subject from another of "
            "its class, CLIP rather one kind of thing from another. Compare numbers of one encoder alone.",
        ),
        Dataset.Input("dataset", tooltip="The photos of the subject; better photos that were not trained on."),
        io.Image.Input("pictures", tooltip="The subject by the trained model: eight or more, of different prompts and seeds."),
        io.Image.Input(
            "pictures_before",
            optional=True,
            tooltip="Pictures that the base made of the same prompts and seeds: what likeness begins from.",
        ),
        io.Image.Input(
            "class_before",
            optional=True,
            tooltip="Pictures that the base made of other members of the class: 'a photo of a dog'.",
        ),
        io.Image.Input(
            "class_after",
            optional=True,
            tooltip="Pictures that the trained model made of the prompts and seeds of class_before, in the same order. With "
            "several paths a batch for each; class_before is one for all, or has as many.",
        ),
        io.Clip.Input(
            "clip",
            optional=True,
            tooltip="The whole CLIP that clip_vision belongs to, from Load CLIP, to measure prompt_fidelity. The CLIP of "
            "an SD v1.5 checkpoint lacks what is needed.",
        ),
        io.String.Input(
            "prompt",
            optional=True,
            default="",
            tooltip="What the pictures should show, in words that CLIP knows: with the class and without the token.",
        ),
        io.String.Input(
            "path",
            optional=True,
            default="",
            tooltip="The exported file that made the pictures: wire path of a training node, or write its name. The "
            "numbers are then kept in the run's folder, by its step, and compared with those of other steps. Wire paths of "
            "Train with DreamBooth to compare all steps at once, a batch of pictures each.",
        ),
        io.Float.Input(
            "copy_threshold",
            optional=True,
            default=COPY_THRESHOLD,
            min=0.0,
            max=1.0,
            step=0.01,
            round=1e-6,
            advanced=True,
            tooltip="From this cosine with a photo on, a picture counts as copied. Take more than the photos have among "
            "themselves: see copying in the table's row dataset.",
        ),
    ]


def _outputs() -> list:
    """Return the node's outputs: the numbers of a `Scores`, those of no row, the table and the chart."""
    return [
        io.Float.Output("likeness", tooltip="Mean cosine of the pictures with the photos. 1: the same."),
        io.Float.Output("copying", tooltip="Cosine of the picture and the photo that are nearest to each other."),
        io.Float.Output("copied", tooltip="Share of the pictures that are as near to a photo as copy_threshold says."),
        io.Float.Output("variety", tooltip="1 - mean cosine of the pictures with each other. 0: all the same."),
        io.Float.Output("class_drift", tooltip="1 - mean cosine of class pictures before and after. NaN without them."),
        io.Float.Output("prompt_fidelity", tooltip="Mean cosine of the pictures with the prompt. NaN without a CLIP."),
        io.String.Output("table", tooltip="All numbers, those of the base and of the photos beside them, as Markdown."),
        io.Image.Output("chart", display_name="IMAGE", tooltip="The same as bars; of several steps of a run, as curves."),
        io.String.Output(
            "best_path",
            tooltip="The file of the step to use, for path of Load Trained Subject: among those that copy least, the one whose "
            "pictures are most similar to the photos. Empty without path.",
        ),
    ]


def files_of_pictures(inputs: Mapping[str, list]) -> list[StepFile]:
    """Return the files that the pictures were made with: none, one for all, or one for each batch.

    Raises UserError for what is no file of a run, and for several that do not go with the pictures.
    """
    files = [step_file(path) for path in inputs.get("path", []) if path.strip()]
    if len(files) > 1:
        steps, runs = {file.step for file in files}, {file.run_dir for file in files}
        check_batches(PICTURES, inputs, len(files), alike=len(steps) == len(files) and len(runs) == 1)
    return files


def check_batches(name: str, inputs: Mapping[str, list], files: int, alike: bool = True) -> None:
    """Raise UserError unless an input has a batch for each of several files, which are alike but for their steps."""
    batches = len(batch_sizes(inputs[name]))
    if batches != files or not alike:
        raise UserError(
            "path names {files} files, and {name} has {batches} batches. Wire one batch for each file, in their order, the "
            "files all of one run and of another step each.",
            files=files,
            name=name,
            batches=batches,
        )


def check_class_pictures(inputs: Mapping[str, list], steps: int) -> None:
    """Raise UserError where those before and after training do not go together, in any of the steps."""
    sizes = {name: batch_sizes(inputs.get(name, [])) for name in (CLASS_BEFORE, CLASS_AFTER)}
    if steps > 1 and sizes[CLASS_AFTER]:
        check_batches(CLASS_AFTER, inputs, steps)
    counts = [found if len(found) == steps else [sum(found)] * steps for found in sizes.values()]
    for before, after in zip(*counts, strict=True):
        if before != after:
            raise UserError(
                "There are {before} class pictures before and {after} after training. Wire as many to both inputs, made from "
                "the same prompts and seeds, in the same order.",
                before=before,
                after=after,
            )


def batch_sizes(batches: Sequence) -> list[int]:
    """Return how many pictures each batch has that is not empty."""
    return [len(batch) for batch in batches if len(batch)]


def the_prompt(inputs: Mapping[str, list]) -> str:
    """Return the prompt that the pictures are compared with, "" for none. Raises UserError for several."""
    prompts = {prompt.strip() for prompt in inputs.get("prompt", [])} if inputs.get("clip") else set()
    if len(prompts) > 1:
        raise UserError(
            "{count} prompts come through prompt, and all pictures are compared with one. Measure the pictures of each prompt by "
            "themselves, or leave prompt empty.",
            count=len(prompts),
        )
    return prompts.pop() if prompts else ""


def single_numbers(of_steps: Mapping[str, list[Tensor]], inputs: Mapping[str, list], prompt: str) -> list[dict[str, float]]:
    """Return for each step the numbers that are not measured against the photos; NaN for what is not wired."""
    found = [{"class_drift": math.nan, "prompt_fidelity": math.nan} for _ in of_steps[PICTURES]]
    if CLASS_AFTER in of_steps:
        for numbers, before, after in zip(found, of_steps[CLASS_BEFORE], of_steps[CLASS_AFTER], strict=True):
            numbers["class_drift"] = drift(before, after)
    if prompt:
        vector = prompt_vector(inputs["clip"][0], prompt, of_steps[PICTURES][0].shape[1])
        for numbers, pictures in zip(found, of_steps[PICTURES], strict=True):
            numbers["prompt_fidelity"] = fidelity(pictures, vector)
    return found


def keep(files: Sequence[StepFile], entries: list[dict]) -> list[dict]:
    """Append the numbers of each file to those of its run; return what to compare over the steps.

    Several files are compared with each other: their pictures are of the same prompts and seeds. One file is compared with
    what was measured before.
    """
    known: list[dict] = []
    for file, entry in zip(files, entries, strict=bool(files)):
        known = append_evaluation(file.run_dir.evaluations, entry)
    return entries if len(files) > 1 else latest_by_step(known)


def finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return those that are numbers."""
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def encoded_sets(clip_vision, dataset: PhotoDataset, inputs: Mapping[str, list], progress: NodeProgress) -> dict[str, Tensor]:
    """Return the vectors of the photos, of the subjects in them, and of each set of pictures by its input's name, (N, D) each.

    Empty sets are left out. Raises UserError where there are no pictures.
    """
    wired = {name: wired_images(name, inputs[name]) for name in WIRED if name in inputs}
    pictures = {"dataset": dataset_pictures(dataset), **{name: found for name, found in wired.items() if found}}
    if PICTURES not in pictures:
        raise UserError("No picture comes through pictures. Look at the node that is wired to it.")
    subjects = subject_pictures(dataset, pictures["dataset"]) if dataset.masked else []
    encoder = PictureEncoder(clip_vision, progress, len(subjects) + sum(map(len, pictures.values())))
    found = {name: encoder.encode(images) for name, images in pictures.items()}
    return {**found, "subjects": encoder.encode(subjects) if subjects else found["dataset"]}


def table(rows: Mapping[str, Scores], single: Mapping[str, float]) -> str:
    """Return the numbers as a Markdown table, a set of pictures a row, and below it those of no row."""
    cells = [["", *COLUMNS], ["---"] * (len(COLUMNS) + 1)]
    cells += [[name, *(_number(getattr(scores, column)) for column in COLUMNS)] for name, scores in rows.items()]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    found = [f"{name}: {_number(value)}" for name, value in finite(single).items()]
    return "\n".join([*lines, *([""] if found else []), *found])


def advice(entries: list[dict]) -> Message:
    """Return which of the measured steps to use."""
    return message(
        "Of {count} measured steps, {step} has the highest likeness of those that copy least. Look at its pictures, then use it.",
        count=len(entries),
        step=step_to_use(entries),
    )


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "-"
