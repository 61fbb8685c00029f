import json
import logging
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from trainer.dataset.photos import Dataset, Photo
from trainer.run import run_dir as run_dir_module
from trainer.run.drawing import room_made, with_new_prompts
from trainer.run.files import partial_file, write_json
from trainer.run.result_file import result_file
from trainer.run.run_dir import Run, RunDir, finished_runs, is_same_run, runs_with_key, shorter_run
from trainer.run.setting_groups import MAX_SAMPLE_PROMPTS
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
        replace(run, lora="ef"),
    ]
    assert len({run.key, *(c.key for c in changed)}) == len(changed) + 1


LORA, HELD_OUT = {"train": "lora"}, {"hold_out": 1, "validate_every": 5}
TOKEN, CLASS = {"embedding": "ef"}, {"class_dataset": None}
"""What a run is given; None stands for its own photos."""
MADE = {"class_images": 4, "class_prompt": "a photo of a toy"}


@pytest.mark.parametrize(
    ("others", "change", "given", "decides"),
    [
        *(({"train": train}, {"lora_rank": 4}, {}, False) for train in ("unet", "unet_and_token", "unet_and_text_encoder")),
        ({}, {"lora_alpha": 4.0}, {}, False),
        ({}, {"lora_layers": "all"}, {}, False),
        (LORA, {"lora_rank": 4}, {}, True),
        (LORA, {"lora_alpha": 4.0}, {}, True),
        (LORA, {"lora_layers": "all"}, {}, True),
        (LORA, {"lora_kind": "lokr"}, {}, True),
        ({}, {"prior_loss_weight": 0.5}, {}, False),
        ({}, {"prior_loss_weight": 0.5}, CLASS, True),
        (MADE, {"prior_loss_weight": 0.5}, {}, True),
        ({}, {"class_prompt": "a toy"}, CLASS, False),
        ({"class_prompt": "a toy"}, {"prior": "teacher"}, {}, True),
        ({"class_prompt": "a toy", "prior": "teacher"}, {"prior_loss_weight": 0.5}, {}, True),
        ({}, {"prior": "teacher_outside_masks"}, {}, True),
        ({"prior": "teacher_outside_masks"}, {"prior_loss_weight": 0.5}, {}, True),
        ({"prior": "teacher_outside_masks"}, {"class_prompt": "a toy"}, {}, False),
        (MADE, {"class_prompt": "a toy"}, {}, True),
        ({}, {"text_learning_rate": 1e-3}, {}, True),
        ({}, {"text_learning_rate": 1e-6}, {}, False),  # that of learning_rate, which 0 means
        ({"train": "unet"}, {"text_learning_rate": 1e-3}, {}, False),
        ({"train": "unet"}, {"text_learning_rate": 1e-3}, TOKEN, False),
        (LORA, {"text_learning_rate": 1e-3}, {}, False),
        (LORA, {"text_learning_rate": 1e-3}, TOKEN, True),
        ({}, {"validate_every": 5}, {}, False),
        (HELD_OUT, {"validate_every": 6}, {}, False),
        ({}, {"save_every": 10}, {}, False),  # as many as there are steps: nothing is saved on the way
        ({}, {"save_every": 9}, {}, True),
        (HELD_OUT, {"hold_out": 2}, {}, True),  # they are not trained on
        (HELD_OUT | {"early_stopping": "export_best"}, {"validate_every": 6}, {}, True),
        (HELD_OUT | {"early_stopping": "stop_and_export_best"}, {"validate_every": 6}, {}, True),
    ],
)
def test_a_setting_decides_only_where_it_has_an_effect(run, others, change, given, decides):
    given = {name: value or run.dataset for name, value in given.items()}
    plain = replace(run, settings=run.settings.replace(**others), **given)
    changed = replace(plain, settings=plain.settings.replace(**change))
    assert (changed.key != plain.key) == decides


