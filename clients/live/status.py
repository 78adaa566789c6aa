"""How a live conversion is doing, in one place: for the display, for JSON, for whoever asks."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Status:
    """Everything worth showing: times in milliseconds, levels in dB below full scale.

    Attributes:
        state: starting, running, lost or stopped.
        problem: why a device is lost; empty while all are there.
        level_in_db: RMS of the latest input.
        level_out_db: RMS of the latest output.
        lag_ms: from capture to playback, of the last block that sounded.
        lag_p50_ms: median of the lag.
        lag_p95_ms: 95th percentile of the lag.
        lag_p99_ms: 99th percentile of the lag.
        expected_ms: the lag that these settings come to on a machine without load.
        xruns: buffers that a device had too late or too full.
        underruns: times that the player had nothing to play.
        dropped_ms: audio that was left out because it had become stale.
        drift_ppm: by what the two devices' clocks differ.
        rtf: share of real time that the model takes; a server's load where it runs the model.
        losses: times that a device was lost.
        bypass: the input is heard.
        muted: nothing is heard.
        pitch: semitones added.
        steps: of the model; like the next three None where a server runs it.
        skipped: steps that the gate saved.
        resets: times that the model's state began anew because it was not finite.
        repaired: samples of the device that were out of range or undefined.
        resumed: times that a lost connection was resumed; None where the model runs here.
        input_problem: what is wrong with the microphone's level, in words; empty while all is well.
        denoise: noise is taken out of the input.
        agc: the slow automatic gain is on.
        gain_db: of the slow automatic gain; None while it is off.
        stages: milliseconds that each part adds to the lag: what the microphone holds, a block, the
            noise suppressor, the conversion with its step, computing, the least that waits at the
            player, what the loudspeaker holds.
        recording: as of `rtvc.clients.recording.recorder.Recorder.status`.
    """

    state: str
    problem: str
    level_in_db: float
    level_out_db: float
    lag_ms: float
    lag_p50_ms: float
    lag_p95_ms: float
    lag_p99_ms: float
    expected_ms: float
    xruns: int
    underruns: int
    dropped_ms: float
    drift_ppm: float
    rtf: float
    losses: int
    bypass: bool
    muted: bool
    pitch: float
    steps: int | None = None
    skipped: int | None = None
    resets: int | None = None
    repaired: int | None = None
    resumed: int | None = None
    input_problem: str = ""
    denoise: bool = False
    agc: bool = False
    gain_db: float | None = None
    stages: dict[str, float] | None = None
    recording: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """What is known, as plain numbers for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}
