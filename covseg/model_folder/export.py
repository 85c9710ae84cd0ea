"""A model folder to an ONNX graph in float32, cached by the digest of weights and network, and versions.

The first call needs torch and some seconds; later ones find the file. The cache lies in
``$COVSEG_CACHE``, or in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import warnings
from pathlib import Path

import onnxruntime

from covseg.model_folder.folder import ModelFolder
from covseg.settings.environment import cache_folder as cache_folder

log = logging.getLogger(__name__)


def exported(folder: ModelFolder) -> Path:
    """Return the graph of a model, exporting it when it is not in the cache yet.

    Returns
    -------
    Path
        An ONNX file with input ``films`` ``(N, 1, S, S)`` and outputs ``probability``
        ``(N, 2, S, S)``, ``presence`` ``(N,)``, ``features`` ``(N, F)``.
    """
    config = folder.config
    network = hashlib.sha256(json.dumps([config.network, config.network_args], sort_keys=True).encode()).hexdigest()
    name = f"{config.weights_sha256[:16]}-{network[:8]}-{config.size}-ort{onnxruntime.__version__}.onnx"
    path = cache_folder() / name
    if not path.exists():
        log.info("exporting %s once, to %s", config.id, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            staged = Path(scratch) / "graph.onnx"
            _export(folder, staged)
            staged.replace(path)
    return path


def _export(folder: ModelFolder, path: Path) -> None:
    import torch

    from covseg.model_folder.load import Answer, load

    size = folder.config.size
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecations
        program = torch.onnx.export(
            Answer(load(folder)).eval(),
            (torch.zeros(2, 1, size, size),),
            dynamo=True,
            input_names=["films"],
            output_names=["probability", "presence", "features"],
            dynamic_shapes=({0: torch.export.Dim("films", min=1, max=1024)},),
            verbose=False,
        )
        if program is None:
            raise RuntimeError("torch.onnx.export returned nothing; use --backend torch")
        program.save(str(path))
