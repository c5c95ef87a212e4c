"""Recipes on data as users have them, of a neighbouring folder `shared`: read, or refused with the way out."""

from pathlib import Path

import pytest

from softprompt.config import load_recipe
from softprompt.data_inspection import inspect_data
from softprompt.errors import ConfigError, DataError
from softprompt.prepare import prepare

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "cases" / "owndata"
FITS = ["decode.max_new_tokens=20"]

CASES: list[tuple[str, list[str], str]] = [
    # recipe, what the message tells to set, what the message says (empty: read as it is)
    *((name, [], "") for name in ("alpaca", "alpaca_json", "clean", "cls_int", "cls_int_csv", "cls_int_unquoted")),
    *((name, [], "") for name in ("cls_text", "nested_dot", "nested_meta", "utf16")),
    ("chat", [], "chat messages, which are not read. Write what is asked and what is answered as two columns"),
    ("latin1", ["data.encoding=latin-1"], "data.encoding=latin-1"),
    ("long", ["data.truncate=source"], "data.truncate=source"),
    ("nested_plain", [], "got null. Fill it or drop the row"),
    ("noheader", [], "Has this file a header row?"),
    ("refcols", ['data.target=["{target}", "{ref1}", "{ref2}"]'], "data.target may be a list"),
    ("semi", ["data.delimiter=;"], "set data.delimiter: ';'"),
]


@pytest.mark.parametrize(("name", "cure", "said"), CASES, ids=[name for name, _, _ in CASES])
def test_read_or_refused_with_the_way_out(name: str, cure: list[str], said: str) -> None:
    path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        pytest.skip(f"the case is not here: {path}")
    if said:
        with pytest.raises((ConfigError, DataError)) as caught:
            prepare({"": load_recipe(str(path), FITS)})
        assert said in str(caught.value)
    if cure or not said:
        recipe = load_recipe(str(path), [*FITS, *cure])
        (job,) = prepare({"": recipe}).values()
        found = inspect_data(recipe)
        assert job.train and job.test and found.parts["train"].examples == len(job.examples)


def test_every_recipe_there_is_among_the_cases() -> None:
    if not FOLDER.is_dir():
        pytest.skip(f"the cases are not here: {FOLDER}")
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {name for name, _, _ in CASES}
