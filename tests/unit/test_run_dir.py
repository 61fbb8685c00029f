import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from trainer.dataset.photos import Dataset, Photo
from trainer.run.files import partial_file, write_json
from trainer.run.run_dir import Run, RunDir, finished_runs, shorter_run
from trainer.run.settings import Settings


@pytest.fixture
def run() -> Run:
    photo = Photo(path="/photos/a.png", sha256="ab", width=64, height=64, caption="a photo of mysks toy")
    return Run(
        name="toy",
        settings=Settings.of(
            method="dreambooth", token="mysks", steps=10, batch_size=1, learning_rate=1e-6, seed=0, precision="fp32"
        ),
        dataset=Dataset(photos=(photo,), resolution=64, token="mysks"),
        base_fingerprint="cd",
        export_path="/out/toy.safetensors",
        tokenizer_path="/tokenizer",
    )


def test_a_run_survives_its_file(run, tmp_path):
    run_dir = RunDir(tmp_path)
    write_json(run_dir.run_json, run.to_json())
    assert run_dir.load_run() == run
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]  # no temporary file stays


def test_whatever_decides_the_result_changes_the_key(run):
    photo = run.dataset.photos[0]
    changed = [
        replace(run, base_fingerprint="ce"),
        replace(run, settings=run.settings.replace(steps=11)),
        replace(run, dataset=replace(run.dataset, resolution=128)),
        replace(run, dataset=replace(run.dataset, crop="top")),
        replace(run, dataset=replace(run.dataset, photos=(replace(photo, caption="mysks"),))),
        replace(run, dataset=replace(run.dataset, photos=(replace(photo, sha256="ac"),))),
        replace(run, dataset=replace(run.dataset, photos=(photo, photo))),
        replace(run, class_dataset=run.dataset),
    ]
    assert len({run.key, *(c.key for c in changed)}) == len(changed) + 1


def test_where_files_lie_does_not_change_the_key(run):
    photo = replace(run.dataset.photos[0], path="/elsewhere/b.png")
    moved = replace(run, export_path="/x", tokenizer_path="/y", dataset=replace(run.dataset, photos=(photo,)))
    assert moved.key == run.key


@pytest.mark.parametrize("damage", [{"format": 99}, {"settings": {}}, {"dataset": None}, {"settings": {"token": "../x"}}])
def test_a_damaged_or_foreign_run_json_is_a_plain_error(run, damage):
    with pytest.raises(ValueError, match=r"run\.json|token|Unknown"):
        Run.from_json(json.loads(json.dumps(run.to_json() | damage)))


def test_only_finished_runs_are_listed(tmp_path):
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "finished").mkdir()
    write_json(tmp_path / "finished" / "result.json", {})
    assert [r.path.name for r in finished_runs(tmp_path)] == ["finished"]
    assert finished_runs(tmp_path / "nowhere") == []


def test_the_same_run_with_fewer_steps_is_found_if_it_has_a_state(run, tmp_path):
    def made(name: str, **changes) -> RunDir:
        run_dir = RunDir(tmp_path / f"toy-{name}")
        run_dir.path.mkdir()
        write_json(run_dir.run_json, replace(run, settings=run.settings.replace(**changes)).to_json())
        run_dir.checkpoint.touch()
        return run_dir

    longer = replace(run, settings=run.settings.replace(steps=20, validate_every=4))
    assert shorter_run(longer, tmp_path) is None
    made("other-seed", seed=1)
    made("no-state").checkpoint.unlink()
    made("as-long", steps=20)
    assert shorter_run(longer, tmp_path) is None
    wanted = made("shorter", validate_every=2)
    made("damaged").run_json.write_text("{}")
    assert shorter_run(longer, tmp_path) == wanted
    assert shorter_run(replace(longer, base_fingerprint="x"), tmp_path) is None


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), partial_file(path) as partial:  # noqa: PT012
        partial.write_bytes(b"half")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    with pytest.raises(OSError, match="The disk is full"), partial_file(path):
        raise Exception("Error while serializing: I/O error: No space left on device (os error 28)")
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_power_loss_leaves_the_old_file_or_the_new_one(tmp_path, monkeypatch):
    """The content is on the disk before it gets the name, and the name before anything that follows."""
    calls = []
    fsync, move = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda *given: (calls.append("moved"), move(*given)))
    write_json(tmp_path / "result.json", {})
    assert calls == ["result.json.partial", "moved", tmp_path.name]
