"""Files of people who mean no good: sizes are compared before anything is built, and nothing but
the documented error leaves."""

import json
import pickle
import random
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import Bytes
from fuzzing_files import numbered
from hostile_files import CONFIG, converter
from hostile_loading import attempt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from rtvc.errors import CheckpointError
from rtvc.models.checkpoints import load_checkpoint
from rtvc.models.loading import misfits, outlined
from rtvc.models.streaming import StreamingConfig, StreamingConverter, load_file
from rtvc.models.streaming.assets import DEFAULT
from rtvc.models.streaming.eight_bits import SUFFIX

Weights = dict[str, torch.Tensor]


def test_two_hundred_hostile_files_cost_no_process_and_no_memory() -> None:
    counts, faults = numbered(200)
    assert faults == [] and sum(counts.values()) == 200
    assert {name.split()[0] for name in counts} == {
        "authors",
        "manifest",
        "ours",
        "run",
        "teacher",
        "toml",
        "voice",
    }


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.binary(max_size=200))
def test_files_that_any_bytes_describe_load_or_are_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    attempt(Bytes(data), tmp_path_factory.mktemp("case"))


def test_a_case_is_known_by_its_number(tmp_path: Path) -> None:
    first, second = (attempt(random.Random(7), tmp_path) for _ in range(2))
    assert first == second


# ------------------------------------------------------------ -
# the authors' weights


@pytest.mark.parametrize(
    ("state", "says"),
    [
        (
            {"ups.0.weight": torch.zeros(0, 1, 20)},
            r"expected axes of 1 to 16384, ups.0.weight has the shape \(0, 1, 20\)",
        ),
        (
            {"ups.3000000.bias": torch.zeros(1)},
            "expected at most 64 entries in a list, ups.3000000 is named",
        ),
        ({"ups.64.bias": torch.zeros(1)}, "ups.64 is named"),
        ({"ups.².bias": torch.zeros(1)}, "1 unexpected: ups.².bias"),
        (
            {"conv_pre.weight": torch.zeros(0, 20_000_000, 7)},
            r"conv_pre.weight has the shape \(0, 20000000, 7\)",
        ),
        (
            {"ups.0.weight": torch.zeros(4, 2, 1)},
            r"ups halves 4 channels 1 times with kernels \[1\]",
        ),
        (
            {"ups.0.weight": torch.zeros(8, 4, 20), "ups.3.bias": torch.zeros(1)},
            "ups halves 8 channels 4 times with kernels .20, 10, 6, 4.",
        ),
        (
            {"conv_pre.weight": torch.zeros(1).expand(10**5, 10**5)},
            "claims 40000002048 up to vocoder.conv_pre.weight",
        ),
        (
            {"conv_pre.bias": torch.zeros(512, dtype=torch.int8)},
            r"1 of another type: conv_pre.bias \(expected floats, got int8\)",
        ),
        (
            {"conv_pre.bias": torch.zeros(512, dtype=torch.complex64)},
            "names torch.ComplexFloatStorage, which no weights are made of",
        ),
        ({"a\x1b[2J": torch.zeros(1)}, r"1 unexpected: a\\x1b\[2J"),
    ],
)
def test_sizes_that_a_checkpoint_only_claims_are_refused(
    state: Weights, says: str, tmp_path: Path
) -> None:
    torch.save(
        {"net": {"vocoder": {"conv_pre.bias": torch.zeros(512)} | state}}, tmp_path / "x.pth"
    )
    with pytest.raises(CheckpointError, match=says) as caught:
        load_checkpoint(tmp_path / "x.pth")
    assert len(str(caught.value)) < 1000


def test_a_file_that_holds_itself_is_refused(tmp_path: Path) -> None:
    wrapped: dict[str, Any] = {}
    wrapped["net"] = wrapped
    torch.save(wrapped, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="holds no weights"):
        load_checkpoint(tmp_path / "x.pth")


class Called:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.how = function, arguments

    def __reduce__(self) -> Any:
        return self.how


def doubled(times: int) -> tuple[Any, ...]:
    """A tuple of a few objects, through which a walk takes 2^times steps."""
    made: tuple[Any, ...] = ()
    for _ in range(times):
        made = (made, made)
    return made


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ({"net": Called(bytearray, 10**11)}, "names builtins.bytearray, which could run code"),
        (
            {"net": Called(torch.FloatTensor, 10**10)},
            "names torch.FloatTensor, which no weights are made of",
        ),
        ({"net": Called(torch._utils._rebuild_qtensor, 1)}, "names torch._utils._rebuild_qtensor"),
        ({"net": doubled(40)}, "nests objects deeper or oftener"),
        ({"net": ((((),) * 200,) * 200,) * 200}, "nests objects deeper or oftener"),
    ],
)
def test_pickles_that_would_take_memory_or_hours_are_not_followed(
    payload: Any, says: str, tmp_path: Path
) -> None:
    for legacy in (False, True):
        torch.save(payload, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
        with pytest.raises(CheckpointError, match=says):
            load_checkpoint(tmp_path / "x.pth")


def test_opcodes_that_torch_does_not_write_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"net": 1}, protocol=4))
    with pytest.raises(CheckpointError, match=r"truncated or no checkpoint \(it uses FRAME"):
        load_checkpoint(tmp_path / "x.pth")


# ------------------------------------------------------------ our own weights


