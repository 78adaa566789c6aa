"""Labels for real speech: content and phonemes by the bridge, F0 by swift-f0; resumable, one file
an utterance."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ValidationError

from rtvc.audio.mel import HOP, SAMPLE_RATE
from rtvc.audio.recording import read
from rtvc.audio.resample import resample
from rtvc.data.cache import Array
from rtvc.data.labelled import CONTENT_HOP, Utterance, save_utterance
from rtvc.data.manifest import Entry, flat, read_manifest, remark
from rtvc.data.utterance import SURE
from rtvc.errors import AudioError, CheckpointError, DependencyError, TrainingError
from rtvc.files import write
from rtvc.models.loading import listed
from rtvc.printable import first_problem
from rtvc.train.state import load_weights
from rtvc.train.streaming.bridge import BridgeNet, Listen, at_40

RATE = 16_000
Melody = Callable[[Array], tuple[Array, Array, Array]]
"""(N,) at 24 kHz -> times in s, F0 in Hz and confidence, (K,) each."""


@dataclass
class Report:
    """What a run has done."""

    labelled: int = 0
    existing: int = 0
    """Files that were there already."""
    refused: dict[str, str] = field(default_factory=dict)
    """Path -> reason."""
    seconds: float = 0.0
    """Of speech labelled in this run."""


class SwiftF0:
    """F0 by swift-f0 (MIT): a small network, one thread."""

    def __init__(self) -> None:
        try:
            import swift_f0
        except ImportError as error:
            raise DependencyError(
                "F0 labels need swift-f0: pip install 'rtvc-engine[train]'"
            ) from error
        self.detector = swift_f0.SwiftF0(threads=1, spin=False)

    def __call__(self, wave: Array) -> tuple[Array, Array, Array]:
        """See `Melody`."""
        melody = self.detector.detect(resample(wave, SAMPLE_RATE, RATE), RATE)
        return melody.timestamps, melody.pitch_hz, melody.confidence


def on_frames(times: Array, f0: Array, confidence: Array, frames: int) -> tuple[Array, Array]:
    """A melody at any times -> F0 (frames,) in Hz at 80 Hz, 0 where it is not sure, and confidence
    (frames,)."""
    centres = (np.arange(frames) + 0.5) * HOP / SAMPLE_RATE
    if not len(times):
        return np.zeros(frames, np.float32), np.zeros(frames, np.float32)
    level = np.interp(centres, times, confidence)
    sure = confidence > SURE
    if sure.sum() < 2:
        return np.zeros(frames, np.float32), level.astype(np.float32)
    curve = np.exp(np.interp(centres, times[sure], np.log(f0[sure])))
    return np.where(level > SURE, curve, 0).astype(np.float32), level.astype(np.float32)


def file_name(entry: Entry, root: Path) -> str:
    """A name for an entry's labels that no other entry of the manifest has."""
    place = (
        entry.path.relative_to(root)
        if entry.path.is_relative_to(root)
        else Path(*entry.path.parts[1:])
    )
    return (
        "__".join(place.with_suffix("").parts)
        + f"-{hashlib.blake2b(str(place).encode(), digest_size=3).hexdigest()}.npz"
    )


def interleaved(entries: Sequence[Entry]) -> list[Entry]:
    """Every speaker's first recording, then every speaker's second, …: an unfinished run has heard
    everybody."""
    seen: Counter[str] = Counter()
    ranks = []
    for entry in entries:
        ranks.append((seen[entry.speaker], entry.speaker))
        seen[entry.speaker] += 1
    return [
        entry for _, entry in sorted(zip(ranks, entries, strict=True), key=lambda pair: pair[0])
    ]


