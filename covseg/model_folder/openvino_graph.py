"""A model's graph as OpenVINO reads it: made right, then float32, bfloat16 where that is safe, or int8.

In: a checked model folder with its own graph. Out: an `openvino.Model`. Four things are ours, not the runtime's:

- a linear resize is written as two matrix products: OpenVINO drops the antialias of ONNX's linear mode without
  a word, which moved lung probabilities of the default model by up to .2, and enlarges slowly;
- planes that are joined only to be split again are passed on as they are;
- what decides *where* a network looks (everything before a product of two computed matrices, as of
  `covseg.networks.lung_view`) stays float32 in bfloat16: a coordinate of 8 bits is off by a pixel above 128;
  so bfloat16 is written into the graph, convolution by convolution, instead of the runtime's hint, which takes all;
- int8 takes convolutions and nothing else, and never one that reads the image: an image of 8 bits, standardised and
  rounded to 8 bits again, moved the image-level logit more than all other convolutions of its encoder together.
"""

from __future__ import annotations

import tempfile

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13
from openvino._offline_transformations import apply_moc_transformations
from safetensors.numpy import load, save

from covseg.errors import ModelRefused
from covseg.model_folder.folder import GRAPH, ModelFolder

EDITS = 2  # raised whenever this module makes another graph of the same model: earlier proofs end
CONVOLUTIONS = ("Convolution", "GroupConvolution")


def read_graph(folder: ModelFolder) -> ov.Model:
    """Read the graph of a model folder in float32, batch normalisations folded.

    Raises
    ------
    ModelRefused
        When the folder carries no graph, or one that OpenVINO cannot read.
    """
    if folder.config.graph_sha256 is None:
        raise ModelRefused(
            f"{folder.path} has no {GRAPH}, which backend openvino runs: release the model anew, or take --backend onnx"
        )
    try:
        model = ov.Core().read_model(folder.path / GRAPH)
    except RuntimeError as error:
        raise ModelRefused(f"OpenVINO cannot read {folder.path / GRAPH}: {str(error)[:200]}") from error
    _write_out_resizes(model)
    apply_moc_transformations(model, True)
    _pass_splits(model)
    return model


def pack(model: ov.Model) -> bytes:
    """Return a model as one safetensors file, which a registry takes."""
    with tempfile.TemporaryDirectory() as place:
        ov.save_model(model, f"{place}/model.xml", compress_to_fp16=False)
        parts = {kind: np.fromfile(f"{place}/model.{kind}", np.uint8) for kind in ("xml", "bin")}
    return save(parts)


def unpack(data: bytes) -> ov.Model:
    """Return the model that `pack` wrote."""
    parts = load(data)
    return ov.Core().read_model(parts["xml"].tobytes(), ov.Tensor(parts["bin"]))


def sure(model: ov.Model) -> set[str]:
    """Name the nodes that decide where the network looks, which want float32.

    They come before a product of two computed matrices, or are one; where convolutions lie behind an earlier such
    product, they are what looks, and are not named.
    """
    products = {
        node.get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() == "MatMul" and not any(map(_constant, _before(node)))
    }
    behind = _reached(model, products, forward=True)
    named: set[str] = set()
    waiting = [node for node in model.get_ops() if node.get_friendly_name() in products]
    while waiting:
        node = waiting.pop()
        name = node.get_friendly_name()
        if name not in named and not (node.get_type_name() in CONVOLUTIONS and name in behind):
            named.add(name)
            waiting += _before(node)
    return named


def but_for_int8(model: ov.Model) -> set[str]:
    """Name the nodes that int8 leaves as they are: all but convolutions, and those of one channel, an image's."""
    return {
        node.get_friendly_name()
        for node in model.get_ops()
        if node.get_type_name() not in ("Constant", "Parameter", "Result")
        and not (node.get_type_name() in CONVOLUTIONS and node.input(0).get_partial_shape()[1].get_length() > 1)
    }


def move_presence(model: ov.Model, shift: float) -> None:
    """Add to the image-level logit, the model's second output."""
    sigmoid = model.outputs[1].get_node().input(0).get_source_output().get_node()
    if sigmoid.get_type_name() != "Sigmoid":
        raise ModelRefused(f"the image-level output comes from {sigmoid.get_type_name()}: wanted Sigmoid")
    logit = sigmoid.input(0)
    logit.replace_source_output(opset13.add(logit.get_source_output(), np.float32(shift)).output(0))
    model.validate_nodes_and_infer_types()


