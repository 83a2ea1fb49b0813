"""One file per layout; importing this package registers them in `DATASETS`, in the order they are tried."""

from pointlift.data.sets import npz as _npz  # noqa: F401  isort: skip
from pointlift.data.sets import hdf5 as _hdf5  # noqa: F401  isort: skip
from pointlift.data.sets import class_folders as _class_folders  # noqa: F401  isort: skip