def ours(path: Path, change: Any = None, config: Any = None) -> Path:
    """A file of the small model with something changed."""
    tensors = {name: tensor.clone() for name, tensor in converter().state_dict().items()}
    if change is not None:
        change(tensors)
    told = (
        CONFIG.model_dump_json()
        if config is None
        else config
        if isinstance(config, str)
        else json.dumps(CONFIG.model_dump() | config)
    )
    save_file(tensors, path, {"format": "rtvc-streaming", "config": told})
    return path


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (
            {"content_hidden": 10**6},
            "content_hidden = 1000000: Input should be less than or equal to 4096",
        ),
        ({"content_hidden": -1}, "content_hidden = -1: Input should be greater than or equal to 1"),
        ({"content_hidden": 0}, "content_hidden = 0: Input should be greater than or equal to 1"),
        ({"content_hidden": [1, 2]}, r"content_hidden = \[1, 2\]: Input should be a valid integer"),
        ({"content_hidden": None}, "content_hidden = None: Input should be a valid integer"),
        ({"content_hidden": 10**400}, "content_hidden = 10000000.*: Input should be less than"),
        (
            {"content_dilations": [1] * 65},
            "content_dilations = .*: Tuple should have at most 64 items",
        ),
        ({"content_dilations": [0]}, "content_dilations.0 = 0"),
        (
            {"right": 64},
            "asks for a model that cannot be built .ValueError: a look-ahead of 64 frames",
        ),
        ({"\x1b[2J": 1}, r"\\x1b\[2J = 1: Extra inputs are not permitted"),
        ("[" * 100_000, "the whole: Invalid JSON: recursion limit exceeded"),
        ("", "the whole: Invalid JSON: EOF"),
        (
            {"content_hidden": 4096, "decoder_hidden": 4096},
            r"of another shape: .* \(expected \(4096, 5, 66\), got \(8, 5, 66\)\).* and \d+ more",
        ),
    ],
)
def test_configurations_are_bounded_and_compared_before_a_model_is_built(
    config: Any, says: str, tmp_path: Path
) -> None:
    path = ours(tmp_path / "x.safetensors", config=config)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match=says):
        load_file(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, (
        "over 100 MB were taken for a file of some kB"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda t: t.update({n: x.to(torch.int8) for n, x in t.items()}),
            r"of another type: .* \(expected floats, got int8\)",
        ),
        (lambda t: t["affine.weight"].fill_(float("nan")), "NaN or infinity in affine.weight"),
        (
            lambda t: t.update(
                {"affine.bias": torch.full_like(t["affine.bias"], 1e300, dtype=torch.float64)}
            ),
            "NaN or infinity in affine.bias",
        ),
        (lambda t: t.pop("affine.bias"), "1 missing: affine.bias"),
        (lambda t: t.update({"x\x07": torch.zeros(1)}), r"1 unexpected: x\\x07"),
        (
            lambda t: t.update({"affine.bias": torch.zeros(3, dtype=torch.float8_e4m3fn)}),
            "expected types F64, .* holds affine.bias of type F8_E4M3",
        ),
        (
            lambda t: t.update({f"{n}": torch.zeros(0) for n in range(1 << 14)}),
            r"expected at most 16384 tensors, .* names 16\d\d\d",
        ),
    ],
)
def test_weights_of_other_types_or_without_values_are_refused_when_they_are_loaded(
    change: Any, says: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=says):
        load_file(ours(tmp_path / "x.safetensors", change))


def test_weights_in_half_and_double_precision_become_the_models_own(tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        made = load_file(
            ours(
                tmp_path / "x.safetensors",
                lambda t, to=dtype: t.update({n: x.to(to) for n, x in t.items()}),
            )
        )
        for name, tensor in converter().state_dict().items():
            assert made.state_dict()[name].dtype == torch.float32
            torch.testing.assert_close(made.state_dict()[name], tensor.to(dtype).float())


def test_an_outline_has_shapes_without_memory_and_real_constants() -> None:
    made = outlined(
        lambda: StreamingConverter(StreamingConfig(content_hidden=4096, decoder_hidden=4096)), "x"
    )
    assert sum(weight.numel() for weight in made.parameters() if not weight.is_meta) < 100_000
    assert sum(weight.numel() for weight in made.parameters()) > 500_000_000
    plain = StreamingConverter()
    constants = {name for name, _ in plain.named_buffers()} - set(plain.state_dict())
    assert len(constants) > 5 and all(
        torch.equal(made.get_buffer(name), plain.get_buffer(name)) for name in constants
    )


def test_what_is_loaded_is_what_the_file_holds() -> None:
    from safetensors import safe_open

    model = load_file(DEFAULT)
    with safe_open(DEFAULT, "pt") as file:
        names = set(file.keys())
        for name, tensor in model.state_dict().items():
            scale = name + SUFFIX
            kept = file.get_tensor(name).float()
            kept = kept * file.get_tensor(scale).float() if scale in names else kept
            assert torch.equal(tensor, kept)
    assert all(weight.requires_grad for weight in model.parameters()) and not model.training


def test_what_does_not_fit_is_named_and_the_rest_is_counted() -> None:
    module = torch.nn.Module()
    for name in ["a", "b", *(f"m{i}" for i in range(10))]:
        module.register_buffer(name, torch.zeros(2, 3))
    came = {"a": torch.zeros(2, 3), "b": torch.zeros(3, 2), "c": torch.zeros(1)}
    assert misfits(module, came) == [
        "10 missing: m0, m1, m2, m3, m4, m5, m6, m7 and 2 more",
        "1 unexpected: c",
        "1 of another shape: b (expected (2, 3), got (3, 2))",
    ]
    assert misfits(module, dict(module.state_dict())) == []


@pytest.mark.parametrize("header", [2**63, 10**9, 9_000_000, 0])
def test_a_header_is_no_larger_than_its_file(header: int, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(header.to_bytes(8, "little") + b"{}" + bytes(100))
    with pytest.raises(CheckpointError, match="truncated or no checkpoint"):
        load_file(tmp_path / "x.safetensors")
