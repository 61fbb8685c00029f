"""What an exported file says of itself."""

from .rundir import Run


def metadata(run: Run) -> dict[str, str]:
    """Safetensors metadata: the modelspec fields that file browsers show, and where the weights come from."""
    settings = run.settings
    kind = "textual-inversion" if settings.method == "textual_inversion" else "dreambooth"
    architecture = "stable-diffusion-v1" + ("/textual-inversion" if kind == "textual-inversion" else "")
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": architecture,
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models",
        "modelspec.title": run.id,
        "modelspec.trigger_phrase": f"{settings.token} {settings.class_word}".strip(),
        "modelspec.resolution": f"{run.dataset.resolution}x{run.dataset.resolution}",
        "modelspec.prediction_type": "epsilon",
        "subject_trainer.method": kind,
        "subject_trainer.run": run.id,
        "subject_trainer.base": run.base_fingerprint,
        "subject_trainer.token": settings.token,
        "subject_trainer.class_word": settings.class_word,
        "subject_trainer.steps": str(settings.steps),
        "subject_trainer.learning_rate": str(settings.learning_rate),
        "subject_trainer.batch_size": str(settings.batch_size),
        "subject_trainer.seed": str(settings.seed),
    }