@torch.no_grad()
def label(entry: Entry, net: BridgeNet, listen: Listen, melody: Melody) -> Utterance:
    """One recording with its labels.

    Raises:
        AudioError: it cannot be read, or is too short for a frame.
    """
    wave = read(entry.path).clamp(-1, 1).numpy()
    frames = len(wave) // CONTENT_HOP
    if not frames:
        raise AudioError(
            f"{entry.path} lasts {len(wave) / SAMPLE_RATE:.3f} s, at least one frame of"
            f" {CONTENT_HOP} samples is needed"
        )
    states = at_40(torch.from_numpy(listen(wave).astype(np.float32)), frames)
    content, logits = net(states[None])
    f0, confidence = on_frames(*melody(wave), 2 * frames)
    return Utterance(
        audio=(wave * 32767).round().astype(np.int16),
        content=content[0].mT.numpy().astype(np.float16),
        phonemes=logits[0].argmax(-1).numpy().astype(np.int16),
        f0=f0,
        confidence=confidence,
        speaker=entry.speaker,
        bandwidth=entry.bandwidth_rate,
        exact=False,
    )


def label_all(
    manifest: Path,
    out: Path,
    bridge: Path,
    listen: Listen,
    melody: Melody,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Labels every recording of a manifest that has no labels in `out` yet.

    What cannot be used is written to `out/refused.tsv` with the reason, and tried again by the next
    run.

    Args:
        manifest: .tsv or .jsonl.
        out: folder, created if need be.
        bridge: run directory or weights of stage `bridge`.
        listen: the recogniser's encoder, a `Listener`.
        melody: F0, a `SwiftF0`.
        progress: called with the recordings done and all of them.

    Raises:
        TrainingError: `out` holds labels of another bridge.
        CheckpointError: the weights are no bridge's.
    """
    weights = load_weights(bridge)
    if "bridge" not in weights:
        raise CheckpointError(
            f"expected a bridge, got {bridge} with {listed(list(weights))}: name a run of `rtvc"
            " train bridge`"
        )
    net = BridgeNet.of_weights(weights["bridge"])
    entries = interleaved(read_manifest(manifest))
    out.mkdir(parents=True, exist_ok=True)
    _same_bridge(out, weights["bridge"])

    def make(entry: Entry, path: Path) -> int:
        utterance = label(entry, net, listen, melody)
        save_utterance(path, utterance)
        return len(utterance.audio)

    return label_each(entries, manifest.resolve().parent, out, make, progress)


def label_each(
    entries: Sequence[Entry],
    root: Path,
    out: Path,
    make: Callable[[Entry, Path], int],
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """`make(entry, path)` for every entry that has no file in `out` yet; it writes the file and
    tells its samples.

    What raises AudioError is written to `out/refused.tsv` with the reason, and tried again by the
    next run.
    """
    report = Report()
    for number, entry in enumerate(entries):
        path = out / file_name(entry, root)
        if path.exists():
            report.existing += 1
        else:
            try:
                samples = make(entry, path)
            except AudioError as error:
                report.refused[str(entry.path)] = flat(str(error))
            else:
                report.labelled += 1
                report.seconds += samples / SAMPLE_RATE
        if progress:
            progress(number + 1, len(entries))
    rows = [f"{remark(Path(path), reason)}\n" for path, reason in report.refused.items()]
    write(out / "refused.tsv", "".join(rows))
    return report


class BridgeNote(BaseModel):
    """What a folder of labels says of the bridge that made them."""

    sha256: str


def _same_bridge(out: Path, weights: dict[str, torch.Tensor]) -> None:
    """Notes which bridge labels a folder; labels of two bridges in one folder would teach two
    languages."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(weights[name].contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    mine, note = digest.hexdigest(), out / "bridge.json"
    if not note.exists():
        write(note, json.dumps({"sha256": mine}))
        return
    try:
        theirs = BridgeNote.model_validate_json(note.read_bytes()).sha256
    except ValidationError as error:
        raise TrainingError(
            f"{note} does not say of which bridge the labels are ({first_problem(error)}): name"
            " another folder, or delete this one"
        ) from error
    if theirs != mine:
        raise TrainingError(
            f"{out} holds labels of another bridge ({theirs[:12]}, not {mine[:12]}): name another"
            " folder, or delete this one"
        )
