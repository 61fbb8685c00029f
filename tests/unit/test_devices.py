"""What can train, and what is said where it cannot."""

import pytest

from trainer.run.devices import device_refusal

LINUX, MAC, WINDOWS = "linux", "darwin", "win32"


@pytest.mark.parametrize(
    ("platform", "kind", "there", "asked"),
    [
        (LINUX, "cuda", 1, 1),
        (LINUX, "cuda", 4, 4),
        (WINDOWS, "cuda", 2, 1),
        (MAC, "mps", 1, 1),
        (LINUX, "xpu", 1, 1),
        *((platform, "cpu", 1, asked) for platform in (LINUX, MAC, WINDOWS) for asked in (1, 2, 64)),
    ],
)
def test_what_can_train(platform, kind, there, asked):
    assert device_refusal(platform, kind, there, asked) is None


@pytest.mark.parametrize(
    ("platform", "kind", "there", "asked", "said"),
    [
        (
            LINUX,
            "cuda",
            1,
            2,
            "devices is 2, but ComfyUI sees 1. Set devices to 1 or less, or let ComfyUI see more GPUs: --",
        ),
        (LINUX, "cuda", 3, 4, "devices is 4, but ComfyUI sees 3. Set devices to 3 or less"),
        (
            WINDOWS,
            "cuda",
            2,
            2,
            "devices is 2, but several GPUs cannot train together on Windows: torch has no NCCL there.",
        ),
        (WINDOWS, "cuda", 1, 2, "devices is 2, but several GPUs cannot train together on Windows"),
        (MAC, "mps", 1, 2, "devices is 2, but a Mac has one GPU. Set devices to 1."),
        (WINDOWS, "privateuseone", 1, 1, "ComfyUI computes on DirectML, which training cannot use: it needs CUDA"),
        (LINUX, "npu", 2, 1, "ComfyUI computes on npu, which training cannot use"),
        (LINUX, "xpu", 2, 2, "devices is 2, but of Intel's GPUs one alone can train. Set devices to 1."),
        (LINUX, "npu", 2, 2, "ComfyUI computes on npu, which training cannot use"),
    ],
)
def test_what_cannot_train_is_told(platform, kind, there, asked, said):
    assert str(device_refusal(platform, kind, there, asked)).startswith(said)
