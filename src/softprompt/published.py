"""The `published` part of a recipe: the scores that a paper reports for the run that the recipe describes."""

from pydantic import Field

from softprompt.method_config import Section


class Published(Section):
    """Shown beside the run's own scores; it has no other effect."""

    table: str = Field(min_length=1, description="paper, table and row")
    scores: dict[str, float] = Field(default_factory=dict, description="metric -> score, in the scale of our metrics")
    groups: dict[str, dict[str, float]] = Field(
        default_factory=dict, description="part of the test set (seen, unseen) -> metric -> score"
    )