@pytest.mark.parametrize(
    ("others", "given", "class_decides", "captions_decide"),
    [
        ({"initializer": "toy"}, {}, True, True),  # it is in the trigger
        ({"template_set": "object"}, {}, True, False),  # its vector is where training starts
        ({"template_set": "object", "initializer": "toy"}, {}, False, False),
        ({"template_set": "style"}, TOKEN, False, False),
    ],
)
def test_captions_and_class_decide_only_where_training_sees_them(run, others, given, class_decides, captions_decide):
    plain = replace(run, settings=run.settings.replace(method="textual_inversion", **others), **given)
    photo = replace(run.dataset.photos[0], caption="mysks on grass")
    captioned = replace(plain, dataset=replace(run.dataset, photos=(photo,)))
    assert (captioned.key != plain.key) == captions_decide
    assert (replace(plain, settings=plain.settings.replace(class_word="dog")).key != plain.key) == class_decides
    twice = replace(plain, dataset=replace(run.dataset, photos=(replace(run.dataset.photos[0], repeats=2),)))
    assert twice.key != plain.key


def test_a_jitter_without_variants_does_not_change_the_key(run):
    for name in ("view_jitter", "color_jitter", "light_jitter"):
        alone = replace(run, dataset=replace(run.dataset, **{name: 0.1}))
        assert alone.key == run.key
        varied = replace(alone, dataset=replace(alone.dataset, variants=4))
        assert varied.key != replace(run, dataset=replace(run.dataset, variants=4)).key == run.key


KEY, VARIED_KEYS = "616efbe938cc", ("12967d0079bf", "b6c58693de8f")
"""Of runs of format 5: they change with FORMAT alone."""


def test_a_usual_run_has_the_key_that_it_always_had(run):
    """Runs that are there must be found."""
    assert run.key == KEY
    varied = replace(run, dataset=replace(run.dataset, view_jitter=0.1, variants=4))
    kept = replace(varied, settings=run.settings.replace(save_every=5))
    assert (varied.key, kept.key) == VARIED_KEYS


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


def test_a_run_of_another_format_is_another_run_and_cannot_be_read(run, tmp_path, monkeypatch):
    write_json(tmp_path / "run.json", run.to_json())
    key = run.key
    monkeypatch.setattr(run_dir_module, "FORMAT", run_dir_module.FORMAT + 1)
    assert run.key != key
    with pytest.raises(ValueError, match=r"run\.json"):
        RunDir(tmp_path).load_run()


def test_the_same_run_with_fewer_steps_is_found_if_it_has_a_state(run, tmp_path):
    def made(name: str, **changes) -> RunDir:
        run_dir = RunDir(tmp_path / f"toy-{name}")
        run_dir.path.mkdir()
        write_json(run_dir.run_json, replace(run, settings=run.settings.replace(**changes)).to_json())
        run_dir.state.touch()
        return run_dir

    longer = replace(run, settings=run.settings.replace(steps=20, validate_every=4))
    assert shorter_run(longer, tmp_path) is None
    made("other-seed", seed=1)
    made("no-state").state.unlink()
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


DEEP = "[" * 100_000
DAMAGES = {
    "deep": lambda path, run: path.write_text(DEEP),
    "just readable": lambda path, run: path.write_text("[" * 900 + "]" * 900),
    "deep within": lambda path, run: path.write_text(
        json.dumps(put(run, ("dataset", "resolution"), "DEEP")).replace('"DEEP"', "[" * 700 + "]" * 700)
    ),
    "cut": lambda path, run: path.write_text(json.dumps(run)[:100]),
    "bytes": lambda path, run: path.write_bytes(bytes(range(256))),
    "empty": lambda path, run: path.touch(),
    "huge": lambda path, run: (path.touch(), os.truncate(path, 2**40)),
    "long number": lambda path, run: path.write_text("1" * 10_000),
    "folder": lambda path, run: path.mkdir(),
    "pipe": lambda path, run: os.mkfifo(path),
    "dangling link": lambda path, run: path.symlink_to("nowhere"),
    "loop": lambda path, run: path.symlink_to(path.name),
    "device": lambda path, run: path.symlink_to("/dev/zero"),
    "odd views": lambda path, run: path.write_text(
        json.dumps(put(put(run, ("dataset", "variants"), {}), ("dataset", "color_jitter"), 1))
    ),
    **{
        f"{value!r} in {'.'.join(keys)}": lambda path, run, value=value, keys=keys: path.write_text(
            json.dumps(put(run, keys, value))
        )
        for value in (None, 5, "x", [], {}, True)
        for keys in (
            ("settings",),
            ("settings", "training"),
            ("dataset",),
            ("dataset", "photos"),
            ("dataset", "variants"),
            ("dataset", "color_jitter"),
            ("embedding",),
        )
    },
}
"""What may stand in the place of a run.json or result.json."""


