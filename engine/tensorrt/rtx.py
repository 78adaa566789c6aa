"""TensorRT-RTX: an engine from an ONNX graph, made without a GPU for the compute capabilities that
are named."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from rtvc.engine.graph.target import Target
from rtvc.engine.tensorrt.flavours import known
from rtvc.errors import EngineError


class Log:
    """Keeps what TensorRT says, instead of printing it."""

    def __init__(self, trt: Any) -> None:
        self.errors: list[str] = []
        errors, severe = (
            self.errors,
            (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR),
        )

        class Sink(trt.ILogger):  # type: ignore[misc]
            """The logger that TensorRT is given."""

            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                """One line of its log."""
                if severity in severe:
                    errors.append(message)

        self.sink: Any = Sink()

    @property
    def last(self) -> str:
        """The last error in one line, for a message of ours."""
        return " ".join(self.errors[-1].split())[:300] if self.errors else "no reason given"


def parsed(model: bytes, trt: Any, log: Log, builder: Any) -> tuple[Any, Any]:
    """The network of an ONNX model, and the parser, which must live as long as it: weights stay
    where they were.

    Raises:
        EngineError: for a model that it cannot take whole.
    """
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.sink)
    if not parser.parse(model):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        reasons = (
            "; ".join(f"{error.node_operator() or 'the graph'}: {error.desc()}" for error in errors)
            or log.last
        )
        raise EngineError(
            f"TensorRT-RTX {trt.__version__} does not take this model ({reasons[:300]}): see rtvc"
            " build --plan"
        )
    return network, parser


def described(network: Any) -> dict[str, Any]:
    """A network's inputs and outputs with shapes and types, and its layers by kind and type."""

    def tensor(value: Any) -> dict[str, Any]:
        return {"shape": list(value.shape), "type": value.dtype.name.lower()}

    inputs, outputs = (
        {one.name: tensor(one) for one in (get(index) for index in range(count))}
        for get, count in (
            (network.get_input, network.num_inputs),
            (network.get_output, network.num_outputs),
        )
    )
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    kinds = Counter(layer.type.name.lower() for layer in layers)
    types = Counter(layer.get_output(0).dtype.name.lower() for layer in layers if layer.num_outputs)
    return {
        "inputs": inputs,
        "outputs": outputs,
        "layers": dict(sorted(kinds.items())),
        "types": dict(sorted(types.items())),
    }


def build_engine(model: bytes, target: Target, trt: Any) -> tuple[bytes, dict[str, Any]]:
    """Compiles an ONNX model whose inputs' first dimension is the batch.

    Args:
        model: serialised.
        target: resolved; its batch becomes the optimization profile.
        trt: TensorRT-RTX's module.

    Returns:
        The engine, and what `described` says of its network.

    Raises:
        EngineError: for a model or a capability that TensorRT-RTX cannot take.
    """
    log = Log(trt)
    builder = trt.Builder(log.sink)
    network, parser = parsed(model, trt, log, builder)
    config = builder.create_builder_config()
    set_capabilities(config, target.capabilities, trt)
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        profile.set_shape(tensor.name, *((rows, *tuple(tensor.shape)[1:]) for rows in target.batch))
    config.add_optimization_profile(profile)
    config.clear_flag(
        trt.BuilderFlag.TF32
    )  # it would round the inputs of float32 products to ten bits
    facts = described(network)
    serialized = builder.build_serialized_network(network, config)
    del parser
    if serialized is None:
        raise EngineError(
            f"TensorRT-RTX {trt.__version__} cannot build this model ({log.last}): try --precision"
            " fp32, see rtvc build --plan"
        )
    return bytes(serialized), facts


def set_capabilities(config: Any, capabilities: Sequence[str], trt: Any) -> None:
    """Names the GPUs to build for; left alone, it would ask for the one that is here."""
    served = known(trt)
    config.num_compute_capabilities = len(capabilities)
    for index, capability in enumerate(capabilities):
        config.set_compute_capability(served[capability], index)
