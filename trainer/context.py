"""What every piece of a run needs to know of it."""

import contextlib
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, check_cuda_p2p_ib_support

from .failures import describe
from .run.devices import device_refusal, precision_refusal
from .run.drawing import Drawing
from .run.events import Reporter
from .run.messages import Message, MessageError
from .run.run_dir import Run, RunDir
from .run.settings import Settings
from .run.stop_request import StoppedError, StopRequest

WAITING_TIME = timedelta(hours=2)
"""How long processes that train together wait for each other: the first alone saves states and waits for other runs. That one of
them has ended is noticed at once, in another way."""


class TrainingError(MessageError):
    """A run that cannot go on."""


@dataclass(frozen=True)
class Context:
    """A run, where its files are, what it computes on, and who is told of it."""

    run: Run
    run_dir: RunDir
    accelerator: Accelerator
    reporter: Reporter
    stop: StopRequest
    drawing: Drawing | None = None
    """What a finished run draws: then nothing is trained, and the parts begin with what it has exported."""
    _told: set[str] = field(default_factory=set)

    @property
    def settings(self) -> Settings:
        """Return the run's settings."""
        return self.run.settings

    @property
    def lora_file(self) -> Path:
        """Return the LoRA that a LoRA goes on from."""
        return Path(self.drawing.lora) if self.drawing else self.run_dir.lora

    @property
    def embedding_file(self) -> Path:
        """Return the vectors that the token starts from."""
        return Path(self.drawing.embedding) if self.drawing else self.run_dir.embedding

    @property
    def device(self) -> torch.device:
        """Return the device of this process."""
        return self.accelerator.device

    @contextlib.contextmanager
    def only_warned(self, failure: Message) -> Iterator[None]:
        """Turn an error of the block, which only looks at the run, into a warning: `failure` says what was not done.

        Each kind of failure is told once. A stop request is no error.
        """
        try:
            yield
        except StoppedError:
            raise
        except Exception as error:
            traceback.print_exc()
            self.warn_once(failure, describe(error))

    def warn_once(self, failure: Message, reason: Message) -> None:
        """Warn of a failure, unless another of its kind was told before."""
        if failure.template not in self._told:
            self._told.add(failure.template)
            self.reporter.warning("{failure} ({reason}).", failure=failure, reason=reason)

    @property
    def is_main(self) -> bool:
        """Return whether this process is the one, of those that train together, that writes files."""
        return self.accelerator.is_main_process


def make_accelerator(device: str, precision: str) -> Accelerator:
    """Return an Accelerator for `device` ("cpu", "cuda:0", "mps"), where a run of `precision` (one of PRECISIONS) can train.

    Processes that train together (LOCAL_RANK in the environment, set by their launcher) take the device of their number instead.
    Raises TrainingError when there are fewer devices, and for fp16 on a CPU.
    """
    if device.startswith("cuda"):
        torch.set_float32_matmul_precision("high")  # TF32 for what is fp32
        if "LOCAL_RANK" in os.environ:
            _prepare_gpus(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        elif ":" in device:
            torch.cuda.set_device(torch.device(device))
    refused = precision_refusal(device, precision)
    if refused:
        raise TrainingError(refused.template, **refused.values)
    return Accelerator(
        cpu=device == "cpu",
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=WAITING_TIME),
            # A process whose captions lack the token has no gradient of its vectors. Gradients lie in the buckets that are sent:
            # else each process would have them twice.
            DistributedDataParallelKwargs(find_unused_parameters=True, gradient_as_bucket_view=True),
        ],
    )


def _prepare_gpus(count: int) -> None:
    """Raise TrainingError unless so many GPUs can train together; otherwise two processes would share one."""
    refused = device_refusal(sys.platform, "cuda", torch.cuda.device_count(), count)
    if refused:
        raise TrainingError(refused.template, **refused.values)
    if count > 1 and not check_cuda_p2p_ib_support():  # accelerate refuses such cards and drivers without
        os.environ.setdefault("NCCL_P2P_DISABLE", "1")
        os.environ.setdefault("NCCL_IB_DISABLE", "1")
