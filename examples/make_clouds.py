"""Write a folder of labelled clouds to try things on: `python examples/make_clouds.py my_clouds`."""

import sys

from pointlift.data.shapes import write_shapes

folder = sys.argv[1] if len(sys.argv) > 1 else "my_clouds"
write_shapes(folder)
print(f"wrote {folder}")
