"""What an arm came to: its scores, counts and times, as a report needs them and as its folder keeps them."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from softprompt.config import Recipe
from softprompt.console import say
from softprompt.decode import Decoded
from softprompt.files import write_text_atomic
from softprompt.folder import SCORES
from softprompt.methods import Method, trained_count
from softprompt.metrics import PreparedSuite, SuiteResult
from softprompt.predictions import prediction_row
from softprompt.prepare import Job
from softprompt.score_recipe import as_scored, chosen_suite
from softprompt.types import Example


@dataclass(frozen=True)
class ArmResult:
    """What one arm came to: everything a report needs, as kept in its scores.json."""

    arm: str
    method: str
    scores: dict[str, dict[str, Any]]
    """Metric -> {"score", "signature"}, in the papers' scale."""
    missing: dict[str, str]
    """Metric of the suite -> why it was not computed."""
    parameters: dict[str, float]
    """`backbone`, `trained` and `stored` counts; `stored_share` and `trained_share` of the backbone's parameters."""
    training: dict[str, Any] | None
    """Fields of `Fitted` and `peak_memory_bytes`; None where nothing was trained."""
    decoding: dict[str, Any]
    """`seconds`, `tokens_per_second`, `sources`, `peak_memory_bytes`; `room_taken` from each source's window."""
    groups: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """Scores of parts of the test set (seen and unseen categories), each as a corpus of its own."""
    task: str = ""
    """Which of the tasks that are trained together; empty where there is one."""


def score_arm(
    arm: str,
    task: str,
    job: Job,
    rows: Sequence[Decoded],
    training: dict[str, Any] | None,
    decoding: dict[str, Any],
    total: int,
    method: Method | None,
) -> ArmResult:
    """Score the decoded rows of an arm's task; `total` counts the backbone's parameters."""
    recipe, test, texts = job.recipe, job.test, [row.text for row in rows]
    scored = score_outputs(recipe, test, texts) if test else None
    trained = trained_count(method) if method else 0
    stored = method.stored_count() if method else 0
    return ArmResult(
        arm=arm,
        method=recipe.method.name,
        scores=_plain(scored) if scored else {},
        missing=dict(scored.missing) if scored else {},
        parameters={
            "backbone": total,
            "trained": trained,
            "stored": stored,
            "trained_share": trained / total,
            "stored_share": stored / total,
        },
        training=training,
        decoding=decoding,
        groups=_group_scores(recipe, test, texts),
        task=task,
    )


def score_outputs(recipe: Recipe, test: Sequence[Example], texts: Sequence[str]) -> SuiteResult:
    """The recipe's suite over the decoded texts of its test rows."""
    outputs, references = as_scored(recipe, test, texts)
    return PreparedSuite(chosen_suite(recipe), references).score(outputs)


def _group_scores(
    recipe: Recipe, test: Sequence[Example], texts: Sequence[str]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Seen and unseen categories apart, where the task says which is which."""
    groups: dict[str, list[int]] = {}
    for index, example in enumerate(test):
        if isinstance(example.meta.get("seen"), bool):
            groups.setdefault("seen" if example.meta["seen"] else "unseen", []).append(index)
    return {
        name: _plain(score_outputs(recipe, [test[i] for i in chosen], [texts[i] for i in chosen]))
        for name, chosen in sorted(groups.items())
    }


def _plain(scored: SuiteResult) -> dict[str, dict[str, Any]]:
    return {name: {"score": score.value, "signature": score.signature} for name, score in scored.scores.items()}


def write_down(place: Path, result: ArmResult, test: Sequence[Example], rows: Sequence[Decoded]) -> None:
    """Keep predictions and scores in an arm's folder; the scores come last and say that it is done."""
    (place / "predictions").mkdir(exist_ok=True)
    lines = [
        json.dumps(prediction_row(each, row.text), ensure_ascii=False, allow_nan=False)
        for each, row in zip(test, rows, strict=True)
    ]
    write_text_atomic(place / "predictions" / "test.jsonl", "".join(f"{line}\n" for line in lines))
    write_text_atomic(place / SCORES, json.dumps(asdict(result), indent=2) + "\n")


def read_back(place: Path) -> ArmResult:
    """The result of an arm that was done before."""
    say(f"{place}: done before, read back")
    return ArmResult(**json.loads((place / SCORES).read_text(encoding="utf-8")))
