"""The node that says in numbers how well a training went."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from comfy_api.latest import io
from torch import Tensor

from ..trainer.dataset.photos import Dataset as PhotoDataset
from ..trainer.run.messages import Message, UserError, message
from ..trainer.run.metrics_file import append_entry
from .comfy.encoders import PictureEncoder, dataset_pictures, prompt_vector, wired_images
from .comfy.exported_files import run_of_file
from .comfy.progress import NodeProgress
from .inputs import checked_inputs
from .page.evaluation_chart import curves_over_steps, draw_bars, latest_by_step, step_to_use
from .page.language import in_all_languages, joined, translated_errors
from .queued import answer, check_wired
from .similarity import Scores, drift, fidelity, score, score_photos
from .widgets import CATEGORY, SEARCHED, Dataset

COLUMNS = ("likeness", "copying", "copied", "variety")
"""Of the table: the fields of Scores, which are outputs of the node, too."""
COPY_THRESHOLD = 0.95
PICTURES, BEFORE, CLASS_BEFORE, CLASS_AFTER = "pictures", "pictures_before", "class_before", "class_after"


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
        run = run_of_file(more["path"][0]) if more.get("path", [""])[0].strip() else None
        sets = encoded_sets(clip_vision[0], dataset[0], more, NodeProgress(cls.hidden.unique_id))
        rows = {"dataset": score_photos(sets["dataset"], copy_threshold[0])}
        rows |= {name: score(sets[name], sets["dataset"], copy_threshold[0]) for name in (BEFORE, PICTURES) if name in sets}
        single = {"class_drift": math.nan, "prompt_fidelity": math.nan}
        if CLASS_AFTER in sets:
            single["class_drift"] = drift(sets[CLASS_BEFORE], sets[CLASS_AFTER])
        if more.get("clip") and more.get("prompt", [""])[0].strip():
            vector = prompt_vector(more["clip"][0], more["prompt"][0], sets[PICTURES].shape[1])
            single["prompt_fidelity"] = fidelity(sets[PICTURES], vector)
        numbers = {**vars(rows[PICTURES]), **single}
        chart, notes = draw_bars(rows, single), []
        if run:
            run_dir, step = run
            measured = {name: value for name, value in numbers.items() if math.isfinite(value)}
            entries = latest_by_step(append_entry(run_dir.evaluations, {"step": step, **measured}))
            if len(entries) > 1:
                chart, notes = curves_over_steps(entries, run_dir.measurements()), [advice(entries)]
        text = table(rows, single)
        pixels = torch.from_numpy(np.asarray(chart, dtype=np.float32) / 255.0)[None]
        lines = [text, *notes]
        return io.NodeOutput(*numbers.values(), text, pixels, ui={"text": (joined(lines),), "told": (in_all_languages(lines),)})


def _inputs() -> list:
    """Return the node's inputs."""
    return [
        io.ClipVision.Input(
            "clip_vision",
            tooltip="The encoder that compares pictures, from Load CLIP Vision. DINOv2 tells one subject from another of "
            "its class, CLIP rather one kind of thing from another. Compare numbers of one encoder alone.",
        ),
        Dataset.Input("dataset", tooltip="The photos of the subject; better photos that were not trained on."),
        io.Image.Input(
            "pictures",
            tooltip="Pictures of the subject that the trained model made: eight or more, of different prompts and seeds.",
        ),
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
            tooltip="Pictures that the trained model made of the prompts and seeds of class_before, in the same order.",
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
            "numbers are then kept in the run's folder, by its step, and compared with those of other steps.",
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
    ]


def encoded_sets(clip_vision, dataset: PhotoDataset, inputs: Mapping[str, list], progress: NodeProgress) -> dict[str, Tensor]:
    """Return the vectors of the photos and of each set of pictures by its input's name, (N, D) each; empty sets are left out.

    Raises UserError where there are no pictures, or where those of the class do not go together.
    """
    names = (PICTURES, BEFORE, CLASS_BEFORE, CLASS_AFTER)
    wired = {name: wired_images(name, inputs[name]) for name in names if name in inputs}
    pictures = {"dataset": dataset_pictures(dataset), **{name: found for name, found in wired.items() if found}}
    if PICTURES not in pictures:
        raise UserError("No picture comes through pictures. Look at the node that is wired to it.")
    before, after = (len(pictures.get(name, ())) for name in (CLASS_BEFORE, CLASS_AFTER))
    if before != after:
        raise UserError(
            "There are {before} class pictures before and {after} after training. Wire as many to both inputs, made from the "
            "same prompts and seeds, in the same order.",
            before=before,
            after=after,
        )
    encoder = PictureEncoder(clip_vision, progress, sum(map(len, pictures.values())))
    return {name: encoder.encode(found) for name, found in pictures.items()}


def table(rows: Mapping[str, Scores], single: Mapping[str, float]) -> str:
    """Return the numbers as a Markdown table, a set of pictures a row, and below it those of no row."""
    cells = [["", *COLUMNS], ["---"] * (len(COLUMNS) + 1)]
    cells += [[name, *(_number(getattr(scores, column)) for column in COLUMNS)] for name, scores in rows.items()]
    lines = ["| " + " | ".join(row) + " |" for row in cells]
    found = [f"{name}: {_number(value)}" for name, value in single.items() if math.isfinite(value)]
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
