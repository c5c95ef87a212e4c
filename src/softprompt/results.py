"""What an arm came to: its scores, counts and times, as a report needs them and as its folder keeps them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from softprompt.config import Recipe
from softprompt.decode import Decoded
from softprompt.errors import CheckpointError
from softprompt.identity import Identity, Record, read_record
from softprompt.methods import Method, trained_count
from softprompt.metrics import PreparedSuite, SuiteResult
from softprompt.places import PREDICTIONS, SCORES, TEST
from softprompt.plain import read_plain, write_text_atomic
from softprompt.predictions import prediction_row
from softprompt.prepare import Job
from softprompt.score_recipe import as_scored, chosen_suite
from softprompt.sealed import read_sealed_json, write_sealed_json
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


def write_down(
    place: Path, result: ArmResult, test: Sequence[Example], rows: Sequence[Decoded], record: Record | None = None
) -> None:
    """Keep predictions and scores in an arm's folder; the scores come last and say that it is done.

    The scores carry the digest of the predictions, and what both belong to.
    """
    (place / PREDICTIONS).mkdir(exist_ok=True)
    lines = [
        json.dumps(prediction_row(each, row.text), ensure_ascii=False, allow_nan=False)
        for each, row in zip(test, rows, strict=True)
    ]
    text = "".join(f"{line}\n" for line in lines)
    write_text_atomic(place / PREDICTIONS / TEST, text)
    belongs = {"record": None if record is None else asdict(record), PREDICTIONS: _digest(text.encode())}
    write_sealed_json(place / SCORES, {**asdict(result), **belongs})


def read_result(place: Path, arm: str, task: str, expected: Identity | None, *, of_old: bool) -> ArmResult:
    """The result of an arm or task that was done before, with its predictions as they were when they were scored.

    Args:
        expected: whose it has to be; None: not known.
        of_old: it may be of a version that kept neither checksums nor records.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: scores or predictions are damaged, missing, of another run, or it is not known of which.
    """
    path = place / SCORES
    found, sealed = read_sealed_json(path)
    record, predictions = read_record(found.pop("record", None), path), found.pop(PREDICTIONS, None)
    if not (sealed or of_old):
        raise CheckpointError(f"{path}: damaged: its checksum is gone.")
    try:
        _Scores.model_validate_json(json.dumps(found))
    except (ValidationError, ValueError) as error:
        raise CheckpointError(f"{path}: damaged: {_first(error)}.") from None
    if (found["arm"], found.get("task", "")) != (arm, task):
        raise CheckpointError(
            f"{path}: expected the scores of {arm} {task}".rstrip() + f", got those of {found['arm']}."
        )
    if sealed:
        if expected is None:
            raise CheckpointError(f"{path}: it is not known what they belong to.")
        expected.require(record, path)
        _require_predictions(place / PREDICTIONS / TEST, predictions)
    elif not (place / PREDICTIONS / TEST).is_file():
        raise CheckpointError(f"{place / PREDICTIONS / TEST}: missing, though it was scored.")
    return ArmResult(**found)


def _require_predictions(path: Path, digest: Any) -> None:
    try:
        same = _digest(read_plain(path)) == digest
    except FileNotFoundError:
        raise CheckpointError(f"{path}: missing, though it was scored.") from None
    if not same:
        raise CheckpointError(f"{path}: its bytes are not those that were scored.")


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        one = error.errors()[0]
        return f"{'.'.join(map(str, one['loc'])) or 'content'}: {one['msg']}"
    return str(error)


class _Section(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Score(_Section):
    score: float
    signature: str


class _Training(_Section):
    seconds: float
    tokens_per_second: float
    peak_memory_bytes: int
    steps: int
    selected_step: int
    dev_loss: float | None


class _Decoding(_Section):
    seconds: float
    tokens_per_second: float
    sources: int
    peak_memory_bytes: int
    room_taken: int = 0


class _Scores(_Section):
    """scores.json as it is read back: every key that a report looks up, of its type, and every number finite."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    arm: str
    method: str
    scores: dict[str, _Score]
    missing: dict[str, str]
    parameters: dict[Annotated[str, Field(max_length=100)], float]
    training: _Training | None
    decoding: _Decoding
    groups: dict[str, dict[str, _Score]] = {}
    task: str = ""

    def model_post_init(self, context: Any) -> None:
        """The counts that a report shows."""
        lacking = {"backbone", "trained", "stored", "trained_share", "stored_share"} - self.parameters.keys()
        if lacking:
            raise ValueError(f"parameters: expected {', '.join(sorted(lacking))}")
