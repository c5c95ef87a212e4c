"""A prefix trained in one's own loop: five lines of torch around `loss`.

Run: python examples/own_loop.py [BACKBONE] [STEPS]
"""

import sys

import torch

from softprompt import Backbone, PrefixTuning, attach, load

PAIRS = [
    ("name : Aromi | Type : pub", "Aromi is a pub."),
    ("name : Zizzi | Type : restaurant", "Zizzi is a restaurant."),
    ("name : Cotto | Type : coffee shop", "Cotto is a coffee shop."),
]


def main(backbone_id: str = "bundled", steps: int = 30, folder: str = "build/own-loop") -> tuple[float, float, str]:
    """First and last loss in nats per token, and a text from the prefix that was kept."""
    backbone = Backbone.load(backbone_id)
    model = attach(backbone, PrefixTuning(length=5, reparam="none"), seed=1)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-2)
    losses = []
    model.train()
    for _ in range(steps):
        loss = model.loss(PAIRS)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.save(folder)
    return losses[0], losses[-1], load(backbone, folder).generate([PAIRS[0][0]], strategy="greedy")[0]


if __name__ == "__main__":
    first, last, text = main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
    print(f"loss {first:.3f} -> {last:.3f}\n{text}")
