"""Words of the COCO caption scorer; the right-hand sides are what the original answers, punctuation removed."""

from __future__ import annotations

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softprompt.metrics.ptb import tokenize

E2E = Path(__file__).resolve().parents[3] / "shared" / "scoring" / "cases" / "e2e_refs.txt"
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
    assert " ".join(tokenize(text)) == words


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
    (tmp_path / "texts").write_text("\n".join(texts) + "\n", encoding="utf-8")
    command = ["java", "-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    command += ["-preserveLines", "-lowerCase", str(tmp_path / "texts")]
    answer = subprocess.run(command, capture_output=True, check=True).stdout.decode().removesuffix("\n").split("\n")
    assert len(texts) == len(answer) > 4000
    for text, line in zip(texts, answer, strict=True):
        assert list(tokenize(text)) == [word for word in line.split() if word not in PUNCTUATION], text
