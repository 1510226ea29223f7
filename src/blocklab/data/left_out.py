"""Which test images have a copy among the training images, looked up once and kept with the cache.

`exclude_duplicates` leaves them out of the test. All training images count, those that are set
aside for validation and those beyond `train_images` too, so that the test images of a data set are
the same whatever is trained on.
"""

import numpy as np

from blocklab.data.cache import Store
from blocklab.data.near_copies import SIMILAR, find_copies
from blocklab.data.split import Split
from blocklab.files import read_checked_json, write_checked_json

_FILE = "test_copies.json"
_METHOD = f"near_copies 1, {SIMILAR}"  # to be changed with what is found


def without_copies(store: Store, train: Split, test: Split) -> Split:
    """Return the test images that have no copy among the training images.

    `train` and `test` are the whole splits of the store.

    Raises:
        RunError: if an image of the cache is damaged, or what was found cannot be written.
    """
    path = None if store.folder is None else store.folder / _FILE
    kept = None if path is None else read_checked_json(path)
    if kept is not None and kept.get("method") == _METHOD:
        copies = np.array(kept["places"], np.int64)
    else:
        copies = find_copies(test, train).places
        if path is not None:
            write_checked_json(path, {"method": _METHOD, "places": copies.tolist()})
    stays = np.ones(len(test), bool)
    stays[copies] = False
    return test.part(np.flatnonzero(stays))