def to_bfloat16(model: ov.Model) -> None:
    """Let the convolutions, and what lies between them, run in bfloat16; `sure` nodes and both ends stay float32."""
    ends = {node.get_friendly_name() for node in model.get_ops() if node.get_type_name() in CONVOLUTIONS}
    between = (_reached(model, ends, forward=True) & _reached(model, ends, forward=False)) - sure(model)
    chosen = [
        node
        for node in model.get_ordered_ops()
        if node.get_friendly_name() in between and not _constant(node) and node.get_type_name() != "ShapeOf"
    ]
    names = {node.get_friendly_name() for node in chosen}
    made: dict[tuple[str, int], ov.Output] = {}
    for node in chosen:
        for port in node.inputs():
            source = port.get_source_output()
            key = (source.get_node().get_friendly_name(), source.get_index())
            if source.get_element_type() == ov.Type.f32 and key[0] not in names:
                made[key] = made.get(key) or opset13.convert(source, "bf16").output(0)
                port.replace_source_output(made[key])
    for node in chosen:
        for output in node.outputs():
            outside = [port for port in output.get_target_inputs() if port.get_node().get_friendly_name() not in names]
            if output.get_element_type() == ov.Type.f32 and outside:
                back = opset13.convert(output, "f32").output(0)
                for port in outside:
                    port.replace_source_output(back)
    model.validate_nodes_and_infer_types()


def _before(node: ov.Node) -> list[ov.Node]:
    return [port.get_source_output().get_node() for port in node.inputs()]


def _behind(node: ov.Node) -> list[ov.Node]:
    return [port.get_node() for output in node.outputs() for port in output.get_target_inputs()]


def _constant(node: ov.Node) -> bool:
    kind = node.get_type_name()
    return kind == "Constant" or (kind == "Convert" and _constant(_before(node)[0]))


def _reached(model: ov.Model, start: set[str], *, forward: bool) -> set[str]:
    """Name the nodes from which, or to which, some of `start` are reached; and these."""
    nodes = model.get_ordered_ops()
    near, hit = (_before, set(start)) if forward else (_behind, set(start))
    for node in nodes if forward else reversed(nodes):
        if any(one.get_friendly_name() in hit for one in near(node)):
            hit.add(node.get_friendly_name())
    return hit


def _write_out_resizes(model: ov.Model) -> None:
    for node in model.get_ops():
        if node.get_type_name() == "Interpolate" and _is_linear(node):
            before, after = node.input(0).get_partial_shape(), node.output(0).get_partial_shape()
            rows, columns = (
                opset13.constant(_triangles(before[axis].get_length(), after[axis].get_length())) for axis in (2, 3)
            )
            down = opset13.matmul(rows, node.input(0).get_source_output(), False, False)
            small = opset13.matmul(down, columns, False, True).output(0)
            for port in node.output(0).get_target_inputs():
                port.replace_source_output(small)
    model.validate_nodes_and_infer_types()


def _is_linear(node: ov.Node) -> bool:
    """Tell whether `_triangles` describes a resize: rows and columns of images, centres on centres."""
    resize = node.get_attributes()
    sides = (node.input(0).get_partial_shape(), node.output(0).get_partial_shape())
    return (
        resize["mode"].startswith("linear")
        and resize["coordinate_transformation_mode"] in ("half_pixel", "pytorch_half_pixel")
        and all(len(shape) == 4 and shape[axis].is_static for shape in sides for axis in (2, 3))
        and (resize["antialias"] or all(sides[0][axis].get_length() <= sides[1][axis].get_length() for axis in (2, 3)))
    )


def _pass_splits(model: ov.Model) -> None:
    """Connect what reads a part of a join to that part."""
    for node in model.get_ops():
        if node.get_type_name() != "VariadicSplit":
            continue
        join = node.input(0).get_source_output().get_node()
        if join.get_type_name() != "Concat":
            continue
        parts = [port.get_source_output() for port in join.inputs()]
        joined, split = ([str(part.get_partial_shape()) for part in ends] for ends in (parts, node.outputs()))
        if joined == split:
            for part, output in zip(parts, node.outputs(), strict=True):
                for port in output.get_target_inputs():
                    port.replace_source_output(part)
    model.validate_nodes_and_infer_types()


def _triangles(inputs: int, outputs: int) -> NDArray[np.float32]:
    """Return the matrix ``(outputs, inputs)`` of a linear resize, with antialias where it shrinks."""
    step = inputs / outputs
    centres = (np.arange(outputs)[:, None] + 0.5) * step
    weights = np.maximum(0, 1 - np.abs(np.arange(inputs) + 0.5 - centres) / max(step, 1))
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