def put(data: dict, keys: tuple[str, ...], value: object) -> dict:
    data = json.loads(json.dumps(data))
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return data


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pipes, and links need a right of their own")
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_neither_hides_nor_stops_the_other_runs(run, tmp_path, damage, caplog):
    damaged, sound = RunDir(tmp_path / "damaged"), RunDir(tmp_path / "sound")
    for run_dir in (damaged, sound):
        run_dir.path.mkdir()
        run_dir.state.touch()
    write_json(sound.run_json, run.to_json())
    write_json(sound.result_json, {})
    DAMAGES[damage](damaged.run_json, run.to_json())
    DAMAGES[damage](damaged.result_json, run.to_json())
    longer = replace(run, settings=run.settings.replace(steps=20))
    with caplog.at_level(logging.WARNING):
        assert shorter_run(longer, tmp_path) == sound
        assert sound in finished_runs(tmp_path)
    try:
        damaged.load_run().key  # noqa: B018
    except Exception:  # of any kind: these are what must be survived
        assert str(damaged.path) in caplog.text


def test_no_link_is_taken_for_the_folder_of_a_run(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "result.json").touch()
    root = tmp_path / "runs"
    root.mkdir()
    (root / "toy-0123456789ab").symlink_to(tmp_path / "elsewhere")
    assert finished_runs(root) == runs_with_key(root, "0123456789ab") == []


def test_a_run_is_known_by_its_key_whatever_its_name(tmp_path):
    for name in ("toy-0123456789ab", "my best toy-0123456789ab", "toy-0123456789ac", "0123456789ab", "toy-0123456789AB", "toy-"):
        (tmp_path / name).mkdir()
    (tmp_path / "file-0123456789ab").touch()
    found = [run_dir.path.name for run_dir in runs_with_key(tmp_path, "0123456789ab")]
    assert found == ["0123456789ab", "my best toy-0123456789ab", "toy-0123456789ab"]
    assert runs_with_key(tmp_path, "") == runs_with_key(tmp_path / "nowhere", "0123456789ab") == []
    assert is_same_run("a-0123456789ab", "b-c-0123456789ab")
    assert not is_same_run("a-0123456789ab", "a-0123456789ac")
    assert not is_same_run("toy-x", "dog-x")  # no keys
    assert not is_same_run("", "toy")


def test_a_file_says_which_run_it_is_of(tmp_path):
    path = tmp_path / "moved.safetensors"
    said = {"subject_trainer.run": "toy-0123456789ab", "subject_trainer.steps": "7"}
    save_file({"a": np.zeros(2, dtype=np.float32)}, path, said)
    found = result_file(path)
    assert (found.run, found.step) == ("toy-0123456789ab", "7")
    save_file({"a": np.zeros(3, dtype=np.float32)}, path, said | {"subject_trainer.steps": "8"})
    assert result_file(path).step == "8"  # what was read before is not taken for it
    save_file({"a": np.zeros(2, dtype=np.float32)}, path)
    assert result_file(path).run == ""
    for raw in (b"", b"{}", b"\xff" * 20, (2**62).to_bytes(8, "little") + b"{}"):
        path.write_bytes(raw)
        assert result_file(path) is None
    path.unlink()
    assert result_file(path) is None


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right of their own")
@pytest.mark.parametrize("name", ["run.json", "result.json", "state.safetensors", "log.txt", "lock", "metrics.jsonl", "finish"])
def test_what_is_no_file_of_the_run_is_in_the_way(tmp_path, name):
    run_dir = RunDir(tmp_path)
    assert run_dir.in_the_way() is None
    path = tmp_path / name
    path.touch()
    run_dir.samples.mkdir()
    assert run_dir.in_the_way() is None
    path.unlink()
    path.mkdir()
    assert run_dir.in_the_way() == path
    path.rmdir()
    path.symlink_to("nowhere")
    replaced = name.endswith((".json", ".safetensors"))  # with another file, by its name: nothing goes through the link
    assert run_dir.in_the_way() == (None if replaced else path)


