"""Model summaries: the engine on layers whose cost is known, the paper's table to the unit, and the
command."""

import json
import re

import pytest
import torch
from torch import Tensor, nn

from rtvc.cli import main
from rtvc.models import cost_tables as catalog
from rtvc.models.summary import Part, Published, measure, summarise
from tests.support.parity import PARAMETERS

PUBLISHED = [2.08e9, 8.77e6, 82.75e9, 6.72e9, 6.72e9, 55.54e9, 7.24e9, 5.83e9]


class Known(nn.Module):
    """Layers that can be counted by hand, one of them idle."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 5, padding=2, groups=1)
        self.lstm = nn.LSTM(4, 6, batch_first=True, bidirectional=True)
        self.linear = nn.Linear(12, 2)
        self.idle = nn.Linear(7, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.lstm(self.conv(x).mT)[0])


def test_costs_of_known_layers() -> None:
    cost = measure(
        Part("known", Known, lambda frames: (torch.randn(2, 3, frames),), inference=False),
        frames=10,
        repeats=2,
    )
    frames = 2 * 10
    assert cost.mult_adds == frames * (3 * 4 * 5 + 2 * 4 * 6 * (4 + 6) + 12 * 2)
    lstm = 2 * (24 * 4 + 24 * 6 + 48)
    assert (
        cost.parameters == cost.training == (60 + 4) + lstm + 26 + 56
        and cost.inference == 0
        and cost.idle == 56
    )
    assert cost.input_size == 4 * 2 * 3 * 10
    assert cost.forward_backward_size == 2 * 4 * frames * (4 + 12 + 2)
    assert cost.params_size == 4 * cost.parameters
    assert cost.total_size == cost.input_size + cost.forward_backward_size + cost.params_size
    assert cost.running_time > 0 and cost.mult_adds_published is None and cost.why is None


def test_totals_are_sums() -> None:
    parts = [
        Part(
            name,
            lambda: nn.Linear(3, 2),
            lambda frames: (torch.randn(frames, 3),),
            published=Published(7.0, ""),
        )
        for name in "ab"
    ]
    result = summarise(parts, frames=5, repeats=1)
    assert (
        result["total"]["mult_adds"] == 2 * 5 * 6
        and result["total"]["parameters"] == 16
        and result["total"]["mult_adds_published"] == 14
    )
    assert "name" not in result["total"]


@pytest.fixture(scope="module")
def paper() -> list[dict[str, float]]:
    """The eight components, measured once."""
    components: list[dict[str, float]] = summarise(
        catalog.MODELS["styletts-vc"](), frames=192, repeats=1
    )["components"]
    return components


def test_the_papers_parameters_to_the_unit(paper: list[dict[str, float]]) -> None:
    assert [cost["parameters"] for cost in paper] == PARAMETERS and sum(PARAMETERS) == 83_740_087
    assert sum(cost["training"] for cost in paper) == 83_740_087
    used = {str(cost["name"]) for cost in paper if cost["inference"]}
    assert used == {"mel encoder", "style encoder", "decoder", "pitch extractor"}


def test_the_papers_mult_adds_are_explained(paper: list[dict[str, float]]) -> None:
    """The reasons that the command gives are true: counted as torchinfo counts, the printed figures
    come out."""
    assert [cost["mult_adds_published"] for cost in paper] == PUBLISHED
    counted = {str(cost["name"]): cost["mult_adds_by_layer_outputs"] for cost in paper}
    counted["decoder"] *= 2
    counted["pitch extractor"] += 192 * 2 * (1024 * (512 + 256) + 2 * 1024)  # the idle BiLSTM
    for (name, count), printed in zip(counted.items(), PUBLISHED, strict=True):
        assert count == pytest.approx(printed, rel=2e-3), name
    # What the operations really are: every frame of a convolution, by hand for the projection.
    assert paper[1]["mult_adds"] == 512 * 178 * 96
    assert all(cost["mult_adds"] < cost["mult_adds_published"] for cost in paper)
    assert paper[6]["idle"] == 1_742_338


def test_every_model_of_the_catalog_can_be_built_and_run() -> None:
    sizes = {}
    for part in (
        catalog.MODELS["stream"]()
        + catalog.MODELS["styletts2-istftnet"]()
        + catalog.MODELS["vocoder"]()
    ):
        cost = measure(part, frames=68, repeats=1)
        sizes[part.name] = cost.parameters
        assert cost.mult_adds > 0 and cost.running_time > 0
    assert (
        sizes["content encoder"] == 9_219_648
        and sizes["decoder"] == 53_276_190
        and sizes["prosody predictor"] == 16_194_612
    )
    (decoder,) = (part for part in catalog.MODELS["styletts2-hifigan"]() if part.name == "decoder")
    assert sum(p.numel() for p in decoder.build().parameters()) == 54_289_492


def tiny() -> list[Part]:
    why = "is wrong"
    return [
        Part(
            "known",
            Known,
            lambda frames: (torch.randn(1, 3, frames),),
            published=Published(1e9, why),
        )
    ]


def test_the_command_prints_json_and_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalog.MODELS, "tiny", tiny)
    assert main(["stats", "--model", "tiny", "--json", "--repeats", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["model"] == "tiny" and result["frames"] == 192
    assert {"name", "parameters", "training", "inference", "mult_adds"} <= set(
        result["components"][0]
    )
    assert result["total"]["parameters"] == result["components"][0]["parameters"]
    assert main(["stats", "--model", "tiny", "--repeats", "1"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"known +722 +both +108.29 k +1.00 G", shown) and "total" in shown
    told = " ".join(shown.split())
    assert "722 parameters in training, 722 in inference" in told
    assert "known: printed 1.00 G, counted 108.29 k: the printed figure is wrong" in told
    assert max(map(len, shown.splitlines())) <= 80
    assert "known: 56 parameters are idle" in shown


def test_an_unknown_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", "--model", "nothing"]) == 2
    assert "there is no model 'nothing'" in capsys.readouterr().err
