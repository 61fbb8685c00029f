"""The fp32 masters in flat buffers: what a step costs, and that it is the step of the optimizer on the parameters themselves."""

import json
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.profiler import ProfilerActivity, profile

from trainer.parts.adapters import TEXT_PREFIX, UNET_PREFIX, adapter_tensors
from trainer.parts.text_encoder import PREFIX
from trainer.run.run_dir import RunDir, at_step
from trainer.run.settings import OptimizerSettings, TrainingSettings
from trainer.training import master_weights
from trainer.training.master_weights import BLOCK, SMALL, MasterWeights, join, split_into
from trainer.training.optimizers import LossScale, ParamGroup, make_optimizer, update
from trainer.training.trainer import Trainer

from .runs import DREAMBOOTH, work_here

CPU = torch.device("cpu")
SHAPES = {"convolution": (16, 8, 6, 6), "bias": (16,), "linear": (96, 48), "norm": (48,), "odd": (65, 64), "last": (64, 128)}


def parameters(seed: int = 0) -> dict[str, nn.Parameter]:
    numbers = torch.Generator().manual_seed(seed)
    return {name: nn.Parameter(torch.randn(shape, generator=numbers)) for name, shape in SHAPES.items()}


def gradients(step: int) -> dict[str, torch.Tensor]:
    return {name: p.detach() * 10.0 for name, p in parameters(step + 1).items()}


def test_the_model_has_the_masters_weights_in_its_own_type_and_8bit_blocks_are_of_one_parameter(monkeypatch):
    monkeypatch.setattr(master_weights, "BUFFER_WEIGHTS", 10_000)
    given = parameters()
    before = {name: p.detach().clone() for name, p in given.items()}
    weights = MasterWeights([given], torch.bfloat16)
    assert all(torch.equal(weights[name], before[name]) for name in SHAPES)
    assert all(torch.equal(p, before[name].bfloat16()) and p.dtype == torch.bfloat16 for name, p in given.items())
    assert sorted(name for buffer in weights.buffers for name in buffer.params) == sorted(SHAPES)
    assert len(weights.buffers) == 4  # "convolution" and "linear"; "odd", which ends within a block; "last"; the small ones
    for buffer in weights.buffers:
        sizes = [p.numel() for p in buffer.params.values()]
        assert len({size < SMALL for size in sizes}) == 1
        assert buffer.is_small or all(size % BLOCK == 0 for size in sizes[:-1])
    with torch.no_grad():
        for master in weights.masters:
            master.mul_(3.0)
    weights.copy_to_model()
    assert all(torch.equal(p, (3.0 * before[name]).bfloat16()) for name, p in given.items())


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "adafactor", "prodigy"])
def test_a_step_on_the_buffers_is_that_on_the_parameters(optimizer):
    """Clipped, accumulated, and skipped when a gradient is not finite; the reference has the parameters one by one."""
    settings = OptimizerSettings(optimizer=optimizer, learning_rate=0.01, max_grad_norm=2.0)
    given, plain = parameters(), parameters()
    weights = MasterWeights([given], torch.float32, flat=optimizer != "adafactor")
    ours = make_optimizer([ParamGroup(given, 0.01, 0.1)], weights, settings, CPU)
    single = MasterWeights([plain], torch.float32, flat=False)
    reference = make_optimizer([ParamGroup(plain, 0.01, 0.1)], single, settings, CPU)
    for step in range(4):
        found = gradients(step)
        if step == 2:
            found["norm"][3] = torch.inf
        for part in (0.25, 0.75):
            for name, p in given.items():
                p.grad = part * found[name]
            weights.gather_gradients()
        skipped = update(ours, weights, 2.0, torch.tensor(1.0))
        assert bool(skipped) == (step == 2)
        if step == 2:
            continue
        for master, name in zip(single.masters, (n for b in single.buffers for n in b.params), strict=True):
            master.grad = found[name].view_as(master).clone()
        torch.nn.utils.clip_grad_norm_(single.masters, 2.0)
        reference.step()
        reference.zero_grad()
        for name, view in single.items():
            assert torch.allclose(weights[name], view, rtol=1e-5, atol=1e-6), (step, name)


def test_gradients_of_half_precision_are_added_up_in_fp32():
    """256 + 1 is 256 in bf16."""
    given = parameters()
    weights = MasterWeights([given], torch.bfloat16)
    for amount in (256.0, 1.0, 1.0):
        for p in given.values():
            p.grad = torch.full_like(p, amount)
        weights.gather_gradients()
        assert all(p.grad is None for p in given.values())
    assert all((found == 258.0).all() for found in weights.take_gradients() if found is not None)


def every_upper_half() -> torch.Tensor:
    """All 2^16 upper halves of fp32 numbers, each with lower halves around where bf16 rounds; NaN and infinite ones, too."""
    lower = torch.tensor([0, 1, 2**15 - 1, 2**15, 2**15 + 1, 2**16 - 1])
    upper = torch.arange(2**16)[:, None] * 2**16
    return (upper + lower).flatten().to(torch.int32).view(torch.float32)


