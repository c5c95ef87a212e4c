"""Natural-language instructions for the continuations of a record."""

from random import Random

_COUNTS = {1: "one sentence", 2: "two sentences", 3: "three sentences"}
_DESCRIBE = (
    "Describe this{how}.",
    "Describe the following{how}.",
    "Write a description of this{how}.",
    "Put this into words{how}.",
    "Write a text about the following{how}.",
    "Turn the record into a text{how}.",
    "Say this{how}.",
    "Describe it{how}.",
    "Tell me about the following{how}.",
    "Express the data{how}.",
    "Please describe this record{how}.",
    "Verbalise{how}.",
    "Make a text of these fields{how}.",
    "Summarise the record{how}.",
    "What does the record say? Answer{how}.",
)
_STYLE_WORDS = {
    "plain": ("", "", " in plain words", " simply"),
    "formal": (" formally", " in a formal style", " in formal language", " in the style of a report"),
    "chatty": (
        " as an advertisement",
        " in a chatty style",
        " as if you talked to a friend",
        " so that people want it",
    ),
    "telegraphic": (" in telegraphic style", " very briefly", " as short notes", " with as few words as possible"),
    "encyclopaedic": (" as in an encyclopaedia", " in the style of an encyclopaedia", " like a dictionary entry"),
}
_KEYS = (
    "List the keys.",
    "Which fields are there?",
    "Name the attributes.",
    "Give only the keys.",
    "What are the fields called?",
)
_ASK = ("Ask about the {key}.", "Write a question about the {key}.", "Make a question whose answer is the {key}.")
_AGAIN = (
    "Make up another record of this kind.",
    "Invent a similar record.",
    "Write another record like this.",
    "One more like this.",
)
_COUNT = ("How many fields are there?", "Count the fields.", "Give the number of fields.")
_TYPE = ("What is it?", "Give only the type.", "Which type is this?", "Name the type.")
_PROSE = (
    "Ignore the record and write something else.",
    "Write a paragraph from a book.",
    "Change the subject.",
    "Go on with a story.",
)


def describe_instruction(rng: Random, style: str, sentences: int | None, by_name: bool | None) -> str:
    """An instruction for a description with this style, number of sentences and beginning."""
    how = rng.choice(_STYLE_WORDS[style])
    if sentences is not None and rng.random() < 0.85:
        how = (
            f" in {_COUNTS[sentences]}" + how.replace(" in ", " and in ", 1)
            if how.startswith(" in ")
            else how + f" in {_COUNTS[sentences]}"
        )
    text = rng.choice(_DESCRIBE).format(how=how)
    if by_name is True:
        text += rng.choice((" Start with the name.", " Begin with the name.", " Put the name first."))
    elif by_name is False:
        text += rng.choice((" Do not start with the name.", " Begin with something other than the name."))
    return text


def other_instruction(rng: Random, kind: str, key: str) -> str:
    """An instruction for a continuation that is no description."""
    options = {"keys": _KEYS, "question": _ASK, "another": _AGAIN, "count": _COUNT, "type": _TYPE, "prose": _PROSE}[
        kind
    ]
    return rng.choice(options).format(key=key)
