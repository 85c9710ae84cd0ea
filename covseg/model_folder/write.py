"""Into a model folder: weights, then the card that names their digest."""

from __future__ import annotations

import contextlib
import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from covseg.model_folder.folder import CONFIG, WEIGHTS
from covseg.settings.model import ModelConfig
from covseg.storage import LocalStore

State = dict[str, Tensor]


def prefixed(state: State, prefix: str) -> State:
    """Return a member's state under the name that it has inside a larger network."""
    return {prefix + name: value.contiguous() for name, value in state.items()}


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield a place beside `folder` to write a model into: what is there moves to `folder` at the end, or is gone.

    Files of other names that `folder` holds stay.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as place:
        yield Path(place)
        folder.mkdir(exist_ok=True)
        for path in sorted(Path(place).iterdir(), key=lambda path: path.name == CONFIG):  # which names the others
            path.replace(folder / path.name)


def write_model(folder: Path, state: State, **config: Any) -> ModelConfig:
    """Write weights, then the config of them, into a folder that is made if need be; each file is replaced whole.

    Parameters
    ----------
    state : dict of str to Tensor
        Contiguous.
    **config
        Fields of `ModelConfig` but ``weights_sha256``.

    Raises
    ------
    StorageFull
        When the disk is full.
    """
    data, store = save(state), LocalStore(folder)
    written = ModelConfig(weights_sha256=hashlib.sha256(data).hexdigest(), **config)
    store.write(WEIGHTS, data)
    store.write(CONFIG, (written.model_dump_json(indent=1) + "\n").encode())
    return written
