"""Train the byte-level BPE tokenizer: `python -m tools.build_backbone.tokenizer --books FILE --out DIR`."""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tools.build_backbone.documents import END, Books, DocumentMaker


def texts(books: Books, seed: int, characters: int) -> Iterator[str]:
    """Book paragraphs, then record documents, `characters` of each."""
    rng = Random(seed)
    size = 0
    while size < characters:
        text = books.passage(rng, 2000)
        size += len(text)
        yield text
    maker = DocumentMaker(books)
    size = 0
    while size < characters:
        for text, _ in maker.record_document(rng):
            if text != END:
                size += len(text)
                yield text


def train(books: Books, out: Path, vocabulary: int = 4096, characters: int = 10_000_000, seed: int = 1) -> Tokenizer:
    """Train and save a tokenizer that `AutoTokenizer.from_pretrained(out)` loads."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(books, seed, characters), trainer)
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        "add_prefix_space": False,
        "bos_token": END,
        "eos_token": END,
        "unk_token": END,
        "clean_up_tokenization_spaces": False,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    return tokenizer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--books", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    train(Books.load(args.books), args.out)


if __name__ == "__main__":
    main()
