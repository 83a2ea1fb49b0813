"""`python -m pointlift`, and what `torchrun -m pointlift` starts."""

from pointlift.cli import main

if __name__ == "__main__":
    main()
