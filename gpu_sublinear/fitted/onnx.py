"""The exported network as an ONNX graph; imported only where onnx is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from ..errors import OptionError
from ..model.network import NORM_TOLERANCE

if TYPE_CHECKING:
    from .parts import Parts

NEURON_BLOCK = 16384  # neurons at a time: larger than elsewhere, because each block is three nodes of the file
OPSET, IR_VERSION = 17, 8  # of 2022: every runtime in use reads these
MOST_BYTES = 2**31 - 2**20  # bytes of one protocol buffer, less a margin for the graph
TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


class Graph:
    """Nodes and constants of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.names: set[str] = set()

    def constant(self, name: str, values: Any) -> str:
        """Add a constant and return its name."""
        self.names.add(name)
        self.constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def number(self, name: str, value: Any) -> str:
        """Add a constant unless it is there; return its name."""
        if name not in self.names:
            self.constant(name, value)
        return name

    def node(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        output = f"{operator}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output


def serialised(parts: Parts) -> bytes:
    """Return the ONNX file of a model.

    Parameters
    ----------
    parts : Parts
        All numbers of the model.

    Returns
    -------
    bytes
        The content of the file.

    Raises
    ------
    OptionError
        If the weights do not fit into one file.
    """
    if parts.W.nbytes > MOST_BYTES:
        raise OptionError(
            f"the weights take {parts.W.nbytes / 2**30:.1f} GiB, and one ONNX file holds 2 GiB; "
            "use dtype='float32', a smaller width, or TorchScript"
        )
    graph = Graph()
    rows = graph.node("Cast", _unit_rows(graph, parts), to=TYPES[parts.W.dtype.name])  # (n, d)
    total = graph.node("Mul", _output(graph, parts, rows), graph.constant("scale", np.float64(parts.scale)))  # (n, c)
    total = graph.node("Mul", total, graph.constant("target_std", np.asarray(parts.targets.std, np.float64)))
    total = graph.node("Add", total, graph.constant("target_mean", np.asarray(parts.targets.mean, np.float64)))
    if parts.outputs == 1:
        graph.nodes.append(helper.make_node("Squeeze", [total, graph.constant("last", np.array([1]))], ["y"]))
    else:
        graph.nodes.append(helper.make_node("Identity", [total], ["y"]))
    return bytes(_model(graph, parts).SerializeToString())


def _unit_rows(graph: Graph, parts: Parts) -> str:
    """Add ``Preprocessing.transform``, operation for operation; return the name of the (n, d) float64 rows."""
    if parts.preprocessing is None:
        return _only_unit_rows(graph)
    X = "X"
    if parts.standard:
        X = graph.node("Sub", X, graph.constant("feature_mean", parts.preprocessing.mean))
        X = graph.node("Div", X, graph.constant("feature_scale", parts.divisors))
        ends = graph.constant("one_more_column", np.array([0, 0, 0, 1]))
        X = graph.node("Pad", X, ends, graph.constant("one", np.float64(1)))
    X = graph.node("Div", X, graph.node("ReduceMax", graph.node("Abs", X), axes=[1], keepdims=1))
    return graph.node("Div", X, graph.node("ReduceL2", X, axes=[1], keepdims=1))


def _only_unit_rows(graph: Graph) -> str:
    """Add what makes NaN of rows that ``ShiftedReluNetwork.predict`` refuses; return the name of the (n, d) rows."""
    norms = graph.node("ReduceL2", "X", axes=[1], keepdims=1)  # (n, 1)
    distance = graph.node("Abs", graph.node("Sub", norms, graph.constant("unit", np.float64(1))))
    wrong = graph.node("Greater", distance, graph.constant("norm_tolerance", np.float64(NORM_TOLERANCE)))
    return graph.node("Where", wrong, graph.constant("nan", np.float64(np.nan)), "X")


def _output(graph: Graph, parts: Parts, rows: str) -> str:
    """Add the sum over all neurons in blocks; return the name of the (n, c) float64 sum."""
    total = graph.constant("zero", np.zeros((1, parts.outputs)))
    for first in range(0, len(parts.W), NEURON_BLOCK):
        W = graph.constant(f"W_{first}", parts.W[first : first + NEURON_BLOCK])  # (block, d)
        signs = graph.constant(
            f"signs_{first}", parts.signs.reshape(len(parts.W), -1)[first : first + NEURON_BLOCK]
        )  # (block, c)
        hidden = _hidden(graph, parts, rows, W)  # (n, block)
        part = graph.node("Cast", graph.node("MatMul", hidden, signs), to=TensorProto.DOUBLE)  # (n, c)
        total = graph.node("Add", total, part)
    return total


def _hidden(graph: Graph, parts: Parts, rows: str, W: str) -> str:
    """Add what the neurons make of their inner products, as ``Activation.varying``; return the name of (n, block)."""
    real, activation = parts.W.dtype.type, parts.activation
    terms = []
    for k, hinge in enumerate(activation.hinges):
        minus_shift = graph.number("minus_shift", np.array([-parts.shift], real))
        above = graph.node("Gemm", rows, W, minus_shift, alpha=float(hinge.direction), transB=1)
        term = graph.node("Relu", above)
        if hinge.jump * parts.shift:
            fires = graph.node(
                "Cast", graph.node("Greater", above, graph.number("zero_of_type", real(0))), to=TYPES[real.__name__]
            )
            term = graph.node(
                "Add", term, graph.node("Mul", fires, graph.number(f"jump_{k}", real(hinge.jump * parts.shift)))
            )
        terms.append(term if hinge.gain == 1 else graph.node("Mul", term, graph.number(f"gain_{k}", real(hinge.gain))))
    if activation.slope:
        terms.append(graph.node("Gemm", rows, W, alpha=activation.slope, transB=1))
    total = terms[0]
    for term in terms[1:]:
        total = graph.node("Add", total, term)
    return total


def _model(graph: Graph, parts: Parts) -> Any:
    X = helper.make_tensor_value_info("X", TensorProto.DOUBLE, ["n", parts.features])
    shape: list[Any] = ["n"] if parts.outputs == 1 else ["n", parts.outputs]
    y = helper.make_tensor_value_info("y", TensorProto.DOUBLE, shape)
    content = helper.make_graph(graph.nodes, "gpu_sublinear", [X], [y], graph.constants)
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(content, opset_imports=opsets, ir_version=IR_VERSION, producer_name="gpu_sublinear")
