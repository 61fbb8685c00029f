"""Files that are written a tensor at a time, beside those of safetensors' own writer."""

import errno
import random
import weakref
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainer.failures import describe
from trainer.run import files
from trainer.training.tensor_file import TYPES, write_tensors


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are made within, and their peak. A process's own memory is too coarse for that."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        for given in tree_leaves((args, kwargs)):
            if torch.is_tensor(given):  # what was there before
                self.known.setdefault(given.untyped_storage()._cdata, 0)
        made = func(*args, **(kwargs or {}))
        for tensor in filter(torch.is_tensor, tree_leaves(made)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self.known:
                self.known[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._gone, storage._cdata)
        return made

    def _gone(self, key: int) -> None:
        self.now -= self.known.pop(key)


def random_tensor(rng: random.Random) -> torch.Tensor:
    """Return a tensor of any type, rank and layout, scalars and empty ones among them."""
    shape = [rng.choice([0, 1, 2, 3, 7, 64]) if rng.random() < 0.9 else 300 for _ in range(rng.randrange(4))]
    count = int(torch.tensor(shape).prod()) if shape else 1
    dtype = rng.choice(list(TYPES))
    random_bytes = torch.randint(0, 2 if dtype == torch.bool else 256, (count * dtype.itemsize,), dtype=torch.uint8)
    tensor = random_bytes.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)
    if tensor.ndim > 1 and rng.random() < 0.3:
        tensor = tensor.transpose(0, -1)
    return torch.nn.Parameter(tensor) if dtype.is_floating_point and rng.random() < 0.3 else tensor


def same_bits(one: torch.Tensor, two: torch.Tensor) -> bool:
    def bits(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().contiguous().reshape(-1).view(torch.uint8)

    return one.dtype == two.dtype and one.shape == two.shape and torch.equal(bits(one), bits(two))


@pytest.mark.parametrize("seed", range(30))
def test_the_file_has_the_bytes_of_safetensors_own_writer(tmp_path, seed):
    rng = random.Random(seed)
    torch.manual_seed(seed)
    letters = 'abAB/._é"\\\n\x01\x7fй猫'
    names = {"".join(rng.choices(letters, k=rng.randint(1, 9))) for _ in range(rng.choice([1, 3, 40]))}
    tensors = {name: random_tensor(rng) for name in names}
    metadata = {"step": rng.choice(['"1"\n', "йцу", ""])} if rng.random() < 0.7 else {}
    write_tensors(tmp_path / "ours", tensors, metadata)
    save_file({k: v.detach().contiguous() for k, v in tensors.items()}, tmp_path / "theirs", metadata or None)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    read = load_file(tmp_path / "ours")
    assert read.keys() == tensors.keys()
    assert all(same_bits(read[name], tensors[name]) for name in tensors)
    with safe_open(tmp_path / "ours", "pt") as file:
        assert (file.metadata() or {}) == metadata
    assert {path.name for path in tmp_path.iterdir()} == {"ours", "theirs"}


def test_the_order_of_types_is_that_of_safetensors(tmp_path):
    tensors = {f"{number:02}": torch.zeros(3).to(dtype) for number, dtype in enumerate(TYPES)}
    write_tensors(tmp_path / "ours", tensors, {})
    save_file(tensors, tmp_path / "theirs")
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_tensors_may_share_memory_and_be_written_as_another_type(tmp_path):
    table = torch.randn(4, 6)
    write_tensors(tmp_path / "file", {"a": table, "b": table[1:], "c": table.T}, {"x": "y"}, {"b": torch.float16})
    read = load_file(tmp_path / "file")
    assert torch.equal(read["a"], table)
    assert same_bits(read["b"], table[1:].half())
    assert torch.equal(read["c"], table.T)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_saving_takes_the_memory_of_about_one_tensor(tmp_path, dtype):
    """Those here lie the other way round, so that each must be copied, as each must that lies on a device."""
    tensors = {str(number): torch.randn(256, 512).T for number in range(40)}
    largest = 256 * 512 * 4
    with LiveBytes() as live:
        write_tensors(tmp_path / "file", tensors, {}, dict.fromkeys(tensors, dtype))
    assert 0 < live.peak <= 2 * largest
    assert live.now == 0
    assert all(torch.equal(tensor, tensors[name].to(dtype)) for name, tensor in load_file(tmp_path / "file").items())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_named_with_the_file_and_leaves_what_was_there(tmp_path, monkeypatch, number):
    path = tmp_path / "state.safetensors"
    write_tensors(path, {"a": torch.zeros(3)}, {})
    before = path.read_bytes()

    def fails(*_) -> None:
        raise OSError(number, "No space left on device")

    monkeypatch.setattr("trainer.training.tensor_file._bytes", fails)
    with pytest.raises(OSError, match="The disk is full") as error:
        write_tensors(path, {"a": torch.ones(3)}, {})
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, str(path))
    assert str(describe(error.value, tmp_path)).startswith(f"The disk is full: {path}.")
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_full_at_once_is_named_too(tmp_path, monkeypatch):
    """What is written last goes to the disk when the file is closed, and fails there."""
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, mode="r", *a, **k: opened(Path("/dev/full"), mode, *a, **k))
    with pytest.raises(OSError, match="The disk is full") as error, files.partial_file(tmp_path / "file") as partial:
        partial.write_bytes(b"x")
    assert error.value.filename == str(tmp_path / "file")
