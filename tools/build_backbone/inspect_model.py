"""Look at a backbone: greedy continuations of fresh records, and how often names are copied.

`python -m tools.build_backbone.inspect_model FOLDER [--count N]`
"""

import argparse
from random import Random

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tools.build_backbone.documents import END, Books, DocumentMaker
from tools.gazette.generate import SEEN, UNSEEN, categories, make_record
from tools.records.spec import Record

INSTRUCTIONS = (
    "",
    "Describe this in one sentence.\n",
    "Describe this in two sentences. Start with the name.\n",
    "Write a text about the following.\n",
    "List the keys.\n",
)


def _plain(record: Record) -> str:
    return " " + " | ".join(f"{key} : {value}" for key, value in record.fields) + " "


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--count", type=int, default=8)
    args = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(args.folder)
    model = AutoModelForCausalLM.from_pretrained(args.folder, dtype=torch.float32).eval()
    maker = DocumentMaker(Books(("Something happened on that day, and nobody knew why it had to be so.",)))
    rng = Random("inspect")
    sources = [(_plain(maker.record(rng)), "pretraining") for _ in range(args.count)]
    table = categories()
    for kind in (*SEEN, *UNSEEN)[: args.count]:
        record = make_record(table[kind], rng)
        sources.append((_plain(record), "gazette"))
    hits = {"pretraining": 0, "gazette": 0}
    for source, kind in sources:
        print(f"[{kind}]{source}")
        for index, instruction in enumerate(INSTRUCTIONS):
            ids = tokenizer(instruction + source + END, return_tensors="pt").input_ids
            with torch.no_grad():
                out = model.generate(ids, max_new_tokens=70, do_sample=False, pad_token_id=0, eos_token_id=0)
            text = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
            print(f"    {instruction.strip() or '(no instruction)'} ->{text}")
            if index == 1:
                name = source.split(" : ")[1].split(" | ")[0]
                hits[kind] += name.lower() in text.lower()
    print(
        {kind: f"first value copied in {count} of {sum(k == kind for _, k in sources)}" for kind, count in hits.items()}
    )


if __name__ == "__main__":
    main()
