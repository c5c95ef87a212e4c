"""Settings that hold for the whole suite: no network, one thread (so that sums come in one order).

METEOR is missing wherever whole runs are tested (its Java program takes seconds to start); tests/metrics has it.
"""

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["SOFTPROMPT_METEOR_JAR"] = "none"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.pop("COLUMNS", None)  # pytest-xdist sets it, and tables would be made to fit

import torch

torch.set_num_threads(1)

import pytest  # noqa: E402

REPEATS = {
    "test_paper_recipes.py::test_two_steps_on_a_tiny_backbone": 10,
    "test_distributed.py::test_several_processes_have_the_losses_of_one": 5,
    "test_distributed.py::test_so_have_they_with_accumulation_recomputation_and_chunks": 2,
    "test_resume.py::test_fault_12_a_change_is_refused_by_name_and_accepted_by_name": 3,
    "test_resume.py::test_fault_08_out_of_memory_while_decoding_says_what_to_do_and_doing_it_helps": 1,
    "test_resume.py::test_an_arm_by_which_nothing_is_trained_is_not_reached_by_a_change_of_training": 1,
    "test_identity.py::test_damaged_scores_are_not_done_and_made_again": 4,
    "test_identity.py::test_a_newest_checkpoint_that_cannot_be_read_is_passed_over": 2,
    "test_identity.py::test_an_edited_log_of_a_stopped_run_is_refused": 2,
    "test_signals.py::test_fault_05_a_signal_while_decoding_or_scoring_ends_the_run_and_it_goes_on": 2,
    "test_sweep.py::test_a_signal_between_cells_ends_the_sweep_and_it_goes_on": 1,
    "metrics/test_official.py::test_meteor": 1,
    "test_inspection.py::test_counts_of_the_papers": 2,
    "test_folders.py::test_a_link_in_a_run_folder_is_not_written_through": 3,
    "test_folders.py::test_a_linked_folder_in_a_run_folder_is_refused_before_training": 2,
    "test_incontext.py::test_a_whole_run_beside_a_learned_prompt": 1,
    "test_scale.py::test_a_real_job_sends_and_keeps_what_is_predicted": 3,
    "test_scale.py::test_a_step_without_memory_is_the_step": 4,
    "test_remembered.py::test_so_it_is_for_every_method_and_arm": 2,
    "test_remembered.py::test_load_of_a_run_decodes_as_the_run_did": 3,
    "test_remembered.py::test_the_cards_own_example_decodes_as_the_run_did": 2,
    "test_front_door.py::test_a_run_that_is_loaded_answers_as_it_did": 2,
    "test_seq2seq.py::test_a_whole_run_on_an_encoder_decoder": 1,
    "test_lora.py::test_a_whole_run": 1,
    "test_smoke_lines.py::test_the_line_runs_as_it_is_printed": 2,
}
"""Tests of whole runs and processes -> how many of their cases the default suite has; the others are slow ones."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Spread what stays over the cases of a test; `make test-all` runs them all, and so does naming a test."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        name = item.nodeid.partition("tests/")[2].partition("[")[0]
        if name in REPEATS and item.get_closest_marker("slow") is None:
            groups.setdefault(name, []).append(item)
    for name, cases in groups.items():
        kept = {round(number * (len(cases) - 1) / max(REPEATS[name] - 1, 1)) for number in range(REPEATS[name])}
        for number, case in enumerate(cases):
            if number not in kept:
                case.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """What was imported and collected stays: runs collect garbage, and need not look at a million objects more."""
    gc.collect()
    gc.freeze()
