"""Compare feature extraction with its bound and with plain PyTorch, in one run.

    python benchmarks/extraction.py --images ../shared/data/ants_bees --count 2000 \
        --weights ../shared/backbones/mobilenetv2_100.in1k.safetensors

The photos are multiplied to --count by cutting off a border and encoding them again. The bound
comes from decoding only and the forward pass only, each on all cores. On a CPU the two share the
cores, so their times add up; on a GPU the slower one is the bound. `rootstock` is all of
`FeatureReader.extract`: hashing, decoding, forward pass, storing, and, in the row "cold", the
translation to ONNX. The plain way is torchvision's dataset, transforms, and loader with the same
network.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torchvision import transforms
from torchvision.datasets import ImageFolder

from rootstock.backbones.load import LAST, Backbone, load_backbone
from rootstock.backbones.packaged import DEFAULT_NAME
from rootstock.data.manifest import ImageRow
from rootstock.data.preprocess import Preprocess
from rootstock.features.fastest import choose_pass
from rootstock.features.forward import open_passes
from rootstock.features.loading import prepared_batches, read_prepared
from rootstock.features.reader import FeatureReader
from rootstock.features.store.store import FeatureStore
from rootstock.runtimes.choose import time_in_turns
from rootstock.system.cpu import usable_cores
from rootstock.system.threads import spread

BATCH = 64


def main() -> None:
    """Measure both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="a folder with photos")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--plain-count", type=int, default=400, help="images for plain PyTorch")
    parser.add_argument("--weights", default="packaged")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    backbone = load_backbone(options.weights, DEFAULT_NAME, device=options.device)
    preprocess = backbone.card.preprocess()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photos"
        rows = enlarge(options.images, folder / "all", options.count)
        compare(rows, folder, backbone, preprocess, Path(scratch), options.plain_count)


def compare(
    rows: list[ImageRow],
    folder: Path,
    backbone: Backbone,
    preprocess: Preprocess,
    scratch: Path,
    plain_count: int,
) -> None:
    """Print images per second of each part, of the whole, and of plain PyTorch."""
    root = folder / "all"
    on_gpu = backbone.device.type == "cuda"
    some = rows[: min(len(rows), 600)]
    store = FeatureStore(scratch / "store")
    probe = read_prepared(rows[:2], root, preprocess)
    kept = store.root / ".engines"
    ways = open_passes(
        backbone,
        preprocess,
        [LAST],
        n_images=len(rows),
        probe=lambda: probe,
        folder=kept,
        every=True,
    )
    forward = choose_pass(ways, probe=probe, folder=kept, batch_size=BATCH)
    size = BATCH if not forward.concurrent else 4
    pixels = read_prepared(some[:BATCH], root, preprocess)
    chunks = [pixels[i : i + size] for i in range(0, len(pixels), size)] * (len(some) // BATCH)

    def decode() -> None:
        for _ in prepared_batches(some, root, preprocess, batch_size=BATCH):
            pass

    def compute() -> None:
        for _ in spread(forward.run, chunks) if forward.concurrent else map(forward.run, chunks):
            pass

    decoding = len(some) / best(decode)
    computing = len(pixels) * (len(some) // BATCH) / best(compute)
    bound = min(decoding, computing) if on_gpu else 1 / (1 / decoding + 1 / computing)

    def extract(folder: str, *, translated: bool) -> float:
        target = FeatureStore(scratch / folder)
        if translated:
            shutil.copytree(kept, target.root / ".engines", dirs_exist_ok=True)
        return (
            FeatureReader(root, backbone, preprocess, target)
            .extract(rows, [LAST], measure=True)
            .seconds
        )

    # Like the parts of the bound: the faster of two runs
    warm = min(extract(f"warm{turn}", translated=kept.exists()) for turn in range(2))
    cold = min(extract(f"cold{turn}", translated=False) for turn in range(2))
    warmed = FeatureReader(root, backbone, preprocess, FeatureStore(scratch / "warm0"))
    again = warmed.extract(rows, [LAST])
    assert again.computed == 0
    slow = plain(folder, backbone, preprocess, plain_count)
    print(f"{usable_cores()} cores, {backbone.device.type}, {backbone.card.name} at "
          f"{preprocess.input_size}, {len(rows)} photos, engine {forward.engine}\n")  # fmt: skip
    print_kept(kept)
    print("| part | images/s | of the bound | of plain PyTorch |\n| --- | --- | --- | --- |")
    rates = {
        "decode only": decoding,
        "forward only": computing,
        "bound": bound,
        "rootstock, network already translated": len(rows) / warm,
        "rootstock, cold": len(rows) / cold,
        "plain PyTorch": slow,
    }
    for name, rate in rates.items():
        print(f"| {name} | {rate:.1f} | {rate / bound:.2f} | {rate / slow:.2f} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\nall features stored already: {again.seconds:.2f} s; peak memory {peak:.0f} MB")


def print_kept(engines: Path) -> None:
    """Return the measurements behind the choice of the engine."""
    for path in engines.glob("*.json"):
        print(json.loads(path.read_text()), "\n")


def plain(folder: Path, backbone: Backbone, preprocess: Preprocess, count: int) -> float:
    """Return images per second of a default torchvision dataset and loader with the network."""
    resized = round(preprocess.input_size / preprocess.crop_pct)
    prepare = transforms.Compose(
        [
            transforms.Resize(resized),
            transforms.CenterCrop(preprocess.input_size),
            transforms.ToTensor(),
            transforms.Normalize(preprocess.mean, preprocess.std),
        ]
    )
    data = torch.utils.data.Subset(ImageFolder(str(folder), prepare), range(count))
    started = time.perf_counter()
    loader = torch.utils.data.DataLoader(data, batch_size=BATCH, num_workers=usable_cores())
    found = []
    with torch.no_grad():
        for images, _ in loader:
            maps = backbone.module.forward_features(images.to(backbone.device))
            found.append(backbone.module.forward_head(maps, pre_logits=True).cpu())
    torch.cat(found)
    return count / (time.perf_counter() - started)


def enlarge(source: Path, out: Path, count: int) -> list[ImageRow]:
    """Create ``count`` different photos of nearly the size in pixels and bytes as in ``source``."""
    originals = sorted(p for p in source.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    out.mkdir(parents=True)
    rows = []
    for number in range(count):
        with Image.open(originals[number % len(originals)]) as image:
            border = number // len(originals)
            photo = image.convert("RGB")
            photo = photo.crop((border, border, photo.width - border, photo.height - border))
        path = out / f"{number:06}.jpg"
        photo.save(path, quality=92)
        content = path.read_bytes()
        sha256 = hashlib.sha256(content).hexdigest()
        facts = (photo.width, photo.height, "RGB", "JPEG", "all", "all", "train", number, "")
        rows.append(ImageRow(path.name, sha256, len(content), *facts))
    return rows


def best(work: Callable[[], None]) -> float:
    """Return the seconds of the faster of two runs."""
    return time_in_turns({"work": work}, rounds=2, warm_ups=0)["work"]


if __name__ == "__main__":
    main()
