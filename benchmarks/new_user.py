"""What a new user types, and how long each line takes: the wheel in an empty folder and an environment of its own.

    python -m benchmarks.new_user [--threads 1] [--model torchvision:resnet18] [--keep DIR]

The wheel is built from the sdist, as it is released. Images are 200 made-up JPEG files in two folders, one a class. A
line that fails ends the benchmark with what it printed. Packages come from the caches of the installer where they are
there, so that the seconds of the second line are those without a download.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
CLASSES = ("rough", "smooth")
IMAGES = 100  # of each class
RUN = (
    "import numpy, onnxruntime; session = onnxruntime.InferenceSession('small.onnx'); "
    "print(session.run(None, {session.get_inputs()[0].name: numpy.zeros((4, 3, 224, 224), 'float32')})[0].shape)"
)


@dataclass(frozen=True)
class Line:
    """What is typed, and what it took in seconds; last: the last line that it printed."""

    typed: str
    seconds: float
    last: str


def photographs(folder: Path) -> None:
    """Two classes of made-up images of 256 by 256 pixels."""
    random = np.random.default_rng(0)
    for name, grain in zip(CLASSES, (4, 64), strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(IMAGES):
            small = random.integers(0, 256, (256 // grain, 256 // grain, 3), dtype=np.uint8)
            Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC).save(folder / name / f"{number}.jpg")


def wheel_in(folder: Path) -> Path:
    """Built from the sdist, as a release is."""
    _run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder], ROOT)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    source = next(path for path in folder.iterdir() if path.is_dir())
    _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], source)
    return next(folder.glob("*.whl"))


def lines(model: str, threads: int, wheel: Path, uv: str | None) -> list[str]:
    """What is typed in the empty folder, in order."""
    install = f"{uv} pip install --python .venv/bin/python" if uv else ".venv/bin/pip install"
    return [
        "python -m venv .venv",
        f"{install} 'nasprune[onnx,plots] @ {wheel.as_uri()}'",
        f".venv/bin/nasprune inspect --model {model}",
        f".venv/bin/nasprune search --model {model} --data imagefolder:photos --budget '60% latency' "
        f"--threads {threads} --evaluator kl --criterion l2 --out runs/small",
        ".venv/bin/nasprune show runs/small",
        ".venv/bin/nasprune export runs/small --out small.onnx",
        f'.venv/bin/python -c "{RUN}"',
    ]


def typed(line: str, folder: Path) -> Line:
    """Runs a line in the folder, without anything of the environment that runs this."""
    began = time.monotonic()
    printed = _run(["bash", "-c", line], folder)
    return Line(line, time.monotonic() - began, next(iter(printed.strip().splitlines()[-1:]), ""))


def _run(command: list[object], folder: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(list(map(str, command)), cwd=folder, env=clean, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[-1]}\nended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="torchvision:resnet18")
    parser.add_argument("--keep", type=Path, help="work in this folder, which is new, and leave it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = options.keep or Path(place) / "empty"
        folder.mkdir(parents=True)
        (Path(place) / "dist").mkdir()
        wheel = wheel_in(Path(place) / "dist")
        photographs(folder / "photos")
        here = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        print("| what is typed | seconds |\n|---|---|", flush=True)
        for line in lines(options.model, options.threads, wheel, shutil.which("uv", path=here)):
            done = typed(line, folder)
            print(f"| `{done.typed}` | {done.seconds:.0f} |", flush=True)
            print(f"  {done.last}", file=sys.stderr, flush=True)
        expected = ("runs/small/report.html", "runs/small/plan.json", "small.onnx")
        if missing := [name for name in expected if not (folder / name).exists()]:
            raise SystemExit(f"not there: {', '.join(missing)} in {folder}")


if __name__ == "__main__":
    main()
