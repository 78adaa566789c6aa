"""The doctor says whether live works, what it costs, and what to buy or to change; every device and
machine here is made up."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from converters import DelayConverter

from rtvc.cli import main
from rtvc.clients.live import advice as advising
from rtvc.clients.live import doctor
from rtvc.clients.live.advice import virtual_mic_lacks
from rtvc.clients.live.devices import Device
from rtvc.engine.backends.eager import TorchBackend
from rtvc.errors import DeviceError

MIC = Device(0, "Blue mic", "ALSA", 1, 0, 48_000, 0.010, 0.0, "input")
SPEAKER = Device(1, "Speaker", "ALSA", 0, 2, 48_000, 0.0, 0.012, "output")
PACKAGES = dict.fromkeys(doctor.PACKAGES, "1.0")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What the doctor says of a machine that is told it."""

    def examined(
        devices: list[Device] | None = None,
        p95: dict[int, float] | None = None,
        load: float = 0.1,
        features: list[str] | None = None,
        **missing: None,
    ) -> dict[str, Any]:
        times = {300: 4.0, 600: 6.0, 1200: 9.0} if p95 is None else p95
        converter = DelayConverter()

        def known() -> list[Device]:
            if devices == []:
                raise DeviceError("no input device fits the default")
            return [MIC, SPEAKER] if devices is None else devices

        def chosen(_: Any, chunk: int, again: bool = False) -> Any:
            figures = {"p50_ms": times[chunk], "p95_ms": times[chunk]}
            found = {"backend": "torch-eager", "measured": {"torch-eager": figures}}
            return TorchBackend(converter, chunk), found

        processor = {
            "name": "Linux x86_64 Test",
            "cores": 4,
            "load": load,
            "features": ["avx2", "avx512_vnni"] if features is None else features,
        }
        monkeypatch.setattr("rtvc.clients.live.devices.devices", known)
        monkeypatch.setattr(doctor, "choose", chosen)
        monkeypatch.setattr(doctor, "cpu", lambda: processor)
        monkeypatch.setattr(doctor, "packages", lambda: PACKAGES | missing)
        monkeypatch.setattr(advising.shutil, "which", lambda name: f"/usr/bin/{name}")
        return doctor.examine(converter)

    return examined


def test_a_good_machine_works_and_the_delay_is_the_sum_of_its_parts(
    machine: Callable[..., dict[str, Any]],
) -> None:
    report = machine()
    assert report["works"] and report["problems"] == [] and report["advice"] == []
    assert report["budget_ms"] == {
        "microphone": 10.0,
        "block": 5.0,
        "step": 12.5,
        "look-ahead": 37.5,
        "computing": 4.0,
        "queue": 4.0,
        "loudspeaker": 12.0,
    }
    assert report["expected_ms"] == 85.0
    assert report["speed"]["recommended"] == {
        "chunk_ms": 12.5,
        "engine": "torch-eager",
        "step_p95_ms": 4.0,
    }


def test_the_shortest_safe_step_is_recommended(machine: Callable[..., dict[str, Any]]) -> None:
    report = machine(p95={300: 9.0, 600: 10.0, 1200: 10.0})
    assert report["speed"]["recommended"]["chunk_ms"] == 25.0
    assert report["expected_ms"] == 25 + 37.5 + 10 + 5 + 4 + 22


def test_a_machine_without_devices_or_speed_does_not_work(
    machine: Callable[..., dict[str, Any]],
) -> None:
    report = machine(devices=[])
    assert not report["works"] and "no input device fits the default" in report["problems"][0]
    slow = {300: 99.0, 600: 99.0, 1200: 99.0}
    report = machine(p95=slow, features=["avx2"])
    assert report["problems"] == ["the processor is too slow for any step of the model"]
    assert report["expected_ms"] is None and report["budget_ms"] == {}
    assert any(each.startswith("buy a processor with AVX-512 VNNI") for each in report["advice"])
    report = machine(p95=slow, load=3.9)
    assert report["problems"][0].endswith("close other programs and run doctor again")
    report = machine(sounddevice=None)
    assert report["problems"] == ["sounddevice is missing: pip install 'rtvc-engine[live,onnx]'"]


@pytest.mark.parametrize(
    ("device", "said"),
    [
        (
            Device(0, "AirPods Pro", "Core Audio", 1, 0, 24_000, 0.01, 0.0, "input"),
            "use a microphone with a cable: 'AirPods Pro' goes through the air",
        ),
        (
            Device(0, "Mic (MME)", "MME", 1, 0, 44_100, 0.09, 0.0, "input"),
            "pick the microphone by its Windows WASAPI name (`rtvc devices`): MME adds",
        ),
        (
            Device(0, "Webcam", "ALSA", 1, 0, 48_000, 0.045, 0.0, "input"),
            "buy a USB headset or interface: the microphone 'Webcam' adds 45 ms",
        ),
    ],
)
def test_a_slow_device_is_named_with_what_to_do(
    machine: Callable[..., dict[str, Any]], device: Device, said: str
) -> None:
    report = machine(devices=[device, SPEAKER])
    assert report["works"] and len(report["advice"]) == 1 and report["advice"][0].startswith(said)


def test_missing_packages_and_a_busy_machine_are_said(
    machine: Callable[..., dict[str, Any]],
) -> None:
    report = machine(onnxruntime=None, load=4.0)
    assert report["works"]
    assert report["advice"][0] == (
        "install onnxruntime: pip install 'rtvc-engine[live,onnx]' (steps take a third of the time)"
    )
    assert report["advice"][1].startswith("close other programs")


def test_what_a_virtual_microphone_lacks_depends_on_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cable = {"name": "CABLE Input (VB-Audio Virtual Cable)", "outputs": 2}
    hole, mic = {"name": "BlackHole 2ch", "outputs": 2}, {"name": "BlackHole 2ch", "outputs": 0}
    assert virtual_mic_lacks([cable], "win32") is None
    assert "VB-CABLE" in str(virtual_mic_lacks([hole], "win32"))
    assert virtual_mic_lacks([hole], "darwin") is None
    assert "brew install blackhole-2ch" in str(virtual_mic_lacks([mic], "darwin"))
    monkeypatch.setattr(advising.shutil, "which", lambda name: None)
    assert "apt-get install pipewire-pulse" in str(virtual_mic_lacks([], "linux"))
    monkeypatch.setattr(advising.shutil, "which", lambda name: "/usr/bin/pactl")
    assert virtual_mic_lacks([], "linux") is None


def test_the_doctor_prints_eighty_columns_and_ends_with_one_where_live_would_not_work(
    machine: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    machine()
    assert main(["doctor", "--no-speed"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("Live conversion should work here")
    assert main(["doctor", "--no-speed", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["works"] is True
    machine(devices=[])
    assert main(["doctor", "--no-speed"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("Live conversion does not work here.\n\nproblem     no microphone")
    assert main(["doctor", "--no-speed", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["works"] is False
    from rtvc.clients.cli.doctor import lines

    report = machine(devices=[Device(0, "Long " * 30, "ALSA", 1, 2, 48_000, 0.05, 0.05, "both")])
    shown = lines(report)
    assert max(map(len, shown)) <= 80
    assert shown[0] == "Live conversion works here: about 163 ms from mouth to ear."
    assert any(" 12.5 ms    a step of the model" in line for line in shown)
