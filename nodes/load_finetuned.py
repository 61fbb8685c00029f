"""The node that loads a finished run again."""

from collections.abc import Sequence
from functools import partial

from comfy_api.latest import io

from ..trainer.run.messages import UserError
from .comfy.exported_files import finished_run, loadable_runs, result_of_file
from .comfy.loading import load_result
from .comfy.result_changes import changed_files, remember_loaded, result_fingerprint
from .comfy.token_clip import clip_with_token, prompt_text
from .inputs import checked_inputs
from .page.checked_graph import checked_inputs_of
from .page.language import translated_errors
from .queued import answer, check_text
from .widgets import CATEGORY, SEARCHED


class LoadFinetuned(io.ComfyNode):
    """Loads the result of a finished run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Return the node's sockets and widgets."""
        runs = loadable_runs()
        return io.Schema(
            node_id="LoadFinetuned",
            display_name="Load Trained Subject",
            category=CATEGORY,
            description="Loads what a finished run has trained.",
            search_aliases=[*SEARCHED, "trained model", "load finetuned"],
            is_input_list=True,  # the files of a run's steps share the base that is loaded
            inputs=[
                io.Combo.Input(
                    "run",
                    options=list(runs),
                    extra_dict={"runs": runs},  # the page shows their dates and steps beside the names
                    tooltip="Finished runs, the newest first.",
                ),
                io.String.Input(
                    "path",
                    optional=True,
                    default="",
                    advanced=True,
                    placeholder="none",
                    tooltip="A file that a run has exported, in place of run: also one that save_every kept on the way. Wire "
                    "paths of Train with DreamBooth or best_path of Evaluate a Subject, or write the file's name.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "model",
                    display_name="MODEL",
                    is_output_list=True,
                    tooltip="The trained model; after Textual Inversion, the base that it used.",
                ),
                io.Clip.Output(
                    "clip", display_name="CLIP", is_output_list=True, tooltip="The text encoder, which understands the token."
                ),
                io.Vae.Output("vae", display_name="VAE", is_output_list=True, tooltip="The VAE that goes with the model."),
                io.String.Output("trigger", is_output_list=True, tooltip="What to write for your subject in a prompt."),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.prompt],
        )

    @classmethod
    def validate_inputs(cls, run: Sequence[str | None] = (None,)) -> bool | str:
        """Check the run before the graph is queued, unless a file takes its place, which may not be there yet."""
        if checked_inputs_of(cls.hidden.unique_id).get("path", "") != "":
            return True
        return answer(partial(check_text, "run", finished_run, run[0]))

    @classmethod
    def fingerprint_inputs(cls, run: Sequence = (None,), path: Sequence = ("",)) -> str | float:
        """Return what changes when the run is made anew, or a file of its result is moved."""
        # ComfyUI does not tell what comes by a link. Paths mostly come from a training node: to load the files of all its steps
        # anew each time, and draw with them, would take minutes.
        if not isinstance(path[0], str):
            return str(changed_files())
        return result_fingerprint(run[0], path[0]) if isinstance(run[0], str) else float("nan")

    @classmethod
    @translated_errors
    @checked_inputs
    def execute(cls, run: list, path: Sequence[str] = ()) -> io.NodeOutput:
        """Load the result, or the results of several files, and the base where they need one."""
        files_named = [file for file in path if file.strip()]
        inputs = (cls.hidden.prompt or {}).get(cls.hidden.unique_id, {}).get("inputs", {})
        if not files_named and isinstance(inputs.get("path"), list):  # what run says is of no meaning to who wires a file
            raise UserError("No file comes through path. Look at the node that is wired to it, or unwire it to use run.")
        results = [result_of_file(file) for file in files_named] or [finished_run(name) for name in run]
        loaded, bases = [], {}
        for trained, files in results:
            model, clip, vae = load_result(trained, files, bases)
            if files.embedding:
                clip = clip_with_token(clip, trained.settings.token, files.embedding)
            remember_loaded(trained, files)
            loaded.append((model, clip, vae, prompt_text(trained.settings, files.embedding)))
        return io.NodeOutput(*map(list, zip(*loaded, strict=True)))
