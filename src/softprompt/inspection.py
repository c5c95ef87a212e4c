"""What a recipe would put on its backbone, arm by arm, and what a kept prompt is."""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from softprompt.artefact import kept_in
from softprompt.backbone import Backbone
from softprompt.config import Recipe
from softprompt.methods import room_taken, trained_count
from softprompt.methods.sound import require_sound
from softprompt.plan import dry_run
from softprompt.prepare import build_method, prepare
from softprompt.table import as_text


@dataclass(frozen=True)
class ArmCounts:
    """The parameters of one arm, counted on the backbone without weights."""

    arm: str
    method: str
    trained: int
    stored: int
    backbone: int
    room: int
    """Positions of the window that it takes from the text; of several tasks' prompts the longest."""


def arm_counts(recipe: Recipe) -> list[ArmCounts]:
    """The arms that train something, in order.

    Raises:
        BackboneError: the config of a backbone cannot be had.
    """
    counted = []
    for arm in recipe.arms():
        own = recipe.arm(arm)
        parts = own.parts().values()
        plan = Backbone.plan(
            own.backbone.id,
            revision=own.backbone.revision,
            attention=own.backbone.attention,
            tokenizer=any(getattr(part.method, "length", 0) is None for part in parts),  # then it is counted
        )
        total = plan.parameter_count()
        methods = [method for part in parts if (method := build_method(plan, part)) is not None]
        if methods:
            counts = sum(map(trained_count, methods)), sum(method.stored_count() for method in methods)
            room = max(room_taken(plan, method) for method in methods)
            counted.append(ArmCounts(arm, own.method.name, *counts, total, room))
    return counted


def inspect_recipe(recipe: Recipe, *, whole: bool) -> dict[str, Any]:
    """Attention sites by kind, parameters by arm, and the dry run's steps and memory.

    `whole` reads weights and data too, and checks that the texts fit: the backbone's hash and the parts' sizes.
    """
    sites = Backbone.plan(recipe.backbone.id, revision=recipe.backbone.revision).sites()
    found: dict[str, Any] = {
        "backbone": recipe.backbone.id,
        "sites": dict(Counter(site.kind for site in sites)),
        "arms": [asdict(counts) for counts in arm_counts(recipe)],
        "dry_run": asdict(dry_run(recipe)),
    }
    if whole:
        arms = recipe.arms()
        jobs = prepare({(arm, task): part for arm in arms for task, part in recipe.arm(arm).parts().items()})
        first = [job for (arm, _), job in jobs.items() if arm == arms[0]]
        found["data"] = {
            "train pairs": sum(len(job.train) for job in first),
            "dev pairs": sum(len(job.dev) for job in first),
            "test sources": sum(len(job.test) for job in first),
        }
        own = recipe.backbone
        found["hash"] = Backbone.load(  # as the run has it: quantised weights have another
            own.id,
            revision=own.revision,
            dtype=own.dtype,
            attention=own.attention,
            quantize=own.quantize,
            device=None if own.quantize else "cpu",
        ).hash()
    return found


def recipe_text(found: dict[str, Any]) -> str:
    """The same for people."""
    sites = ", ".join(f"{count} {kind}" for kind, count in found["sites"].items())
    rows = [["arm", "method", "trained", "of backbone", "stored", "of backbone", "window taken"]]
    for arm in found["arms"]:
        shares = [f"{arm[kind] / arm['backbone']:.3%}" for kind in ("trained", "stored")]
        counts = [f"{arm['trained']:,}", shares[0], f"{arm['stored']:,}", shares[1], f"{arm['room']:,}"]
        rows.append([arm["arm"], arm["method"], *counts])
    dry = found["dry_run"]
    steps = "unknown" if dry["steps"] is None else f"{dry['steps']:,}{' (estimated)' if dry['steps_estimated'] else ''}"
    lines = [
        f"backbone {found['backbone']}: {dry['backbone_parameters']:,} parameters; attention sites: {sites}",
        *([f"hash {found['hash']}"] if "hash" in found else []),
        as_text(rows),
        f"optimiser steps {steps}; memory estimate {dry['memory']['total'] / 2**30:.2f} GiB (first arm)",
    ]
    if "data" in found:
        lines.append(", ".join(f"{name} {count:,}" for name, count in found["data"].items()))
    return "\n".join(lines)


def inspect_kept(folder: Path) -> dict[str, Any]:
    """The facts of a kept prompt and the shapes of its tensors; every byte is checked.

    Raises:
        CheckpointError: missing, damaged, or not what a method writes.
    """
    folder = kept_in(folder)
    facts, header = require_sound(folder)
    shapes = {} if header is None else {name: list(shape) for name, shape in header.shapes.items()}
    known = facts.model_dump(mode="json", exclude_unset=True)
    return {"folder": str(folder), **known, "tensors": shapes, "numbers": 0 if header is None else header.count()}


def kept_text(found: dict[str, Any]) -> str:
    """The same for people."""
    shown = {key: value for key, value in found.items() if key not in ("sites", "tensors", "backbone", "places")}
    lines = [f"{key}: {value}" for key, value in shown.items()]
    lines.append(f"backbone: {found['backbone']['id']} (hash {found['backbone']['hash'][:12]})")
    lines += [f"tensor {name}: {' x '.join(map(str, shape))}" for name, shape in found["tensors"].items()]
    return "\n".join(lines)
