"""What dropout costs in a training step of Hugging Face's models, torch's and dropkit's (needs transformers).

    python benchmarks/huggingface.py                     # seven models, some minutes
    python benchmarks/huggingface.py --models Bert ViT   # some of them

From configurations, 4 layers of width 256 with 4 heads, a batch of 4 x 128 (ViT 4 x 65, Whisper 128 frames and 128
words, Wav2Vec2 about 128 frames), p = 0.1 for all dropouts that the configuration names, LayerDrop off, attention by
`sdpa`. A step is forward, sum of squares, backward and AdamW. `without` is the model with every rate at 0; `torch` as
it comes; `dropkit` after `swap(model, inputs)` and `bind`. All three are timed in turn within each round, in processor
time, on one thread, so that other work on the machine counts little; quoted is the median over rounds of the ratio
within a round.
"""

import argparse
import copy
import statistics
import time
import warnings
from typing import Any

import torch
import transformers

import dropkit.torch

P, LAYERS, WIDTH, HEADS, BATCH, LENGTH, WORDS = 0.1, 4, 256, 4, 4, 128, 1000

_PLAIN = {
    "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 4 * WIDTH,
    "vocab_size": WORDS,
}  # fmt: skip
_TWO = {
    f"{part}_{what}": size
    for part in ("encoder", "decoder")
    for what, size in (("layers", LAYERS), ("attention_heads", HEADS), ("ffn_dim", 4 * WIDTH))
}
_IDS = torch.randint(0, WORDS, (BATCH, LENGTH), generator=torch.Generator().manual_seed(0))
MODELS: dict[str, tuple[dict[str, Any], dict[str, torch.Tensor]]] = {
    "Bert": ({**_PLAIN, "hidden_dropout_prob": P, "attention_probs_dropout_prob": P}, {"input_ids": _IDS}),
    "GPT2": (
        {
            "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "vocab_size": WORDS, "n_positions": LENGTH,
            "resid_pdrop": P, "embd_pdrop": P, "attn_pdrop": P, "use_cache": False,
        },
        {"input_ids": _IDS},
    ),
    "ViT": (
        {
            **_PLAIN, "image_size": 64, "patch_size": 8, "hidden_dropout_prob": P, "attention_probs_dropout_prob": P,
        },
        {"pixel_values": torch.ones(BATCH, 3, 64, 64)},
    ),
    "T5": (
        {
            "d_model": WIDTH, "d_kv": WIDTH // HEADS, "d_ff": 4 * WIDTH, "num_layers": LAYERS, "num_heads": HEADS,
            "vocab_size": WORDS, "dropout_rate": P, "use_cache": False,
        },
        {"input_ids": _IDS, "decoder_input_ids": _IDS},
    ),
    "Llama": ({**_PLAIN, "attention_dropout": P, "use_cache": False}, {"input_ids": _IDS}),
    "Whisper": (
        {
            **_TWO, "d_model": WIDTH, "vocab_size": WORDS, "max_source_positions": LENGTH, "dropout": P,
            "max_target_positions": LENGTH, "attention_dropout": P, "activation_dropout": P, "pad_token_id": 0,
            "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1, "use_cache": False,
        },
        {"input_features": torch.ones(BATCH, 80, 2 * LENGTH), "decoder_input_ids": _IDS},
    ),
    "Wav2Vec2": (
        {
            **_PLAIN, "conv_dim": (64, 64), "conv_kernel": (10, 3), "conv_stride": (5, 4), "num_feat_extract_layers": 2,
            "num_conv_pos_embeddings": 16, "mask_time_prob": 0.0, "layerdrop": 0.0, "hidden_dropout": P,
            "attention_dropout": P, "activation_dropout": P, "feat_proj_dropout": P, "final_dropout": P,
        },
        {"input_values": torch.sin(torch.arange(BATCH * 2600.0)).reshape(BATCH, 2600)},
    ),
}  # fmt: skip


def contestants(name: str, attention: str) -> dict[str, torch.nn.Module]:
    """The same weights three times."""
    settings, inputs = MODELS[name]
    config = getattr(transformers, f"{name}Config")(**settings, attn_implementation=attention)
    torch.manual_seed(0)
    torchs = getattr(transformers, f"{name}Model")(config).train()
    without, ours = copy.deepcopy(torchs), copy.deepcopy(torchs)
    dropkit.torch.set_rate(without, "*", 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # about what would be left with torch
        dropkit.torch.swap(ours, **inputs)
        dropkit.torch.bind(ours, seed=0)
    return {"without": without, "torch": torchs, "dropkit": ours}


def step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, inputs: dict[str, torch.Tensor]) -> None:
    model(**inputs)[0].square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def times(name: str, attention: str, rounds: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of a step of each contestant in each round."""
    models = contestants(name, attention)
    optimizers = {kind: torch.optim.AdamW(model.parameters(), 1e-4) for kind, model in models.items()}
    found: dict[str, list[float]] = {kind: [] for kind in models}
    for number in range(rounds + 1):
        for kind, model in models.items():
            begun = time.process_time()
            for _ in range(repeats):
                step(model, optimizers[kind], MODELS[name][1])
            if number:  # the first round warms up
                found[kind].append((time.process_time() - begun) / repeats)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--attention", default="sdpa", choices=["sdpa", "eager"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=2)
    asked = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    print(f"{versions}, {asked.attention}, {dropkit.info()['cpu']['path']}\n")
    print("| model | without, ms | torch / without | dropkit / without |\n| --- | --- | --- | --- |")
    for name in asked.models:
        found = times(name, asked.attention, asked.rounds, asked.repeats)
        without = found["without"]
        ratios = [
            f"{statistics.median(a / b for a, b in zip(found[kind], without, strict=True)):.3f}"
            for kind in ("torch", "dropkit")
        ]
        print(f"| {name} | {1e3 * statistics.median(without):.1f} | {' | '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    main()
