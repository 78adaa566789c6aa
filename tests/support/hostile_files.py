"""Files that somebody might hand over who means no good: weights, voices, checkpoints,
configurations, manifests.

Every draw comes from one source of chance (`random.Random`, or a fuzzer's bytes), so a case is
known by its number.
"""

import functools
import hashlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from hostile_values import HostileValues
from safetensors.torch import save

from rtvc.engine.backends.base import Layout
from rtvc.engine.graph.manifest import FORMAT, MANIFEST
from rtvc.engine.identity import answer, model_hash
from rtvc.engine.registry import versions
from rtvc.models.streaming import StreamingConfig, StreamingConverter
from rtvc.models.styletts2.prosody import ProsodyPredictor
from rtvc.models.styletts_vc.mel_encoder import LinearProjection, MelEncoder
from rtvc.models.styletts_vc.style_encoder import StyleEncoder
from rtvc.models.styletts_vc.text_encoder import TextEncoder
from rtvc.models.vocoder import Vocoder
from rtvc.train.registry import STAGES, default_config

CONFIG = StreamingConfig(
    content_hidden=8,
    content_dilations=(1, 2),
    pitch_hidden=8,
    pitch_dilations=(1,),
    decoder_hidden=8,
    decoder_dilations=(1,),
    acoustic_hidden=8,
    prosodic_hidden=8,
)
REPORT = {
    "path": "a.wav",
    "seconds": 7.0,
    "speech": 5.0,
    "snr": 40.0,
    "bandwidth": 8e3,
    "clipped": 0.0,
    "level": -20.0,
    "grade": "good",
}


@functools.cache
def converter() -> StreamingConverter:
    """A streaming model of a few thousand weights."""
    torch.manual_seed(0)
    return StreamingConverter(CONFIG).eval()


@functools.cache
def components() -> dict[str, dict[str, torch.Tensor]]:
    """Components of the authors' files, small."""
    torch.manual_seed(0)
    made = {
        "mel_encoder": MelEncoder(channels=16),
        "linear_proj": LinearProjection(16, 9),
        "text_encoder": TextEncoder(channels=16, tokens=9, depth=1),
        "style_encoder": StyleEncoder(width=2, widest=4),
        "predictor": ProsodyPredictor(channels=16, style_dim=4, layers=1, longest=3),
        "vocoder": Vocoder(channels=16),
    }
    return {name: dict(module.state_dict()) for name, module in made.items()}


@functools.cache
def facts() -> dict[str, Any]:
    """What the manifest of an engine of `converter()` says, whose only file is empty."""
    made, backend = converter(), "onnx"
    return {
        **{
            "format": FORMAT,
            "backend": backend,
            "chunk": 600,
            "sample_rate": 24_000,
            "hop": 300,
            "latency": made.latency,
            "voice": 9,
        },
        **{
            "model": model_hash(made),
            "answer": answer(made, 600),
            "versions": versions(backend),
            "machine": "any",
            "target": None,
        },
        "state": Layout.of(made.initial(1)).size,
        "files": {"step.onnx": hashlib.sha256(b"").hexdigest()},
    }


