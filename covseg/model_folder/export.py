"""The ONNX graph of a model folder: the network's shape alone, its numbers stay in ``weights.safetensors``.

In: a checked model folder. Out: ``graph.onnx``, which names the place of every weight inside the safetensors
file beside it (ONNX external data) and reads halves through a Cast. ONNX Runtime folds Casts and batch
normalisations as it opens the graph. A model folder should carry its graph; one that does not gets it made
into the cache, which needs torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from covseg.errors import ModelRefused
from covseg.model_folder.folder import GRAPH, WEIGHTS, ModelFolder, amend_config, open_folder
from covseg.settings.environment import cache_folder as cache_folder
from covseg.storage import LocalStore

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto
    from onnxruntime import InferenceSession
    from torch.onnx import ONNXProgram

log = logging.getLogger(__name__)

INPUT, OUTPUTS = "images", ("probability", "presence", "features")
_NETWORK = "network."  # what `Answer` puts before the names of the weights
_MADE_BY = 1  # raised whenever `build_graph` makes another graph of the same model, so that no cached one is taken


def graph_of(folder: ModelFolder) -> Path:
    """Return the graph of a model: the folder's own, or one in the cache, made at the first call.

    Returns
    -------
    Path
        An ONNX file with input ``images`` ``(N, 1, S, S)`` and outputs ``probability`` ``(N, 2, S, S)``,
        ``presence`` ``(N,)``, ``features`` ``(N, F)``. Its weights are in the model folder.

    Raises
    ------
    ModelRefused
        When the folder has none and torch is not installed.
    """
    config = folder.config
    if config.graph_sha256 is not None:
        return folder.path / GRAPH
    network = hashlib.sha256(json.dumps([config.network, config.network_args], sort_keys=True).encode()).hexdigest()
    path = cache_folder() / f"{config.weights_sha256[:16]}-{network[:8]}-{config.size}-graph{_MADE_BY}.onnx"
    if not path.exists():
        log.info("exporting %s once, to %s", config.id, path)
        LocalStore(path.parent).write(path.name, build_graph(folder))
    return path


def open_session(folder: ModelFolder) -> InferenceSession:
    """Open a model's graph in ONNX Runtime, on one thread; it reads the weights that it is given and no other file.

    Raises
    ------
    ModelRefused
        When the graph names another file, or operators that ONNX Runtime has not, or is not covseg's.
    """
    import onnxruntime

    graph, weights = graph_of(folder), folder.weights.read_bytes()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_external_initializers_from_files_in_memory([WEIGHTS], [weights], [len(weights)])
    # a graph inside the graph is not looked up there: it gets the model's folder, where else it had the working one
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.path))
    try:
        session = onnxruntime.InferenceSession(graph.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's errors have no root of their own
        raise ModelRefused(f"{graph} cannot be run on {folder.weights}: {str(error)[:200]}") from error
    found = [one.name for one in (*session.get_inputs(), *session.get_outputs())]
    if found != [INPUT, *OUTPUTS]:
        raise ModelRefused(f"{graph} takes and gives {', '.join(found)}, wanted {', '.join((INPUT, *OUTPUTS))}")
    return session


def add_graph(path: Path) -> str:
    """Put the graph into a model folder and its digest into the card; return the digest.

    Raises
    ------
    ModelRefused
        When the folder cannot be trusted, or torch is not installed.
    """
    data = build_graph(open_folder(path, input_filter=False))
    digest = hashlib.sha256(data).hexdigest()
    LocalStore(path).write(GRAPH, data)
    amend_config(path, lambda config: config.update(graph_sha256=digest))
    return digest


def build_graph(folder: ModelFolder) -> bytes:
    """Export a model; the same folder and the same exporter give the same bytes.

    Returns
    -------
    bytes
        What `graph_of` describes. It holds no weight, no path, no version and nothing of the machine.

    Raises
    ------
    ModelRefused
        When torch, or a library that draws the network, is not installed.

    Notes
    -----
    ONNX Runtime answers as it does for torch's own export, bit by bit: it multiplies the same scales into the
    same weights. The shapes between the layers stay, because it fuses fewer layers where it has to infer them.
    """
    try:
        import onnxscript  # noqa: F401  torch's exporter wants it
        import torch  # noqa: F401
        from onnx import ModelProto
        from onnx_ir.passes.common import ClearMetadataAndDocStringPass
    except ImportError as error:
        raise ModelRefused(
            f"{folder.path} has no {GRAPH}, and making one needs torch (no {error.name} here): "
            f"pip install 'covseg[train]', or take a model that carries its {GRAPH}"
        ) from error
    program, places = _program(folder), _places(folder.weights)
    own = {
        name: place for name in program.model.graph.initializers if (place := places.get(name.removeprefix(_NETWORK)))
    }
    # as inputs the weights survive the optimiser: it would fold them into copies of its own
    program.model.graph.inputs.extend(program.model.graph.initializers.pop(name) for name in own)
    program.optimize()
    ClearMetadataAndDocStringPass()(program.model)
    made: ModelProto = program.model_proto
    model = ModelProto(ir_version=made.ir_version, opset_import=made.opset_import, graph=made.graph)
    _point(model.graph, own)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _program(folder: ModelFolder) -> ONNXProgram:
    """Export the network as it is, before any optimisation."""
    import torch

    from covseg.model_folder.load import Answer, load

    size = folder.config.size
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
        program = torch.onnx.export(
            Answer(load(folder)).eval(),
            (torch.zeros(2, 1, size, size),),
            dynamo=True,
            optimize=False,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes=({0: torch.export.Dim(INPUT, min=1, max=1024)},),
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing; use --backend torch")
    return program


def _places(weights: Path) -> dict[str, dict[str, Any]]:
    """Return type, shape, and first and last byte in the file of every floating-point array of a safetensors file."""
    with weights.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header: dict[str, dict[str, Any]] = json.loads(file.read(length))
    return {
        name: one | {"bytes": [8 + length + place for place in one["data_offsets"]]}
        for name, one in header.items()
        if one.get("dtype") in ("F16", "F32")
    }


def _point(graph: GraphProto, own: dict[str, dict[str, Any]]) -> None:
    """Make the inputs that stand for weights initializers in the safetensors file, halves behind a Cast."""
    used = {name for node in graph.node for name in node.input} & own.keys()
    given = [one for one in graph.input if one.name not in own]
    nodes = [_cast(name) for name in sorted(used) if own[name]["dtype"] == "F16"] + list(graph.node)
    for field, values in (("input", given), ("node", nodes)):
        graph.ClearField(field)
        getattr(graph, field).extend(values)
    for one in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        one.ClearField("metadata_props")  # the exporter's notes, which its own pass leaves
        one.ClearField("doc_string")
    graph.initializer.extend(_outside(name, own[name]) for name in sorted(used))


def _half(name: str) -> str:
    return f"{name}.half"


def _cast(name: str) -> NodeProto:
    from onnx import TensorProto, helper

    return helper.make_node("Cast", [_half(name)], [name], to=TensorProto.FLOAT)


def _outside(name: str, place: dict[str, Any]) -> TensorProto:
    """Return an initializer whose numbers are a part of the safetensors file."""
    from onnx import TensorProto

    half, (first, last) = place["dtype"] == "F16", place["bytes"]
    tensor = TensorProto(
        name=_half(name) if half else name,
        data_type=TensorProto.FLOAT16 if half else TensorProto.FLOAT,
        dims=place["shape"],
        data_location=TensorProto.EXTERNAL,
    )
    for key, value in (("location", WEIGHTS), ("offset", first), ("length", last - first)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor
