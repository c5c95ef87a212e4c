"""The lines below a run's table: what is compared with what."""

from typing import Any

from softprompt.report import notes
from softprompt.results import ArmResult


def result(arm: str, method: str, bleu: float, share: float, task: str = "", **more: Any) -> ArmResult:
    counts = {"backbone": 1000.0, "trained": share * 1000, "stored": 5.0, "trained_share": share, "stored_share": 0.005}
    scores = {"bleu": {"score": bleu, "signature": "made up"}}
    training = None if method == "untuned" else {"dev_loss": 1.0}
    return ArmResult(arm, method, scores, {}, counts, training, {"sources": 3}, task=task, **more)


ARMS = [
    result("untuned", "untuned", 5.0, 0.0),
    result("main", "prefix", 40.0, 0.01),
    result("prefix-mlp", "prefix", 30.0, 0.02),
    result("finetune-top", "finetune", 60.0, 0.5),
    result("finetune", "finetune", 80.0, 1.0),
]


def test_shares_are_of_full_fine_tuning_under_the_arms_names() -> None:
    """Fine-tuning of the top alone is one of those compared, wherever it stands."""
    lines = [line for line in notes(ARMS) if "reaches" in line]
    assert [line.split(" with ")[0] for line in lines] == [
        "prefix reaches 50.0% of fine-tuning's BLEU",
        "prefix-mlp reaches 37.5% of fine-tuning's BLEU",
        "finetune-top reaches 75.0% of fine-tuning's BLEU",
    ]


def test_without_full_fine_tuning_nothing_is_compared() -> None:
    assert not [line for line in notes(ARMS[:-1]) if "reaches" in line]


def test_tasks_are_compared_with_fine_tuning_of_their_own() -> None:
    arms = [result("main", "prefix", 40.0, 0.01, task) for task in ("a", "b")]
    arms += [result("full", "finetune", bleu, 1.0, task) for task, bleu in (("a", 80.0), ("b", 50.0))]
    lines = [line.split(" with ")[0] for line in notes(arms) if "reaches" in line]
    assert lines == [
        "prefix a reaches 50.0% of fine-tuning's BLEU",
        "prefix b reaches 80.0% of fine-tuning's BLEU",
    ]