@pytest.mark.parametrize(
    ("had", "asked", "kept"),
    [("ab", "ab", True), ("ab", "abc", True), ("ab", "a", False), ("ab", "ba", False), (None, "ab", False)],
)
def test_pictures_of_other_prompts_are_set_aside(run, tmp_path, had, asked, kept):
    run_dir = RunDir(tmp_path)
    for name in ("samples", "samples-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if had:
        write_json(run_dir.run_json, replace(run, settings=run.settings.replace(sample_prompts=tuple(had))).to_json())
    run_dir.set_samples_aside(tuple(asked))
    assert (run_dir.samples / "samples").is_file() == kept
    assert (tmp_path / "samples-2" / "samples").is_file() != kept
    assert (tmp_path / "samples-1" / "samples-1").is_file()


@pytest.mark.parametrize(
    ("had", "asked", "prompts"),
    [("", "ab", "ab"), ("ab", "ab", "ab"), ("ab", "b", "ab"), ("ab", "cba", "abc"), ("a", "aab", "aab"), ("ab", "", "ab")],
)
def test_what_a_run_has_keeps_its_number_and_only_what_it_lacks_is_new(had, asked, prompts):
    assert with_new_prompts(had, asked) == tuple(prompts)


@pytest.mark.parametrize("more", [0, 1])
def test_a_run_has_no_more_prompts_than_it_can_have(run, tmp_path, more):
    run_dir, had = RunDir(tmp_path), tuple(map(str, range(MAX_SAMPLE_PROMPTS - 1)))
    write_json(run_dir.run_json, replace(run, settings=run.settings.replace(sample_prompts=had)).to_json())
    run_dir.samples.mkdir()
    run_dir.picture(4, 0).touch()
    with room_made(run_dir, run_dir.load_run(), ("a toy", "a cat")[: 1 + more]) as made:
        assert made.settings.samples.sample_prompts == (() if more else had)
        assert made == run_dir.load_run()
    assert made == run_dir.load_run()
    assert run_dir.picture(4, 0).is_file() == (not more)
    assert (tmp_path / "samples-1" / run_dir.picture(4, 0).name).is_file() == bool(more)


@pytest.mark.parametrize("has_pictures", [True, False])
def test_a_run_has_its_prompts_and_pictures_again_where_no_others_could_be_drawn(run, tmp_path, has_pictures):
    run_dir, had = RunDir(tmp_path), tuple(map(str, range(MAX_SAMPLE_PROMPTS)))
    write_json(run_dir.run_json, replace(run, settings=run.settings.replace(sample_prompts=had)).to_json())
    if has_pictures:
        run_dir.samples.mkdir()
        for number in range(MAX_SAMPLE_PROMPTS):
            run_dir.picture(4, number).write_text(had[number])
        run_dir.grid.write_text("grid")

    def files() -> dict[str, bytes]:
        return {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def draw() -> None:
        with room_made(run_dir, run_dir.load_run(), ("a cat",)):
            run_dir.samples.mkdir()
            run_dir.picture(4, 0).write_text("a cat")
            raise KeyboardInterrupt  # a cancel is no Exception, either

    before = files()
    with pytest.raises(KeyboardInterrupt):
        draw()
    assert files() == before


def test_what_was_left_of_more_prompts_is_removed(tmp_path):
    run_dir = RunDir(tmp_path)
    run_dir.samples.mkdir()
    for name in ("step-000004-0.png", "step-000004-1.png", "step-000004-2.png", "step-x-9.png", "grid.jpg"):
        (run_dir.samples / name).touch()
    assert run_dir.pictures() == {run_dir.picture(4, number): (4, number) for number in range(3)}
    run_dir.remove_pictures_from(1)
    assert {path.name for path in run_dir.samples.iterdir()} == {"step-000004-0.png", "step-x-9.png", "grid.jpg"}
