"""Short names for folders that are laid side by side."""

from __future__ import annotations

from pathlib import Path


def tails(folders: list[Path]) -> list[str]:
    """Name each folder by the end of its path, as long as it takes to tell all of them apart.

    Examples
    --------
    >>> tails([Path("/runs/base/evaluation"), Path("/runs/gates/evaluation")])
    ['base/evaluation', 'gates/evaluation']
    >>> tails([Path("/runs/a"), Path("/runs/b")]), tails([Path("/runs/a")] * 2)
    (['a', 'b'], ['a', 'a'])
    """
    parts = [folder.absolute().parts[1:] for folder in folders]
    different = len(set(parts))
    depth = next(n for n in range(1, max(map(len, parts)) + 1) if len({one[-n:] for one in parts}) == different)
    return ["/".join(one[-depth:]) for one in parts]
