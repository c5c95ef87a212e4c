"""Words of the COCO caption scorer; the right-hand sides are what the original answers, punctuation removed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompt.metrics.ptb import tokenize, tokenize_lines

SHARED = Path(__file__).resolve().parents[3] / "shared"
E2E = SHARED / "scoring" / "cases" / "e2e_refs.txt"
UNPACK = SHARED / "data" / "unpack"
BRACKETS = ["-LRB-", "-RRB-", "-LCB-", "-RCB-"]
PUNCTUATION = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";", *BRACKETS])

OBSERVED = [
    # Clitics, whether cut already or not, with either apostrophe.
    ("It's a family-friendly pub , isn't it ?", "it 's a family-friendly pub is n't it"),
    ("They 're n't ; don't DON'T won’t it’s dogs' James's", "they 're n't do n't do n't wo n't it 's dogs james 's"),
    ("I cannot, gonna gotta wanna gimme lemme", "i can not gon na got ta wan na gim me lem me"),
    ("'tis o'clock O'Brien hors d'oeuvre that'll", "'t is o'clock o'brien hors d'oeuvre that 'll"),
    # Money and numbers.
    ("£20-25, £20-£25, less than £20. $5.50 €30 50%", "# 20-25 # 20 # 25 less than # 20 $ 5.50 $ 30 50 %"),
    ("20£-25 of£20-£30 £30.99 20GBP E20-E25", "20 # -25 of # 20 # 30 # 30.99 20gbp e20-e25"),
    ("5-star 1,000,000 12.5 -5 3:30 10:30am 1990s '90s", "5-star 1,000,000 12.5 -5 3:30 10:30 am 1990s '90s"),
    ("3/5 or 3 out of 5; and/or £20/£30 w/o", "3/5 or 3 out of 5 and/or # 20 / # 30 w/o"),
    ("½ 10½ ¢ 18L/36R", "1/2 10 1/2 cents 18l/36r"),
    # Full stops within words, after abbreviations, after initials.
    ("food.It 5.The centre. The rating.5", "food.it 5 the centre the rating .5"),
    ("Mr. Smith etc. at 5 p.m. in the U.S. No. 5 no.", "mr. smith etc. at 5 p.m. in the u.s. no. 5 no"),
    ("vitamin C. in plan B. The George W. Bush type A.", "vitamin c. in plan b the george w. bush type a."),
    ("a Miss. a miss. wash. fig. 3 fig.", "a miss. a miss wash fig. 3 fig"),
    ("city center., near", "city center. near"),
    # Brackets stay, in lower case; quotation marks and dashes go.
    ("(a) [b] {c}", "-lrb- a -rrb- -lsb- b -rsb- -lcb- c -rcb-"),
    ("\"a\" ``b'' ‘c’ “d” 'e' – f — g … h -- i ---", "a b c d e f g h i"),
    ("what?! hello!!! ?? ! ?", "what ?! hello !!! ??"),
    ("a&b R&D AT&T &amp; @user #tag x@y.com", "a & b r&d at&t & @user #tag x@y.com"),
    ("a*b = + ~ ^ \\ | __ ___", "a * b = + ~ ^ \\ | __ ___"),
    ("non- child rating- but .Blue Spice", "non child rating but blue spice"),
    (
        "french,family-friendly food,low-priced Café,low-priced",
        "french,family-friendly food,low-priced café low-priced",
    ),
    ("<unk> </s> http://a.com/b?c=d. www.foo.com", "<unk> </s> http://a.com/b?c=d www.foo.com"),
    ("Café Añb 日本語 naïve 😀", "café añb 日本語 naïve"),
    ("", ""),
    (" . , - ' ` ", ""),
]


@pytest.mark.parametrize(("text", "words"), OBSERVED)
def test_observed(text: str, words: str) -> None:
    assert " ".join(tokenize_lines([text])[0]) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It is 30.0g.", "it is 30.0 g"),
        ("Washington D. C.", "washington d. c"),
        ("T&amp;TEC and R&amp;D, a&amp;b", "t&tec and r&d a & b"),
        ("Rahman Ya'Kub of Barisan Ra'ayat in Hawai'i", "rahman ya'kub of barisan ra'ayat in hawai'i"),
        ("Luke 02:01-07 at 10:30-11:30", "luke 02:01 -07 at 10:30 -11:30"),
        ("St. Vincent-St.Mary is kid-friendly.It is", "st. vincent-st mary is kid-friendly it is"),
        ("rock'n'roll y'all 2.5-abc", "rock 'n' roll y' all 2.5-abc"),
        ("plan B. Who, plan B. AS, plan B. Mr. X", "plan b. who plan b. as plan b mr. x"),
    ],
)
def test_forms_outside_e2e(text: str, words: str) -> None:
    """As the jar answers where a line that begins with The follows."""
    assert " ".join(tokenize(text)) == words


def test_an_initial_at_the_end_of_a_line_looks_into_the_next() -> None:
    lines = ["It is 8.3 m.", "It is 8.3 m.", "", "Zizzi is 8.3 m."]
    assert [words[-1] for words in tokenize_lines(lines) if words] == ["m", "m.", "m."]


@given(st.text())
def test_any_text_gives_words_without_spaces(text: str) -> None:
    assert all(word and not any(character.isspace() for character in word) for word in tokenize(text))


@pytest.mark.parametrize("piece", ["a ", "a,", ".", "a-", "a.b", "a/", "<a", "a@", "a'", "-", "1.", "&", "x"])
def test_ten_thousand_of_anything_end(piece: str) -> None:
    assert isinstance(tokenize(piece * 10_000), tuple)


def original() -> Path:
    """The jar of the original, or the reason to do without."""
    named = os.environ.get("SOFTPROMPT_PTB_JAR")
    package = find_spec("pycocoevalcap")
    folders = (package.submodule_search_locations or []) if package else []
    jars = [Path(folder) / "tokenizer" / "stanford-corenlp-3.4.1.jar" for folder in folders]
    jar = next((jar for jar in [*([Path(named)] if named else []), *jars] if jar.is_file()), None)
    if jar is None or shutil.which("java") is None:
        pytest.skip("needs Java and the tokenizer's jar, which comes with pycocoevalcap")
    return jar


@pytest.mark.skipif(not E2E.is_file(), reason=f"the references of E2E are not at {E2E}")
def test_agrees_with_the_original_on_every_reference_of_e2e(tmp_path: Path) -> None:
    jar = original()
    texts = [line for line in E2E.read_text(encoding="utf-8").split("\n") if line]
    assert len(texts) > 4000
    agrees(texts, jar, tmp_path)


@pytest.mark.skipif(not UNPACK.is_file(), reason=f"the packed data sets are not in {UNPACK.parent}")
def test_agrees_with_the_original_on_webnlg_and_dart(tmp_path: Path) -> None:
    jar = original()
    subprocess.run([sys.executable, UNPACK, tmp_path, "webnlg", "dart"], check=True, capture_output=True)
    entries = json.loads((tmp_path / "webnlg" / "test.json").read_text(encoding="utf-8"))["entries"]
    web = [text["lex"] for entry in entries for value in entry.values() for text in value["lexicalisations"]]
    rows = json.loads((tmp_path / "dart" / "dart-v1.1.1-full-test.json").read_text(encoding="utf-8"))
    dart = [note["text"] for row in rows for note in row["annotations"] if note["text"]]
    for texts in (web, dart):
        lines = list(dict.fromkeys(" ".join(text.split()) for text in texts if text.strip()))
        assert len(lines) > 4000
        agrees(lines, jar, tmp_path)


def agrees(texts: list[str], jar: Path, place: Path) -> None:
    """Fails with the first of a file's lines whose words are not the original's."""
    (place / "texts").write_text("\n".join(texts) + "\n", encoding="utf-8")
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    command += ["-preserveLines", "-lowerCase", str(place / "texts")]
    answer = subprocess.run(command, capture_output=True, check=True).stdout.decode().removesuffix("\n").split("\n")
    assert len(texts) == len(answer)
    for text, words, line in zip(texts, tokenize_lines(texts), answer, strict=True):
        assert list(words) == [word for word in line.split() if word not in PUNCTUATION], text