class HostileFiles(HostileValues):
    """Makes one hostile file at a time."""

    def safetensors(self, tensors: dict[Any, Any], metadata: dict[str, str]) -> bytes:
        """A safetensors file, whose header may say something else than it holds."""
        plain = {
            str(name).encode("utf-8", "replace").decode(): tensor.contiguous().clone()
            for name, tensor in tensors.items()
            if isinstance(tensor, torch.Tensor) and tensor.numel() < 10**6
        }
        metadata = {
            key.encode("utf-8", "replace").decode(): value.encode("utf-8", "replace").decode()
            for key, value in metadata.items()
        }
        data = save(plain, metadata)
        if plain and self.often(0.3):
            size = int.from_bytes(data[:8], "little")
            header = json.dumps(self.changed(json.loads(data[8 : 8 + size]))).encode()
            data = len(header).to_bytes(8, "little") + header + data[8 + size :]
        if self.often(0.05):
            data = self.pick([2**63, 2**40, 10**8, 0]).to_bytes(8, "little") + data[8:]
        return self.bytes(data)

    def pickled(self, payload: Any) -> bytes:
        """What torch writes of a payload, in either of its formats, and bytes of its pickle
        changed."""
        sink = io.BytesIO()
        torch.save(payload, sink, _use_new_zipfile_serialization=self.often(0.8))
        data = sink.getvalue()
        if data[:2] != b"PK" or self.often(0.6):
            return self.bytes(data)
        source, out = zipfile.ZipFile(sink), io.BytesIO()
        with zipfile.ZipFile(
            out, "w", zipfile.ZIP_DEFLATED if self.often(0.1) else zipfile.ZIP_STORED
        ) as archive:
            for record in source.infolist():
                content = source.read(record)
                archive.writestr(
                    record.filename,
                    self.bytes(content) if record.filename.endswith("data.pkl") else content,
                )
        return out.getvalue()

    def authors(self, folder: Path) -> Path:
        names = sorted(components())
        net: dict[Any, Any] = {
            name: self.tensors(components()[name]) for name in names if self.often(0.3)
        }
        if self.often(0.3):
            net[self.text()] = self.tensors({})
        payload: Any = {
            self.pick(["net", "net", "model", "generator", "x"]): net,
            "iters": self.plain(1),
        }
        for _ in range(self.pick([0, 0, 0, 1, 5, 30])):
            payload = {self.pick(["net", "model"]): payload}
        path = folder / self.pick(["x.pth", "x.t7", "x.safetensors"])
        flat = {
            f"{name}.{key}": value for name, state in net.items() for key, value in state.items()
        }
        path.write_bytes(
            self.safetensors(flat, {}) if path.suffix == ".safetensors" else self.pickled(payload)
        )
        return path

    def ours(self, folder: Path) -> Path:
        config: Any = CONFIG.model_dump(mode="json")
        for _ in range(self.chance.randrange(3)):
            config = self.changed(config)
        text = self.pick(
            [
                json.dumps(config),
                json.dumps(config),
                json.dumps(config),
                "[" * 10**5,
                '{"a":' * 10**5,
                self.text(),
            ]
        )
        metadata = {"format": self.pick(["rtvc-streaming"] * 9 + ["x"]), "config": text}
        path = folder / "x.safetensors"
        path.write_bytes(self.safetensors(self.tensors(dict(converter().state_dict())), metadata))
        return path

    def voice(self, folder: Path) -> Path:
        source: Any = {
            "space": "stream",
            "references": [REPORT | {"advice": ["a"]}],
            "mix": [{"share": 0.5, "name": "b", "source": {}}],
        }
        source |= {"fit": {"weights": "0" * 12}} if self.often(0.5) else {}
        for _ in range(self.chance.randrange(4)):
            source = self.changed(source)
        styles = {"acoustic": torch.zeros(128), "prosodic": torch.ones(128)} | (
            {"fine": torch.zeros(9)} if self.often(0.3) else {}
        )
        text = self.pick([json.dumps(source)] * 6 + ["[" * 10**5, "1e999", "NaN", "1" * 5000])
        metadata = {
            "format": "rtvc-voice",
            "version": self.pick(["1"] * 9 + [self.text()]),
            "name": self.text(),
            "source": text,
        }
        path = folder / "x.voice"
        path.write_bytes(self.safetensors(self.tensors(styles), metadata))
        return path

    def teacher(self, folder: Path) -> Path:
        metadata = {
            "format": "rtvc-teacher-1",
            "source": self.text(),
            "sha256": self.text(),
            "tokens": json.dumps(self.plain()),
        }
        tensors = self.tensors({"bert.x": torch.zeros(2), "voices.a": torch.zeros(510, 256)})
        path = folder / "teacher.safetensors"
        path.write_bytes(
            self.safetensors(
                tensors, {name: text for name, text in metadata.items() if self.often(0.9)}
            )
        )
        return path

    def run(self, folder: Path) -> Path:
        """A run's folder with one checkpoint, whose note is right unless it was changed."""
        state: Any = {
            **{
                "stage": "Stream",
                "step": 9,
                "skipped": 0,
                "bad_in_row": 0,
                "seconds": 1.0,
                "world": 1,
            },
            "config": json.dumps({"model": CONFIG.model_dump(mode="json")}),
            **{
                "modules": {"pitch": dict(converter().pitch.state_dict())},
                "average": {},
                "averaged": ["pitch"],
            },
        }
        if self.often(0.5):
            state["modules"]["pitch"] = self.tensors(state["modules"]["pitch"])
        data = self.pickled(self.changed(state) if self.often(0.5) else state)
        kept = folder / "checkpoints"
        kept.mkdir(exist_ok=True)
        note: Any = {"step": 9, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        name = self.pick(["step-00000009"] * 6 + ["step-²", "step-x", "step-99999999999999999999"])
        (kept / f"{name}.pt").write_bytes(data)
        (kept / f"{name}.json").write_bytes(
            self.bytes(json.dumps(self.changed(note) if self.often(0.3) else note).encode())
        )
        return folder

    def manifest(self, folder: Path) -> Path:
        told: Any = facts()
        for _ in range(self.chance.randrange(4)):
            told = self.changed(told)
        text = self.pick([json.dumps(told)] * 9 + ["[" * 10**5, '{"format":1,"a":' * 10**4])
        (folder / MANIFEST).write_bytes(self.bytes(text.encode()))
        (folder / "step.onnx").write_bytes(b"")
        return folder

    def toml(self, folder: Path) -> Path:
        """A configuration whose keys are mostly those of some stage."""
        stage = self.pick(sorted(STAGES))
        lines = [f"{self.key()} = {self.toml_value()}" for _ in range(self.chance.randrange(4))]
        recipe = (
            default_config(stage).read_text()
            if default_config(stage).is_file() and self.often(0.7)
            else ""
        )
        path = folder / f"{stage}.toml"
        path.write_bytes(
            self.bytes(
                "\n".join([*(lines if not recipe else []), recipe]).encode("utf-8", "replace")
            )
        )
        path.with_suffix(".set").write_text("\n".join(lines), encoding="utf-8", errors="replace")
        return path