def test_a_master_that_is_split_is_the_same_again_and_the_model_has_the_nearest_numbers():
    numbers = every_upper_half()
    work, rest = numbers.bfloat16(), torch.empty(len(numbers), dtype=torch.int16)
    split_into(work, rest, numbers.clone())
    assert torch.equal(join(work, rest).view(torch.int32), numbers.view(torch.int32))
    bits = numbers.view(torch.int32)
    halfway = (bits & 0xFFFF) == 2**15
    usual = numbers.isfinite() & ~halfway
    assert torch.equal(work[usual], numbers[usual].bfloat16())
    either = work[halfway & numbers.isfinite()].float(), numbers[halfway & numbers.isfinite()]
    assert (either[0].abs() > either[1].abs()).all()  # away from zero


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "adafactor"])
def test_steps_of_low_memory_give_the_same_masters(optimizer, monkeypatch):
    """With gradients that arrive in backward passes, of several buffers, accumulated, skipped, and of some parameters none."""
    monkeypatch.setattr(master_weights, "BUFFER_WEIGHTS", 10_000)
    settings = OptimizerSettings(optimizer=optimizer, learning_rate=0.01, max_grad_norm=2.0)
    sides = []
    for low_memory in (False, True):
        params = parameters()
        weights = MasterWeights(
            [params], torch.bfloat16, flat=optimizer != "adafactor", splits=low_memory, moves_gradients=low_memory
        )
        sides.append((params, weights, make_optimizer([ParamGroup(params, 0.01, 0.1)], weights, settings, CPU)))
    for step in range(5):
        for batch in range(2):
            for params, weights, _ in sides:
                factors = gradients(10 * step + batch)
                factors["norm"][3] = torch.inf if step == 2 else 1.0
                named = params.items() if step != 3 else [item for item in params.items() if item[0] not in ("last", "bias")]
                sum((p * factors[name].bfloat16()).float().sum() for name, p in named).backward()
                weights.gather_gradients()
        skipped = [bool(update(optimizer, weights, 2.0, torch.tensor(1.0))) for _, weights, optimizer in sides]
        assert skipped == [step == 2] * 2
        for _, weights, _ in sides:
            weights.copy_to_model()
        (_, plain, _), (_, split, _) = sides
        assert plain.keys() == split.keys() == SHAPES.keys()
        assert all(torch.equal(plain[name], split[name]) for name in plain)
        assert all(buffer.master.numel() == 0 for buffer in split.buffers)
        assert plain.are_finite()
        assert split.are_finite()


def test_gradients_leave_the_model_during_the_backward_pass(monkeypatch):
    """While the first layer's are computed, those of the later ones are gone: at most a buffer's are there at once."""
    monkeypatch.setattr(master_weights, "BUFFER_WEIGHTS", 10_000)
    layers = nn.Sequential(*(nn.Linear(64, 96 if n % 2 == 0 else 64) if n % 2 == 0 else nn.Linear(96, 64) for n in range(8)))
    weights = MasterWeights([dict(layers.named_parameters())], torch.bfloat16, splits=True, moves_gradients=True)
    most = []

    def count(*_) -> None:
        most.append(sum(p.numel() for p in layers.parameters() if p.grad is not None))

    for layer in layers:
        layer.register_full_backward_hook(count)
    layers(torch.randn(4, 64, dtype=torch.bfloat16, requires_grad=True)).float().square().sum().backward()
    assert len(most) == 8
    assert max(most) <= 10_000 + sum(layer.bias.numel() for layer in layers)
    assert all(g is not None for g in weights.take_gradients())


def test_weights_that_are_no_numbers_are_seen_in_split_masters():
    for bad in (torch.nan, torch.inf):
        params = parameters()
        weights = MasterWeights([params], torch.bfloat16, splits=True)
        assert weights.are_finite()
        broken = weights["odd"].clone()
        broken[3, 4] = bad
        weights["odd"] = broken
        assert not weights.are_finite()


def test_the_loss_scale_is_that_of_torch():
    """By its GradScaler, which it stands in for, over steps that overflow and steps that do not."""
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    scaler, ours = torch.amp.GradScaler("cpu"), LossScale(TrainingSettings(precision="fp16"), CPU)
    scaler.scale(torch.zeros(()))
    for step in range(2 * LossScale.GOOD_STEPS + 10):
        overflow = step in (0, 1, 7)
        parameter.grad = torch.full((1,), torch.inf if overflow else 1.0)
        scaler.step(optimizer)
        scaler.update()
        ours.adapt(torch.tensor(overflow))
        assert float(ours.factor) == scaler.get_scale(), step
    assert float(ours.factor) == 2.0**16 / 2**3 * 2**2


