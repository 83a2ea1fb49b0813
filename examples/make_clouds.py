"""Write a folder of labelled clouds to try things on: `python examples/make_clouds.py my_clouds`."""

import sys

from pointlift.data.shapes import ShapeConfig, write_shapes

folder = sys.argv[1] if len(sys.argv) > 1 else "my_clouds"
write_shapes(folder, train=480, test=160, config=ShapeConfig(points=2048))
print(f"wrote {folder}")
