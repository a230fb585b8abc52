"""The same step of two plain torch models: a GRU by cuDNN, and a compiled Transformer.

Each takes patches of 14 bins every 4, as the official baseline does, predicts 41 classes, and is
trained on torch's CTC with AdamW in bfloat16 (autocast). The GRU has five layers of 768; the
Transformer twelve of 1,024 with 8 heads and 2,048 in the feed-forward layers, as wide and deep as
the multi-scale recipe.
"""

import importlib
from typing import Any

from benchmarks.gpu_check import programs
from benchmarks.gpu_check.steps import BINS, CHANNELS, LABELS, TOY
from benchmarks.losses.peers import missing

PATCH, STRIDE, CLASSES = 14, 4, 41


def make_models(torch: Any, channels: int, smoke: bool) -> dict[str, Any]:
    """Modules from patches [batch, time, features] to hidden features, by name."""
    nn = torch.nn
    features, (wide, layers) = channels * PATCH, ((16, 1) if smoke else (768, 5))

    class Gru(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(features, wide, layers, batch_first=True)
            self.head = nn.Linear(wide, CLASSES)

        def forward(self, x: Any) -> Any:
            return self.head(self.gru(x)[0])

    width, depth, heads, hidden = (16, 1, 2, 32) if smoke else (1024, 12, 8, 2048)

    class Transformer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(
                width, heads, hidden, batch_first=True, norm_first=True
            )
            self.embed = nn.Linear(features, width)
            self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
            self.head = nn.Linear(width, CLASSES)

        def forward(self, x: Any) -> Any:
            return self.head(self.layers(self.embed(x)))

    transformer = Transformer()
    return {"GRU": Gru(), "Transformer": transformer if smoke else torch.compile(transformer)}


def make_step(torch: Any, model: Any, sizes: tuple[int, int, int, int], device: str) -> Any:
    """A call that makes one update on random trials of (batch, bins, channels, labels)."""
    batch, bins, channels, labels = sizes
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    trials = torch.randn(batch, bins, channels, device=device)
    ids = torch.randint(1, CLASSES, (batch, labels), device=device)
    frames = torch.full((batch,), (bins - PATCH) // STRIDE + 1, device=device)
    counts = torch.full((batch,), labels, device=device)

    def step() -> None:
        patches = trials.unfold(1, PATCH, STRIDE).flatten(2)
        with torch.autocast(device, torch.bfloat16):
            logits = model(patches)
        logs = torch.log_softmax(logits.float(), -1).transpose(0, 1)
        loss = torch.nn.functional.ctc_loss(logs, ids, frames, counts)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def main() -> None:
    smoke = programs.parser(__doc__).parse_args().smoke
    reason = missing("torch")
    if reason is not None:
        print(f"not measured: torch cannot be imported ({reason})")
        return
    torch = importlib.import_module("torch")
    device = "cpu" if smoke else "cuda"
    bins, channels, _, labels = TOY if smoke else (BINS, CHANNELS, 0, LABELS)
    print("| model | parameters | batch | ms, median and quartiles | peak GiB |")
    print("|---|---|---|---|---|", flush=True)
    for name, model in make_models(torch, channels, smoke).items():
        model = model.to(device)
        count = sum(p.numel() for p in model.parameters())
        for batch in (2,) if smoke else (16, 64):
            step = make_step(torch, model, (batch, bins, channels, labels), device)
            step()
            with programs.alone():
                if not smoke:
                    torch.cuda.reset_peak_memory_stats()
                found = programs.milliseconds(programs.times(step, rounds=7))
            peak = 0 if smoke else torch.cuda.max_memory_allocated() / programs.GIB
            print(f"| {name} | {count:,} | {batch} | {found} | {peak:.2f} |", flush=True)


if __name__ == "__main__":
    main()
