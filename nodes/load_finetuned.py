"""A finished run, loaded again."""

from comfy_api.latest import io

from . import host
from .language import errors_told
from .sockets import CATEGORY, validation
from .token_clip import clip_with_token, prompt_text


class LoadFinetuned(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="LoadFinetuned",
            display_name="Load Trained Subject",
            category=CATEGORY,
            description="Loads what a finished run has trained.",
            search_aliases=["load dreambooth", "load finetuned", "trained model"],
            inputs=[
                io.Combo.Input("run", options=host.finished_run_ids(), tooltip="Finished runs, the newest first."),
            ],
            outputs=[
                io.Model.Output("model", display_name="MODEL", tooltip="The trained model; for an inversion its base."),
                io.Clip.Output("clip", display_name="CLIP", tooltip="The text encoder; it understands the token."),
                io.Vae.Output("vae", display_name="VAE", tooltip="The VAE."),
                io.String.Output("trigger", tooltip="What means the subject in a prompt."),
            ],
        )

    @classmethod
    def validate_inputs(cls, run: str | None = None) -> bool | str:
        return validation(host.finished_run, run)

    @classmethod
    @errors_told
    def execute(cls, run: str) -> io.NodeOutput:
        loaded, found = host.finished_run(run)
        settings = loaded.settings
        is_lora = settings.train == "lora"
        if settings.method == "dreambooth" and not is_lora:
            model, clip, vae = host.load_checkpoint(found.file)
        else:
            model, clip, vae = host.load_base(loaded)
        if is_lora:
            model = host.apply_lora(model, host.load_lora(found.file))
        if found.embedding:
            clip = clip_with_token(clip, settings.token, found.embedding)
        return io.NodeOutput(model, clip, vae, prompt_text(settings, found.embedding))
