"""Whether 8-bit AdamW can run. Plain until asked: bitsandbytes and torch are loaded then."""

REPAIR = "pip install --force-reinstall bitsandbytes"


def why_no_8bit(device: str) -> str:
    """Return why bitsandbytes cannot take a step on the device ("cpu", "cuda:0"), in the words of its error; "" when it can."""
    try:
        import torch
        from bitsandbytes.optim import AdamW8bit

        with torch.inference_mode(False):  # ComfyUI's nodes run in it
            probe = torch.nn.Parameter(torch.zeros(4096, device=device))
            probe.grad = torch.ones_like(probe)
            AdamW8bit([probe]).step()
    except Exception as error:  # whatever a library for other hardware raises
        return f"{type(error).__name__}: {error}".splitlines()[0][:500]
    return ""
