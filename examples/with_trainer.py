"""A prompt trained by transformers' Trainer: its data collator, its schedule, its checkpoints.

Run: python examples/with_trainer.py [BACKBONE] [STEPS]
Needs: pip install accelerate
"""

import sys

from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from softprompt import Backbone, PromptTuning, attach, load

PAIRS = [
    ("name : Aromi | Type : pub", "Aromi is a pub."),
    ("name : Zizzi | Type : restaurant", "Zizzi is a restaurant."),
    ("name : Cotto | Type : coffee shop", "Cotto is a coffee shop."),
]


def main(backbone_id: str = "bundled", steps: int = 30, folder: str = "build/with-trainer") -> tuple[float, float, str]:
    """First and last loss in nats per token, and a text from the prompt that was kept."""
    backbone = Backbone.load(backbone_id)
    model = attach(backbone, PromptTuning(length=5), seed=1)
    tokenizer = backbone.tokenizer
    tokenizer.pad_token_id = backbone.pad_id
    trainer = Trainer(
        model,
        TrainingArguments(
            folder,
            max_steps=steps,
            learning_rate=5e-2,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            logging_steps=1,
            save_steps=steps,
            report_to=[],
            disable_tqdm=True,
        ),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        train_dataset=model.rows(PAIRS),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    model.save(f"{folder}/prompt")
    return losses[0], losses[-1], load(backbone, folder).generate([PAIRS[0][0]], strategy="greedy")[0]


if __name__ == "__main__":
    first, last, text = main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
    print(f"loss {first:.3f} -> {last:.3f}\n{text}")
