"""The node that loads a finished run again."""

from functools import partial

from comfy_api.latest import io

from .comfy.exported_files import finished_run, loadable_runs
from .comfy.loading import load_result
from .comfy.result_changes import result_fingerprint
from .comfy.token_clip import clip_with_token, prompt_text
from .inputs import checked_inputs
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
            inputs=[
                io.Combo.Input(
                    "run",
                    options=list(runs),
                    extra_dict={"runs": runs},  # the page shows their dates and steps beside the names
                    tooltip="Finished runs, the newest first.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "model", display_name="MODEL", tooltip="The trained model; after Textual Inversion, the base that it used."
                ),
                io.Clip.Output("clip", display_name="CLIP", tooltip="The text encoder, which understands the token."),
                io.Vae.Output("vae", display_name="VAE", tooltip="The VAE that goes with the model."),
                io.String.Output("trigger", tooltip="What to write for your subject in a prompt."),
            ],
        )

    @classmethod
    def validate_inputs(cls, run: str | None = None) -> bool | str:
        """Check the run before the graph is queued."""
        return answer(partial(check_text, "run", finished_run, run))

    @classmethod
    def fingerprint_inputs(cls, run: str | None = None) -> str | float:
        """Return what changes when the run is made anew, or a file of its result is moved."""
        return result_fingerprint(run) if isinstance(run, str) else float("nan")  # ComfyUI does not tell what comes by a link

    @classmethod
    @translated_errors
    @checked_inputs
    def execute(cls, run: str) -> io.NodeOutput:
        """Load the result, and the base where it needs one."""
        trained, files = finished_run(run)
        settings = trained.settings
        model, clip, vae = load_result(trained, files)
        if files.embedding:
            clip = clip_with_token(clip, settings.token, files.embedding)
        return io.NodeOutput(model, clip, vae, prompt_text(settings, files.embedding))