OPERATIONS = {
    "casts": ("aten::_to_copy",),
    "optimizer": ("aten::_fused_adamw_", "bitsandbytes::optimizer_update_8bit_blockwise", "bitsandbytes::optimizer_update_32bit"),
    "clipping": ("aten::linalg_vector_norm", "aten::_foreach_norm"),
}
"""By what torch's profiler calls them."""


def counted(run: Callable[[], None]) -> dict[str, int]:
    """Return how often each kind of operation was called; casts of single numbers are left out."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        run()
    found = dict.fromkeys(OPERATIONS, 0)
    for event in profiled.key_averages(group_by_input_shape=True):
        for kind, names in OPERATIONS.items():
            if event.key in names and (kind != "casts" or event.input_shapes[0]):
                found[kind] += event.count
    return found


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_a_step_has_few_casts_and_a_norm_and_an_update_for_each_buffer(make_run, monkeypatch, optimizer):
    """The stand-in's U-Net has 206 parameters, in a buffer and one of small ones; under autocast each was cast, and back."""
    found, take_step = [], Trainer.train_step

    def train_step(trainer: Trainer) -> None:
        if trainer.step == 1:  # the first one makes the optimizer's state
            found.append(counted(lambda: take_step(trainer)))
        else:
            take_step(trainer)

    monkeypatch.setattr(Trainer, "train_step", train_step)
    run_dir = make_run(DREAMBOOTH.replace(precision="bf16", steps=2, lr_warmup_steps=0, ema_decay=0.9, optimizer=optimizer))
    work_here(run_dir)
    print(f"\n{json.dumps(found)}")
    assert found[0]["casts"] <= 12
    assert found[0]["optimizer"] == 2
    assert found[0]["clipping"] == 3


def test_a_saved_state_has_the_masters_and_not_what_the_model_works_with(make_run):
    run_dir = make_run(DREAMBOOTH.replace(precision="bf16", learning_rate=2e-6))
    work_here(run_dir, stop_after=2)
    state = load_file(run_dir.state)
    weights = torch.cat([tensor.flatten() for name, tensor in state.items() if name.startswith("param/")])
    assert weights.dtype == torch.float32
    assert (weights != weights.bfloat16()).float().mean() > 0.9


def masters_of(run_dir: RunDir) -> dict[str, torch.Tensor]:
    state = load_file(run_dir.state)
    return {name.removeprefix("param/"): tensor for name, tensor in state.items() if name.startswith("param/")}


KEPT = DREAMBOOTH.replace(precision="bf16", steps=3, lr_warmup_steps=0, keep_state=True, save_every=2, train="lora", lora_rank=4)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"lora_kind": "lokr", "lora_rank": 16, "lora_layers": "all"},
        {"train": "lora_and_text_encoder"},
        {"train": "lora_and_token"},
        {"prior": "teacher", "class_prompt": "a toy"},
    ],
    ids=str,
)
def test_every_file_of_adapters_has_the_masters_and_a_run_goes_on_from_all_of_them(make_run, change):
    """That of a kept step, too. fp16 has three more digits than bf16: 7 of 8 of its numbers are none of bf16."""
    settings = KEPT.replace(**change)
    run_dir = make_run(settings, "first")
    work_here(run_dir)
    run, masters = run_dir.load_run(), masters_of(run_dir)
    result, kept = load_file(run.export_path), load_file(at_step(run.export_path, 2))
    unet = {name: tensor for name, tensor in masters.items() if ".lo" in name and not name.startswith(PREFIX)}
    text = {name.removeprefix(PREFIX): tensor for name, tensor in masters.items() if name.startswith(PREFIX)}
    expected = adapter_tensors(unet, UNET_PREFIX, settings) | adapter_tensors(text, TEXT_PREFIX, settings)
    assert result.keys() == expected.keys() == kept.keys()
    assert all(torch.equal(result[name], expected[name]) for name in expected)
    weights = torch.cat([tensor.flatten() for name, tensor in kept.items() if not name.endswith("alpha")])
    assert (weights != weights.bfloat16()).float().mean() > 0.5
    if "token_vectors" in masters:
        assert torch.equal(load_file(run.embedding_path)["emb_params"], masters["token_vectors"])
        return  # which would not begin with these vectors
    again = make_run(settings.replace(learning_rate=0.0, text_learning_rate=0.0, steps=1), "again", lora=result)
    work_here(again)
    repeated = load_file(again.load_run().export_path)
    assert all(torch.allclose(repeated[name].float(), result[name].float(), rtol=2e-3, atol=1e-7) for name in result)


def test_vectors_that_are_only_given_are_exported_as_they_were_given(make_run):
    given = torch.randn(2, 768, generator=torch.Generator().manual_seed(3))
    run_dir = make_run(DREAMBOOTH.replace(precision="bf16", steps=1, lr_warmup_steps=0), embedding=given)
    work_here(run_dir)
    assert torch.equal(load_file(run_dir.load_run().embedding_path)["emb_params"], given)
