# SPDX-License-Identifier: Apache-2.0
"""A GGUF file's weights in the forms that peers read which do not read GGUF, each made by the peer's own tool.

    pip install torch transformers gguf 'optimum-intel[openvino]' onnxruntime-genai onnx-ir ctranslate2
    python benchmarks/convert.py [--model FILE] [--cache FOLDER] [FORM ...]

All of them start from one Hugging Face folder of float32, which transformers writes from the dequantized tensors of the file. The
tools need packages and versions that the peers themselves do not, and may disagree on transformers (optimum-intel 1 wants version
4, onnxruntime-genai 0.18 version 5): environments of their own are best, each for some forms. A tool that cannot convert
a model says so, and the peer is left out of the measurement.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

DEFAULT_CACHE = Path.home() / ".cache" / "slm-benchmarks"
FOLDER = "f32"


def folder_of(cache: Path, model: Path, form: str) -> Path:
    return cache / model.stem / form


def hugging_face(model: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(model.parent, gguf_file=model.name, dtype=torch.float32)
    loaded.save_pretrained(out)
    AutoTokenizer.from_pretrained(model.parent, gguf_file=model.name).save_pretrained(out)


def tool(*command: str | Path) -> None:
    """Runs a program of this environment."""
    subprocess.run([Path(sys.executable).parent / command[0], *command[1:]], check=True)


def bfloat16(folder: Path, out: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(out)


def openvino(*options: str) -> Callable[[Path, Path], None]:
    """Weights of 8 bits by row, or of 4 bits by group."""

    def convert(folder: Path, out: Path) -> None:
        tool("optimum-cli", "export", "openvino", "--task", "text-generation-with-past", "--model", folder, *options, out)

    return convert


def onnx_int4(folder: Path, out: Path) -> None:
    options = ["int4_accuracy_level=4", "int4_block_size=32"]  # int8 activations
    builder = ["-m", "onnxruntime_genai.models.builder", "-i", folder, "-o", out, "-p", "int4", "-e", "cpu", "-c", out / "cache"]
    tool("python", *builder, "--extra_options", *options)


def ctranslate2_int8(folder: Path, out: Path) -> None:
    tool("ct2-transformers-converter", "--model", folder, "--output_dir", out, "--quantization", "int8")


FORMS: dict[str, Callable[[Path, Path], None]] = {
    "bf16": bfloat16,
    "openvino-int8": openvino("--weight-format", "int8"),
    "openvino-int4": openvino("--weight-format", "int4", "--sym", "--group-size", "32", "--ratio", "1.0"),
    "onnx-int4": onnx_int4,
    "ctranslate2-int8": ctranslate2_int8,
}


def convert(form: str, make: Callable[[Path, Path], None], source: Path, target: Path) -> bool:
    """Into a temporary neighbour first, so that what is there is whole."""
    if target.exists():
        return True
    print(f"{form}: {target}", flush=True)
    unfinished = target.with_name(target.name + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        make(source, unfinished)
    except Exception as error:  # whatever a tool raises: the peer is left out
        print(f"{form}: cannot be made: {error}", file=sys.stderr)
        return False
    unfinished.rename(target)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE, help="where conversions are kept (default: %(default)s)")
    parser.add_argument("forms", nargs="*", metavar="FORM", default=list(FORMS), help=f"of {', '.join(FORMS)} (default: all)")
    args = parser.parse_args()
    folder = folder_of(args.cache, args.model, FOLDER)
    if not convert(FOLDER, hugging_face, args.model.resolve(), folder):
        sys.exit(1)
    made = [convert(form, FORMS[form], folder, folder_of(args.cache, args.model, form)) for form in args.forms]
    sys.exit(not all(made))


if __name__ == "__main__":
    main()
