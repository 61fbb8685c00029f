"""Runs that the user has ended early and takes up again."""

from ...trainer.run.messages import UserError
from ...trainer.run.run_dir import RunDir

_reopened: list[str] = []
"""Their ids, as often as they were taken up since ComfyUI started."""


def reopen(run_dir: RunDir) -> None:
    """Make a run unfinished again; its exported file stays until the next one takes its place.

    Raises UserError when it was not ended early, or its state is gone.
    """
    if not run_dir.can_go_on():
        raise UserError("{run} cannot be trained on: it was not ended early, or its saved state is gone.", run=run_dir.path.name)
    run_dir.result_json.unlink()
    _reopened.append(run_dir.path.name)


def reopened() -> int:
    """Return what changes whenever a run is taken up: ComfyUI must not take the training node's result from its cache then."""
    return len(_reopened)
