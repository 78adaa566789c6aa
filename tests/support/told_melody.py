"""What the decoder of a streaming model is told of the melody while it converts."""

import pytest
from torch import Tensor

from rtvc.models.streaming.assets import StreamingModel


def told_melody(
    model: StreamingModel, wave: Tensor, monkeypatch: pytest.MonkeyPatch
) -> tuple[Tensor, Tensor]:
    """log F0 and voicing (B, T) that the decoder is told while waves (B, 1, N) are converted in the
    source's own register, so that F0 and energy stay what they are."""
    told: list[Tensor] = []
    read = model.decoder.read

    def heard(content: Tensor, log_f0: Tensor, voicing: Tensor, energy: Tensor) -> Tensor:
        told.extend([log_f0, voicing])
        return read(content, log_f0, voicing, energy)

    condition = model.condition(*model.styles(wave), prosody=0)
    with monkeypatch.context() as patch:
        patch.setattr(model.decoder, "read", heard)
        model(wave, condition, model.initial(len(wave)))
    log_f0, voicing = told
    return log_f0, voicing
