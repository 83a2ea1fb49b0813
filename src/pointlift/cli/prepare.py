"""`pointlift prepare …`: write data sets and caches to disk, seeded, so that the same command gives the same files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pointlift.cli.output import counting, say
from pointlift.core.errors import UsageError

app = typer.Typer(help="Write data sets and caches to disk.", no_args_is_help=True, rich_markup_mode=None)

Seed = Annotated[int, typer.Option(help="The same seed gives the same files.")]


@app.command("shapes")
def shapes(
    out: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    train: Annotated[int, typer.Option(min=1, help="Training clouds, in turn over the classes.")] = 480,
    test: Annotated[int, typer.Option(min=0, help="Test clouds, likewise; 0: no test part.")] = 160,
    classes: Annotated[str | None, typer.Option(help="Which, as chair,table,lamp; all 16 without.")] = None,
    points: Annotated[int, typer.Option(min=1, help="Points per cloud.")] = 2048,
    ending: Annotated[str, typer.Option(help="File ending: .ply, .npz, .pcd, …")] = ".ply",
    seed: Seed = 0,
) -> None:
    """Labelled procedural shapes as class folders: a data set to try things on."""
    from pointlift.core.errors import first_few
    from pointlift.data.shapes import ShapeConfig, write_shapes

    names = None if classes is None else tuple(name.strip() for name in classes.split(","))
    config = ShapeConfig(points=points, classes=names)
    print(write_shapes(out, train=train, test=test, ending=ending, seed=seed, config=config))
    for part, count in (("train", train), ("test", test)):
        if count and (left := config.class_names[count:]):  # they come in turn
            wanted = f"--{part} {len(config.class_names)} has one of each"
            say(f"note: {count} {part} clouds leave {len(left)} classes out: {first_few(left, 16)}; {wanted}")


@app.command("procedural")
def procedural(
    out: Annotated[Path, typer.Argument(help="A folder; one that was begun is continued.")],
    count: Annotated[int, typer.Option(min=1, help="Shapes.")] = 10_000,
    points: Annotated[int, typer.Option(min=1, help="Points per shape.")] = 8192,
    seed: Seed = 0,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 1,
) -> None:
    """Unlabelled procedural shapes for pre-training, as shards that are read without loading them whole."""
    from pointlift.data.procedural import ProceduralConfig, write_procedural

    config = ProceduralConfig(points=points)
    with counting("shapes") as progress:
        done = write_procedural(out, count=count, seed=seed, config=config, workers=workers, progress=progress)
    print(done)


@app.command("modelnet-cache")
def modelnet_cache(
    root: Annotated[Path, typer.Argument(help="modelnet40_normal_resampled, with the text files.")],
    points: Annotated[int, typer.Option(min=1, help="Farthest-point samples per cloud.")] = 8192,
    categories: Annotated[int, typer.Option(help="40 or 10.")] = 40,
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace caches that are there.")] = False,
) -> None:
    """The `.dat` caches of ModelNet40 that released code reads, from the official text files."""
    from pointlift.data.sets.modelnet_cache import build_modelnet_cache, cache_of

    for split in ("train", "test"):
        done = cache_of(root, split, points, categories)
        if done is not None and not overwrite:
            say(f"{done} is there already; --overwrite makes it anew")
            continue
        with counting(f"{split} clouds") as progress:
            path = build_modelnet_cache(
                root, split, points, seed, num_category=categories, overwrite=overwrite, progress=progress
            )
        print(path)


@app.command("few-shot", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def few_shot(
    ctx: typer.Context,
    root: Annotated[Path, typer.Argument(help="A labelled data set.")],
    out: Annotated[Path, typer.Option(help="Where the folds go.")],
    way: Annotated[list[int] | None, typer.Option(help="Classes per fold; may be repeated. Default 5 and 10.")] = None,
    shot: Annotated[
        list[int] | None, typer.Option(help="Training clouds per class; may be repeated. Default 10 and 20.")
    ] = None,
    folds: Annotated[int, typer.Option(min=1, help="Folds per setting.")] = 10,
    test_shot: Annotated[int, typer.Option(min=1, help="Test clouds per class.")] = 20,
    seed: Seed = 0,
    pickles: Annotated[bool, typer.Option("--pickles", help="Also in the layout that released code reads.")] = False,
) -> None:
    """Few-shot folds, seeded, from any labelled data set. Further options: --data.variant NAME, …"""
    from pointlift.core.config import build, merge, parse_overrides
    from pointlift.data.config import DataConfig
    from pointlift.data.loading import dataset_from_config
    from pointlift.data.sets.few_shot_folds import make_few_shot

    given = parse_overrides(ctx.args)
    unknown = sorted(given.keys() - {"data"})
    if unknown:
        raise UsageError(f"option --{unknown[0]}", "--data.KEY value")
    config = build(DataConfig, merge(given.get("data", {}), {"root": str(root)}), where="data")
    dataset = dataset_from_config(config)
    for ways in way or (5, 10):
        for shots in shot or (10, 20):
            print(make_few_shot(dataset, ways, shots, folds, seed, out, test_shot=test_shot, pickles=pickles))
