"""The exported network as an ONNX graph; imported only where onnx is wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from .errors import OptionError

if TYPE_CHECKING:
    from .export import Parts

BLOCK = 16384  # neurons at a time: larger than elsewhere, because each block is three nodes of the file
OPSET, IR_VERSION = 17, 8  # of 2022: every runtime in use reads these
LIMIT = 2**31 - 2**20  # bytes of one protocol buffer, less a margin for the graph
TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE}


class Graph:
    """Nodes and constants of a graph under construction."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, values: Any) -> str:
        """Add a constant and return its name."""
        self.constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
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
    if parts.W.nbytes > LIMIT:
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
        return "X"
    X = "X"
    if parts.standard:
        X = graph.node("Sub", X, graph.constant("feature_mean", parts.preprocessing.mean))
        X = graph.node("Div", X, graph.constant("feature_scale", parts.divisors))
        ends = graph.constant("one_more_column", np.array([0, 0, 0, 1]))
        X = graph.node("Pad", X, ends, graph.constant("one", np.float64(1)))
    X = graph.node("Div", X, graph.node("ReduceMax", graph.node("Abs", X), axes=[1], keepdims=1))
    return graph.node("Div", X, graph.node("ReduceL2", X, axes=[1], keepdims=1))


def _output(graph: Graph, parts: Parts, rows: str) -> str:
    """Add the sum over all neurons in blocks; return the name of the (n, c) float64 sum."""
    minus_shift = graph.constant("minus_shift", np.array([-parts.shift], parts.W.dtype))
    total = graph.constant("zero", np.zeros((1, parts.outputs)))
    for first in range(0, len(parts.W), BLOCK):
        W = graph.constant(f"W_{first}", parts.W[first : first + BLOCK])  # (block, d)
        signs = graph.constant(
            f"signs_{first}", parts.signs.reshape(len(parts.W), -1)[first : first + BLOCK]
        )  # (block, c)
        above = graph.node("Relu", graph.node("Gemm", rows, W, minus_shift, transB=1))  # (n, block)
        part = graph.node("Cast", graph.node("MatMul", above, signs), to=TensorProto.DOUBLE)  # (n, c)
        total = graph.node("Add", total, part)
    return total


def _model(graph: Graph, parts: Parts) -> Any:
    X = helper.make_tensor_value_info("X", TensorProto.DOUBLE, ["n", parts.features])
    shape: list[Any] = ["n"] if parts.outputs == 1 else ["n", parts.outputs]
    y = helper.make_tensor_value_info("y", TensorProto.DOUBLE, shape)
    content = helper.make_graph(graph.nodes, "gpu_sublinear", [X], [y], graph.constants)
    opsets = [helper.make_opsetid("", OPSET)]
    return helper.make_model(content, opset_imports=opsets, ir_version=IR_VERSION, producer_name="gpu_sublinear")
