"""One file per layout; importing this package registers them in `DATASETS`, in the order they are tried."""

from pointlift.data.sets import modelnet as _modelnet  # noqa: F401  isort: skip
from pointlift.data.sets import few_shot as _few_shot  # noqa: F401  isort: skip
from pointlift.data.sets import scanobjectnn as _scanobjectnn  # noqa: F401  isort: skip
from pointlift.data.sets import shapenet55 as _shapenet55  # noqa: F401  isort: skip
from pointlift.data.sets import shapenetpart as _shapenetpart  # noqa: F401  isort: skip
from pointlift.data.sets import kitti_sequences as _kitti_sequences  # noqa: F401  isort: skip
from pointlift.data.sets import npz as _npz  # noqa: F401  isort: skip
from pointlift.data.sets import hdf5 as _hdf5  # noqa: F401  isort: skip
from pointlift.data.sets import class_folders as _class_folders  # noqa: F401  isort: skip
from pointlift.data.sets import cloud_files as _cloud_files  # noqa: F401  isort: skip
