"""Whether 8-bit AdamW can run. Plain until asked: bitsandbytes and torch are loaded then."""

from ..optional_libraries import show_library
from .memory_errors import out_of_memory

REPAIR = "pip install --force-reinstall bitsandbytes"


def why_no_8bit(device: str) -> str:
    """Return why bitsandbytes cannot take a step on the device ("cpu", "cuda:0"), in the words of its error; "" when it can.

    Want of memory is raised: another optimizer would need more.
    """
    show_library("bitsandbytes")
    try:
        import torch
        from bitsandbytes.optim import AdamW8bit

        with torch.inference_mode(False):  # ComfyUI's nodes run in it
            probe = torch.nn.Parameter(torch.zeros(4096, device=device))
            probe.grad = torch.ones_like(probe)
            AdamW8bit([probe]).step()
    except Exception as error:  # whatever a library for other hardware raises
        if out_of_memory(error):
            raise
        return f"{type(error).__name__}: {error}".splitlines()[0][:500]
    return ""
