"""Pictures of a row's networks that ``blocklab figure`` or ``diagnose`` has left."""

import base64
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from blocklab.files import read_regular
from blocklab.report.named_figures import PICTURES
from blocklab.results.row_result import RowResult
from blocklab.study.folder_name import safe_name

TITLES = {
    "receptive_fields": "Effective receptive fields",
    "grad_cam": "Where it looks",
    "attention": "What its attentions let through",
    "kernels": "Its kernels",
    "dead_neurons": "Zeros after each activation",
}
LARGEST = 4 << 20  # bytes of a picture: a page holds it whole
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class KeptPicture:
    """A picture as a page holds it: what it shows, of which seed, and its bytes as an address."""

    title: str
    seed: int
    address: str


def kept_pictures(row: RowResult, study: Path) -> list[KeptPicture]:
    """Return what lies in the study's folder or a run's: of each kind the first seed's."""
    found = []
    for name, title in TITLES.items():
        for run in row.finished:
            beside = _pictures(study, f"{safe_name(row.name)}-{run.seed}-{name}")
            pictures = map(_png, (*beside, *_pictures(run.folder, name)))
            if (content := next(filter(None, pictures), None)) is not None:
                address = f"data:image/png;base64,{base64.b64encode(content).decode()}"
                found.append(KeptPicture(title, run.seed, address))
                break
    return found


def _pictures(folder: Path, name: str) -> list[Path]:
    """Return the pictures of that name, before those of a layer or of images that were named."""
    found = (folder / PICTURES).glob(f"{escape(name)}*.png")
    of_it = [path for path in found if path.stem == name or path.stem.startswith(f"{name}-")]
    return sorted(of_it, key=lambda path: (len(path.stem), path.stem))


def _png(path: Path) -> bytes | None:
    try:
        content = read_regular(path, LARGEST)
    except (OSError, ValueError):  # not there, or no picture of ours
        return None
    return content if content.startswith(_PNG) else None
