"""The documentation against the code: what is made from it, what it names, and where its links lead."""

import inspect
import json
import re
from dataclasses import fields
from pathlib import Path
from urllib.parse import unquote

import pytest

from tools.settings_docs import NODES, WORDS, page_with_tables, pages, tables
from trainer.dataset.decode import MAX_PIXELS, MEMORY, MOST_PIXELS_OF_JPEG
from trainer.run import run_dir as run_dir_module
from trainer.run.events import KINDS, PHASES
from trainer.run.run_dir import FORMAT, RunDir
from trainer.run.settings import method_settings

ROOT = Path(__file__).parent.parent.parent
HELP = ROOT / "js" / "docs"
DOCS = ROOT / "docs"
MARKDOWN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
MARKDOWN += sorted(HELP.rglob("*.md"))
LANGUAGES = {path.parent.name for path in (ROOT / "locales").glob("*/nodeDefs.json")}


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def links(path: Path) -> list[tuple[str, str]]:
    """File and anchor of each relative link and picture of a page, either of them empty where there is none."""
    targets = re.findall(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)", read(path))
    return [(unquote(file), anchor) for file, anchor in targets if not file.startswith(("https:", "http:"))]


def anchors(path: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", read(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(("path", "language", "node_ids"), list(pages()), ids=[name(path) for path, *_ in pages()])
def test_the_tables_of_settings_are_what_the_code_says(path, language, node_ids):
    text = read(path)
    assert text == page_with_tables(text, language, node_ids), "run python -m tools.settings_docs"


def test_there_is_a_page_with_tables_in_every_language():
    wanted = {HELP / node_id / f"{language}.md" for node_id in NODES for language in LANGUAGES - {"en"}}
    assert wanted <= {path for path, *_ in pages()}
    assert WORDS.keys() == LANGUAGES


def test_a_table_has_each_setting_with_its_default_and_bounds():
    assert "| `steps` | 0 | 0 to 200000 |" in tables("TextualInversionTrain", "en")
    table = tables("DreamBoothTrain", "en")
    assert all(f"\n| `{setting}` |" in table for setting in method_settings("dreambooth"))
    for row in (
        "| `learning_rate` | 0 | 0 to 1 |",
        "| `seed` | 0 | 0 to 2^64 - 1 |",
        "| `precision` | auto | auto, bf16, fp16, fp32 |",
        "| `keep_state` | off | on, off |",
        "| `sample_prompts` | empty | up to 16 lines |",
    ):
        assert row in table
    shown, advanced = table.split("### Advanced settings")
    assert "`train`" in shown
    assert "`ema_decay`" in advanced
    assert r"\<run>-step-000120" in advanced  # otherwise the browser takes it for an element


def test_a_page_without_a_place_for_its_table_is_an_error():
    with pytest.raises(ValueError, match="<!-- settings: DreamBoothTrain -->"):
        page_with_tables("# A page", "en", ["DreamBoothTrain"])


def test_the_readme_can_be_read_in_one_go():
    assert len(read(ROOT / "README.md").splitlines()) <= 150


@pytest.mark.parametrize("path", MARKDOWN, ids=name)
def test_lines_are_short(path):
    """Rows of tables cannot be broken."""
    assert [line for line in read(path).splitlines() if len(line) > 130 and not line.startswith("|")] == []


@pytest.mark.parametrize("path", MARKDOWN, ids=name)
def test_links_lead_somewhere(path):
    # ComfyUI's page looks the pictures of all help pages up from their own folder, whatever the language.
    folder = HELP if HELP in path.parents else path.parent
    for file, anchor in links(path):
        target = folder / file if file else path
        assert target.exists(), file
        assert not anchor or anchor in anchors(target), (file, anchor)


def test_every_page_can_be_found_from_the_readme():
    linked = {(ROOT / file).resolve() for file, _ in links(ROOT / "README.md")}
    assert linked >= {*DOCS.glob("*.md"), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"}


def test_the_architecture_names_every_folder():
    text = read(DOCS / "architecture.md")
    for root in ("trainer", "nodes"):
        folders = {path.parent for path in (ROOT / root).rglob("*.py")} - {ROOT / root}
        assert folders
        for folder in folders:
            assert f"`{name(folder)}/`" in text


def test_the_architecture_names_every_file_of_a_run():
    text = read(DOCS / "architecture.md")
    run_dir = RunDir(Path("run"))
    paths = [getattr(run_dir, attribute) for attribute, kind in vars(RunDir).items() if isinstance(kind, property)]
    files = [path.relative_to("run").name for path in paths if isinstance(path, Path)]
    assert len(files) > 10
    assert [file for file in files if f"`{file}`" not in text and f"`{file}/`" not in text] == []
    assert f"`format` is {FORMAT}" in text


def test_the_architecture_names_every_event_with_its_fields():
    text = read(DOCS / "architecture.md")
    for kind, event in KINDS.items():
        (row,) = re.findall(rf"^\| `{kind}` \|(.*)\|.*\|$", text, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) == {field.name for field in fields(event)}, kind
    assert [phase for phase in PHASES if f"`{phase}`" not in text] == []


def test_what_is_not_in_the_key_is_told():
    text = read(DOCS / "files.md")
    (sentence,) = re.findall(r"Not in the key are settings(.*?)\.", text, re.DOTALL)
    settings = {setting: f for method in NODES.values() for setting, f in method_settings(method).items()}
    assert set(re.findall("`([a-z_]+)`", sentence)) == {n for n, f in settings.items() if not f.metadata["setting"].decides}


PROMISES = {
    "Names and folders": [
        "test_no_name_leads_out_of_the_roots",
        "test_a_link_to_a_folder_outside_is_neither_listed_nor_found",
        "test_a_name_stays_one_file_name_on_every_system",
        "test_nothing_outside_the_roots_is_read_or_written",
        "test_only_embeddings_of_comfyuis_folders_are_read",
        "test_training_starts_from_an_embedding_file_finds_it_changed_and_overwrites_nothing",
    ],
    "Links": [
        "test_no_route_follows_a_link_inside_a_folder_that_leads_out",
        "test_links_within_the_folder_are_used",
        "test_no_text_behind_a_link_that_leads_out_is_read",
        "test_a_caption_is_never_written_through_a_link",
        "test_a_photo_behind_a_link_that_leads_out_or_nowhere_is_named_and_not_shown",
        "test_no_file_of_a_run_is_written_through_a_planted_link",
    ],
    "No pickles": ["test_an_embedding_that_is_a_program_is_not_run", "test_the_file_has_the_bytes_of_safetensors_own_writer"],
    "Photos": [
        "test_kinds_are_known_by_their_bytes",
        "test_other_formats_in_disguise_are_refused",
        "test_an_absurd_size_is_refused_by_the_header",
        "test_what_cannot_be_read_is_named_with_its_own_remedy",
    ],
    "Texts are data": [
        "test_photos_are_listed_shown_and_their_captions_written",
        "test_what_somebody_has_written_stays_as_it_is",
        "test_a_run_shows_itself_while_it_trains_and_afterwards",  # with the worker's command line
        "test_every_setting_is_bounded_and_told",
    ],
    "One writer": [
        "test_it_waits_until_the_other_one_is_gone_however_that_ends",
        "test_a_second_process_waits_and_finds_the_run_finished",
    ],
    "Routes": [
        "test_nothing_outside_the_roots_is_read_or_written",
        "test_a_wrong_request_is_refused",
        "test_a_run_is_finished_from_the_page_and_trains_on",
        "test_a_run_is_its_own_client_s",
        "test_curves_of_a_hundred_thousand_steps_stay_small",
        "test_of_a_large_folder_the_first_photos_are_listed",
    ],
    "Runs from elsewhere": [
        "test_a_foreign_run_json_is_read_or_refused",
        "test_a_foreign_message_is_read_or_refused",
        "test_a_run_from_elsewhere_gives_no_file_but_its_own",
    ],
    "Formats": [
        "test_every_format_that_pillow_reads_is_used",
        "test_heic_is_read_by_pillow_heif_where_that_is_installed",
        "test_a_picture_that_cannot_be_read_is_named_in_the_node_and_in_the_panel",
    ],
    "Damage": [
        "test_no_exif_entry_of_any_tag_and_type_costs_the_photo_or_its_orientation",
        "test_a_chunk_of_a_png_that_is_damaged_or_huge_does_not_cost_the_photo",
        "test_a_file_that_lacks_pixels_is_refused",
        "test_a_jpeg_that_lacks_its_end_mark_alone_is_used_with_a_note",
    ],
    "Colours": [
        "test_wide_gamut_is_converted",
        "test_adobe_rgb_is_known_by_exif_alone",
        "test_transparency_becomes_white",
        "test_sixteen_bit_greyscale_keeps_its_brightness",
        "test_the_colour_that_a_png_calls_transparent_is_white",
    ],
    "Size": ["test_a_phone_s_108_megapixels_are_read", "test_an_absurd_size_is_refused_by_the_header"],
    "Other trainers' files": [
        "test_a_mask_of_another_trainer_is_no_photo",
        "test_a_mask_is_known_by_the_photo_beside_it",
        "test_kohya_s_subfolders_are_offered_and_their_repeats_read",
        "test_what_the_number_of_a_folder_does_is_told_in_the_node_and_in_the_panel",
    ],
}
"""What the docs promise about files, by the bold beginning of each line, and the tests that hold it."""
BACKGROUNDS = ["test_with_masks_the_subject_is_kept_and_the_backgrounds_of_its_photos_are_not"]
SENTENCES = {
    "docs/photos.md": {
        "beside a photo of that name they are passed over": ["test_what_a_photo_was_made_of_is_passed_over_with_a_word"],
        "of several pictures in a file, the first": ["test_of_several_pictures_in_a_file_the_first_is_used_with_a_note"],
        "but in a TIFF no thumbnail": [
            "test_a_thumbnail_in_a_tiff_is_not_taken_for_the_photo",
            "test_the_photo_below_the_thumbnail_of_a_tiff_is_used_as_the_thumbnail_lies",
        ],
        "whose codes alone say Display P3": ["test_display_p3_is_known_by_its_codes_alone"],
        "A photo of one colour, or all transparent": [
            "test_a_photo_with_nothing_to_learn_from_is_told_in_the_node_and_in_the_panel"
        ],
        "with photos in them, also subfolders of these": ["test_every_listed_name_means_the_folder_that_was_listed"],
        "pictures made in the graph (grey, RGB or RGBA)": ["test_wired_pictures_are_written_as_what_they_show"],
        "marks what is suspicious": ["test_what_is_suspicious_is_marked_on_each_photo"],
        "they go to `<name>.txt` beside the photo": ["test_a_caption_is_written_beside_its_photo_and_read_by_the_loader"],
        "asks which one shall stay": ["test_a_caption_that_changed_elsewhere_is_not_overwritten"],
        "The IMAGE output has the first 100 pictures": [
            "test_of_a_large_folder_the_first_pictures_are_given_back_and_the_first_names_named"
        ],
        "`<name>.txt` or `<name>.caption`": ["test_a_file_beside_the_photo_is_its_caption"],
        "or `a.jpg.txt` where there is an `a.png`, too": ["test_two_photos_of_one_name_share_a_caption_with_a_word"],
        "Each line is a caption of the whole photo": [
            "test_several_lines_are_alternatives",
            "test_each_alternative_is_drawn_as_often_as_the_others_and_always_the_same",
        ],
        "Photos without such a file take it from": ["test_captions_come_from_sidecars_before_metadata"],
        "`caption` and `prompt` do in place of `text`": ["test_an_entry_finds_its_photo"],
        "also as Excel saves it": ["test_a_spreadsheet_is_read", "test_a_spreadsheet_may_begin_as_excel_has_it"],
        "kohya's `metadata.json`": ["test_kohya_s_metadata_are_read"],
        "is passed over with a note": [
            "test_another_program_s_metadata_are_passed_over_with_a_word",
            "test_a_file_of_another_program_does_not_cost_the_folder",
            "test_a_spreadsheet_without_our_columns_is_passed_over_with_a_word",
        ],
        "Such a file may have 50 MB, one beside a photo 1 MB": ["test_a_file_that_is_too_large_for_captions_is_named"],
        "The node names entries that no photo has, and text files that belong to none": [
            "test_an_entry_without_a_photo_is_told_with_its_file_and_line",
            "test_a_caption_file_without_a_photo_is_told",
        ],
        "the first of these counts": ["test_a_wired_mask_takes_the_place_of_both"],
        "One that is all white or all black": ["test_a_mask_that_tells_nothing_is_none"],
        "or within 7 steps of 255 of that, is none": ["test_a_soft_mask_that_found_nothing_is_none_and_a_faint_subject_is_one"],
        "less than a tenth of what it shows, the node names the photo": [
            "test_photos_whose_masked_subject_the_crop_cuts_off_are_named"
        ],
        "A mask shows the whole photo, at any size": [
            "test_a_mask_of_another_shape_is_refused_and_not_squeezed",
            "test_a_mask_of_another_size_is_scaled",
        ],
        "exactly as its photo is": ["test_a_mask_is_framed_as_its_photo_is", "test_every_view_has_its_own_mask_to_the_latent"],
        "the rest counts `mask_weight` times": ["test_the_gradient_outside_is_exactly_the_weight_times_its_share"],
        "is held to the model's own prediction from before": [
            "test_outside_of_the_masks_the_loss_is_half_of_the_distance_to_the_base",
            "test_what_is_trained_stays_nearer_to_the_base_outside_of_the_masks",
        ],
        "A small `mask_weight` slows the learning": BACKGROUNDS,
        "| the photos' backgrounds |": BACKGROUNDS,
        "| the same, a little paler |": BACKGROUNDS,
        "nothing says what is there": BACKGROUNDS,
        "what the base puts there": BACKGROUNDS,
        "all four drew the subject": BACKGROUNDS,
        "It takes a list with a text for each photo": ["test_pictures_and_texts_of_lists_go_together"],
        "blank ones left out where there are too many": ["test_blank_lines_are_left_out_where_there_are_too_many"],
        "of more than 100 photos, IMAGE has the first 100 alone": [
            "test_of_more_photos_than_image_has_the_difference_is_explained"
        ],
        "also a list within the list": ["test_a_list_within_the_list_is_what_is_in_it"],
        "or one text with a line for each": ["test_one_text_may_have_a_line_for_each"],
        "A file beside the photo goes first": ["test_photos_without_a_caption_get_theirs_by_the_order_of_the_names"],
        "also where you empty it": ["test_a_caption_that_the_user_empties_stays_empty"],
        "up to 100 are allowed": ["test_what_may_stand_for_repeats", "test_repeats_that_are_no_whole_number_are_refused"],
        "UTF-16 is read, too": ["test_every_encoding_that_can_be_told_is_read"],
        "Others cannot be told from each other": ["test_an_encoding_that_cannot_be_told_is_named_with_its_file"],
        "CLIP would read the token and the letters beside it as one word": [
            "test_the_token_is_found_beside_underscores_and_letters_of_scripts_without_blanks"
        ],
        "the node names captions that are longer": ["test_a_caption_that_clip_cannot_read_to_its_end"],
        "it has the token, wherever the class is": ["test_a_token_apart_from_its_class_is_recognised_and_nothing_is_added"],
        "What cannot be seen (a zero-width space, a soft hyphen)": [
            "test_what_cannot_be_seen_between_token_and_class_is_a_blank",
            "test_what_cannot_be_seen_in_a_template_is_a_blank",
        ],
        "those right before the class stay": ["test_a_class_prompt_names_the_class_once_where_words_stand_between"],
        "a multiple of 8 from 64 to 2048": ["test_impossible_resolutions_are_refused_with_a_remedy"],
        "*pad* puts the whole photo on white": [
            "test_crops_keep_what_they_promise_and_never_squash",
            "test_buckets_keep_the_shape_on_the_grid_of_64_pixels",
        ],
        "what is added to a folder that is there gets names that are free": [
            "test_new_photos_and_captions_leave_those_of_the_folder_alone",
            "test_a_folder_that_is_there_is_never_used",
        ],
        "masks made in the graph, one for each photo": ["test_masks_are_taken_and_shown_over_the_photos"],
        "how much the loss counts outside of the masks: 0 to 1": [
            "test_masks_decide_the_result_where_they_count_and_only_there",
            "test_a_weight_out_of_bounds_is_refused",
        ],
        "captions made in the graph, one for each photo": ["test_a_text_with_a_line_for_each_photo_captions_a_folder"],
        "also trains on the mirror images": ["test_flip_doubles_the_views_and_is_off_by_default"],
        "also train on variants": [
            "test_variants_are_others_always_the_same_and_the_photo_itself_is_first",
            "test_an_augmentation_out_of_bounds_is_refused",
        ],
        "number of versions of each photo": ["test_variants_are_others_always_the_same_and_the_photo_itself_is_first"],
        "from the photo's own alpha channel": ["test_a_mask_is_a_file_beside_the_photo_or_its_alpha_channel"],
        "With `mask_weight` 1, or without masks, nothing of the result changes": [
            "test_a_run_trains_on_masks_and_otherwise_as_before"
        ],
        '{"file_name": "a.jpg", "text": "a caption"}': ["test_an_entry_finds_its_photo"],
        '"text": ["a caption", "another one"], "repeats": 2': [
            "test_what_may_stand_for_a_caption",
            "test_repeats_come_from_the_metadata_even_where_the_caption_is_in_a_sidecar",
        ],
        "one word of letters A-Z, digits, `-` and `_`, at most 64": ["test_tokens_that_cannot_be_a_word_and_a_file_are_refused"],
        "what the subject is, in plain words": ["test_without_a_class_the_token_stands_alone"],
        "the caption of a photo that has none": ["test_a_template_is_filled_or_refused"],
        "it has the token already": ["test_a_caption_gets_token_and_class_where_it_has_neither"],
        "it names the class, which gets the token before it": ["test_a_caption_gets_token_and_class_where_it_has_neither"],
        "it has neither, so token and class lead it": ["test_a_caption_gets_token_and_class_where_it_has_neither"],
        "a photo of mysks plush toy | the template": ["test_a_caption_gets_token_and_class_where_it_has_neither"],
        "how CLIP splits it": ["test_the_captions_and_the_pieces_of_the_token_are_shown"],
        "they must not have the token": ["test_class_images_with_the_token_are_refused"],
        "has the article that English has": ["test_a_class_prompt_reads_as_english"],
        "Class images need a `class_word`": ["test_class_images_of_no_class"],
    },
    "docs/files.md": {
        "Load Checkpoint lists it": ["test_a_finished_run_is_loaded_everywhere_and_never_trained_again"],
        "Load LoRA lists it": ["test_a_token_that_is_learned_beside_a_lora_is_an_embedding"],
        "where that name was taken, nothing is overwritten": [
            "test_training_starts_from_an_embedding_file_finds_it_changed_and_overwrites_nothing"
        ],
        "the token of a DreamBooth run that began with an embedding": ["test_inversion_then_dreambooth_gives_both"],
        "log.txt, samples/, loss.png": ["test_the_files_of_a_run_are_all_listed"],
        "later runs use them again": ["test_class_images_are_made_once_by_the_base_and_shared"],
        "photos as the VAE encodes them": [
            "test_a_second_run_encodes_only_what_is_new_and_gives_the_same_bytes",
            "test_files_that_nobody_used_for_a_month_go_of_other_vaes_too",
        ],
        "pictures that were wired to DatasetLoader": ["test_pictures_and_texts_of_lists_go_together"],
        "the same of masks": ["test_masks_are_taken_and_shown_over_the_photos"],
        "so that it can be trained on": ["test_a_run_that_was_ended_early_is_taken_up_again"],
        "is trained again when it is asked for": ["test_a_deleted_result_is_trained_again_and_loaded_anew"],
        "a changed caption makes a new run": [
            "test_an_edited_caption_is_a_new_run",
            "test_whatever_decides_the_result_changes_the_key",
        ],
        "Not in the key are settings": ["test_what_is_not_in_the_key_is_told"],
        "Neither are settings that have no effect": ["test_a_setting_decides_only_where_it_has_an_effect"],
        "You may move or rename the folder of photos": [
            "test_where_files_lie_does_not_change_the_key",
            "test_renaming_moving_and_drawing_train_nothing_anew",
            "test_a_file_says_which_run_it_is_of",
        ],
        "is not trained again for other sample prompts": ["test_renaming_moving_and_drawing_train_nothing_anew"],
        "as it would have drawn them at that step": ["test_a_new_prompt_is_drawn_as_the_run_would_have_drawn_it"],
        "leaves the run as it was": ["test_more_prompts_of_a_finished_run_are_drawn"],
        "are kept in `samples-1`, `samples-2` and so on": ["test_pictures_of_other_prompts_are_set_aside"],
        "goes on from the saved state of the shorter one": [
            "test_the_same_run_with_fewer_steps_is_found_if_it_has_a_state",
            "test_a_finished_run_is_made_longer",
        ],
        "The format of runs is in the key, too": ["test_a_run_of_another_format_is_another_run_and_cannot_be_read"],
    },
    "js/docs/DatasetLoader.md": {
        "one is drawn each time": ["test_each_alternative_is_drawn_as_often_as_the_others_and_always_the_same"],
        "makes a photo be seen twice as often": ["test_what_may_stand_for_repeats"],
        "Training sees all": ["test_of_a_large_folder_the_first_pictures_are_given_back_and_the_first_names_named"],
        "Several lines are several captions": ["test_alternatives_are_saved_a_line_each"],
        "Raw files are named here": ["test_what_cannot_be_read_is_named_with_its_own_remedy"],
        "not at folders inside it": ["test_kohya_s_subfolders_are_offered_and_their_repeats_read"],
    },
    "js/docs/CaptionWithToken.md": {
        "The node numbers them": ["test_several_lines_are_several_captions"],
        "says so when it is a common word": ["test_a_token_of_everyday_words_is_warned_of"],
        "gets the token before it": ["test_a_caption_gets_token_and_class_where_it_has_neither"],
    },
    "README.md": {
        "(jpg, png, webp, bmp)": ["test_every_promised_format_is_read"],
        "`IMG_1.txt` for `IMG_1.jpg`": ["test_a_file_beside_the_photo_is_its_caption"],
        "a photo without one gets": ["test_a_caption_gets_token_and_class_where_it_has_neither"],
        "A finished run is not trained twice but loaded": ["test_a_finished_run_is_loaded_everywhere_and_never_trained_again"],
    },
    "docs/security.md": {
        "A run writes to no name that was taken when it was queued": [
            "test_training_starts_from_an_embedding_file_finds_it_changed_and_overwrites_nothing",
            "test_what_is_no_file_of_the_run_is_in_the_way",
        ],
        "neither a caption nor a file of a run": [
            "test_a_caption_is_never_written_through_a_link",
            "test_no_file_of_a_run_is_written_through_a_planted_link",
        ],
        "An embedding that a graph names is read by ComfyUI's own reader": ["test_an_embedding_that_is_a_program_is_not_run"],
        "none of these readers starts a program": ["test_other_formats_in_disguise_are_refused"],
        "is refused by its header": ["test_an_absurd_size_is_refused_by_the_header"],
        "is told only the folder of its run and the device": ["test_a_run_shows_itself_while_it_trains_and_afterwards"],
        "The page shows captions, tokens, names and prompts as text": [
            "test_a_hostile_file_name_stays_text",
            "test_a_caption_is_edited_in_place_and_hostile_ones_stay_text",
        ],
        "types and bounds of all settings are checked on the server": [
            "test_wrong_values_are_still_refused_by_comfyui",
            "test_a_wrong_setting_is_named",
            "test_every_input_takes_a_value_or_says_what_it_wants",
        ],
        "the other one says that it waits, and then finds the result": ["test_two_servers_on_one_folder_train_a_run_once"],
        "they write the `.txt` beside such a photo": ["test_photos_are_listed_shown_and_their_captions_written"],
        "make an empty folder for photos that are dropped": [
            "test_a_wish_becomes_a_name_that_every_system_takes",
            "test_a_folder_that_is_there_is_never_used",
            "test_an_upload_that_cannot_be_is_refused_with_a_reason",
        ],
        "end a run early and take it up again": [
            "test_a_run_is_finished_from_the_page_and_trains_on",
        ],
        "Only who names the job (its `prompt_id`) is told how it goes or can end it": ["test_a_run_is_its_own_client_s"],
        "its result stays until a graph of it is queued": ["test_a_run_is_finished_from_the_page_and_trains_on"],
        "to nobody where a graph was queued without a client id": ["test_a_job_without_a_client_is_told_to_nobody"],
        "Their answers are of bounded size": [
            "test_curves_of_a_hundred_thousand_steps_stay_small",
            "test_of_a_large_folder_the_first_photos_are_listed",
            "test_the_answer_about_a_run_is_of_bounded_size",
        ],
        "no pipe is waited for": ["test_no_pipe_is_waited_for", "test_a_pipe_is_no_exported_file"],
        "no more than a run can have written is taken": [
            "test_no_huge_file_is_read",
            "test_a_result_of_megabytes_is_not_parsed",
            "test_a_header_of_gigabytes_is_not_read",
        ],
        "no number goes to a page that JSON does not know": [
            "test_the_step_of_a_result_is_a_step_or_nothing",
            "test_no_file_gives_a_number_that_json_does_not_know",
        ],
        "take `application/json` alone": ["test_a_page_of_another_site_changes_nothing"],
        "ComfyUI refuses requests to its own computer that come from another site's page": [
            "test_requests_from_other_sites_are_refused_and_from_the_own_page_taken"
        ],
        "must carry the run's key": ["test_a_file_says_which_run_it_is_of"],
        "is named in ComfyUI's log and passed over": [
            "test_a_damaged_folder_hides_and_stops_nothing",
            "test_a_damaged_folder_neither_hides_nor_stops_the_other_runs",
        ],
        "a run is refused only when it cannot fit at all": ["test_what_never_fits_is_refused_when_it_runs_too_and_nothing_else"],
    },
    "docs/headless.md": {
        "may be left out; then the": ["test_a_preset_alone_is_what_is_trained"],
        "waits for the pictures, and fails when the graph does": [
            "test_the_python_client_trains_and_names_the_pictures",
            "test_the_python_client_fails_with_the_reason",
            "test_the_python_client_refuses_what_the_graph_has_not",
        ],
        "Or with curl": ["test_the_curl_lines_queue_and_cancel"],
        "training saves its state": ["test_cancelled_in_a_phase_it_stops_at_once_and_ends_with_the_same_bytes"],
        "The worker also runs without ComfyUI": ["test_the_worker_ends_by_itself_what_a_graph_began"],
        "without it, the worker uses the CPU": ["test_without_a_host_a_signal_saves_the_state"],
        "as one JSON object a line": ["test_without_a_host_a_signal_saves_the_state"],
        "Ctrl-C or SIGTERM makes the worker save its state and leave": ["test_without_a_host_a_signal_saves_the_state"],
        "when the run is finished, or was stopped": [
            "test_a_second_process_waits_and_finds_the_run_finished",
            "test_without_a_host_a_signal_saves_the_state",
        ],
        "after an `error` line": ["test_processes_that_cannot_share_a_batch_say_so"],
        "when it was called wrongly": ["test_a_worker_that_is_called_wrongly_says_how"],
        "Queue the same graph again, and it loads the result": ["test_the_worker_ends_by_itself_what_a_graph_began"],
    },
}
"""What else they promise, by words of the sentence."""
NO_PROMISE = ("take, and what becomes of it", "Ten to twenty photos", "What becomes of a caption:")
"""Words of the lines that only introduce others."""


def test_every_promise_has_its_tests():
    security = read(DOCS / "security.md").partition("## What the pack promises")[2].partition("\n## ")[0]
    photos = read(DOCS / "photos.md").partition("## Captions")[0]
    promised = re.findall(r"^- \*\*(.+?)\.?\*\*", security + photos, re.MULTILINE)
    assert sorted({*promised}) == sorted(PROMISES)
    for page, sentences in SENTENCES.items():
        text = " ".join(read(ROOT / page).split())
        assert [words for words in sentences if words not in text] == [], page
    written = {test for path in (ROOT / "tests").rglob("test_*.py") for test in re.findall(r"def (test_\w+)", read(path))}
    assert {test for said in (PROMISES, *SENTENCES.values()) for tests in said.values() for test in tests} - written == set()


def test_no_line_about_files_is_without_its_words_and_tests():
    """Each paragraph, list item, row and line of code of the pages about files."""
    for page in ("docs/photos.md", "docs/files.md"):
        paragraphs = re.split(r"\n\s*\n", re.sub(r"^#.*$", "", read(ROOT / page), flags=re.MULTILINE))
        lines = [" ".join(line.split()) for text in paragraphs for line in re.split(r"\n(?=- |\||    )", text)]
        untold = [line for line in lines if not any(words in line for words in (*SENTENCES[page], *NO_PROMISE))]
        assert [line for line in untold if line and not re.match(r"- \*\*|\| ---|\| (widget|caption|masks) \|", line)] == [], page


def test_the_limits_of_a_photo_s_size_are_those_that_the_docs_name():
    text = read(DOCS / "photos.md")
    for limit in (MAX_PIXELS, MOST_PIXELS_OF_JPEG, MEMORY // 7, MEMORY // 4):
        assert str(limit // 10**6) in text
    assert f"{MEMORY // 10**6} MB to decode" in read(DOCS / "security.md")


def test_the_table_of_troubles_quotes_what_is_said():
    templates = json.loads(read(ROOT / "locales" / "uk" / "messages.json"))
    quotes = re.findall(r'^\| "([^"]+)" \|', read(DOCS / "troubleshooting.md"), re.MULTILINE)
    assert len(quotes) > 5
    for quote in quotes:  # what varies is left out, or an example
        words = [word for word in re.findall(r"[A-Za-z_]{4,}", quote) if not word.isupper()]
        assert any(all(word in template for word in words) for template in templates), quote


def test_the_files_of_a_run_are_all_listed(tmp_path):
    run_dir = RunDir(tmp_path)
    paths = [getattr(run_dir, name) for name, value in vars(RunDir).items() if isinstance(value, property)]
    files = {path.name for path in paths if isinstance(path, Path) and path.parent == tmp_path}
    assert len(files) > 10
    for listed in (read(DOCS / "architecture.md"), inspect.getdoc(run_dir_module) or ""):
        assert [name for name in files if name not in listed] == []
