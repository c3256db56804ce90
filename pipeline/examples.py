"""Examples that a verb's `--help` shows: what each does, and the command."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

EXAMPLES: Mapping[str, tuple[tuple[str, str], ...]] = MappingProxyType({
    "render": (
        ("draw a mesh, and add it to a manifest",
         'gaussianverse render chair.glb views/chair --size 512 --manifest my.jsonl --caption "A red chair."'),
        ("the cameras of another project, at a distance at which nothing is cropped",
         "gaussianverse render chair.glb views/chair --preset lgm --radius fit"),
        ("many meshes, two at a time", "gaussianverse render --list meshes.txt views --jobs 2"),
    ),
    "views-to": (
        ("one object for LGM's loader", "gaussianverse views-to lgm views/chair lgm-data"),
        ("all objects of a manifest for TRELLIS, with points on what the views see",
         "gaussianverse views-to trellis my.jsonl trellis-data --points fps:8192"),
    ),
    "manifest": (
        ("rows for every folder of views below a folder",
         "gaussianverse manifest build my.jsonl --folder views --license CC0-1.0 --category chair"),
        ("rows of GObjaverse's index, with captions of Cap3D",
         "gaussianverse manifest build g.jsonl --index gobjaverse_280k.json --views 's3://bucket/{index}' "
         "--captions cap3d.csv"),
        ("every fault with its line, and read the views of ten objects",
         "gaussianverse manifest check my.jsonl --probe 10 --licenses CC0-1.0 CC-BY-4.0"),
        ("Parquet, whose row group k is shard k", "gaussianverse manifest shard my.jsonl objects.parquet"),
    ),
    "plan": (
        ("hours and bytes on 64 cores", "gaussianverse plan --manifest my.jsonl --profile cpu --slots 64"),
        ("the price by seconds that another run took",
         "gaussianverse plan --manifest my.jsonl --like out --price-per-hour 0.04"),
        ("as JSON", "gaussianverse plan --manifest my.jsonl --json"),
    ),
    "doctor": (
        ("this machine", "gaussianverse doctor"),
        ("what a profile needs, and a store", "gaussianverse doctor --profile paper --out s3://bucket/prefix"),
        ("each node of a cluster, with the first and last views",
         "gaussianverse doctor --manifest s3://bucket/objects.parquet --ray-address auto"),
    ),
    "init": (
        ("write quick.toml, to change and to pass as --profile quick.toml", "gaussianverse init"),
        ("another profile, and one value of it changed",
         "gaussianverse init --profile cpu --set fit.steps=6000 mine.toml"),
    ),
    "completion": (
        ("bash, for this user",
         "gaussianverse completion bash > ~/.local/share/bash-completion/completions/gaussianverse"),
        ("zsh, into a folder of $fpath", "gaussianverse completion zsh > ~/.zfunc/_gaussianverse"),
        ("fish", "gaussianverse completion fish > ~/.config/fish/completions/gaussianverse.fish"),
    ),
    "fit-shard": (
        ("the four objects that come with the package, into out/", "gaussianverse fit-shard --sample"),
        ("shard 0 of your own", "gaussianverse fit-shard --manifest my.jsonl --out /data/out --shard 0"),
        ("ten shards on a cluster, into a bucket",
         "gaussianverse fit-shard --manifest s3://bucket/my.parquet --out s3://bucket/out --shards 0-9 "
         "--profile cpu --ray-address auto"),
    ),
    "build": (
        ("all shards", "gaussianverse build --manifest my.jsonl --out out --profile cpu"),
        ("with fits of an older dataset taken over where they are the same",
         "gaussianverse build --manifest my.jsonl --out new --reuse old"),
        ("for a script: one JSON document, and exit code 6 if more than 2 % fail",
         "gaussianverse build --manifest my.jsonl --out out --json --quiet --fail-above 0.02"),
    ),
    "atlas-shard": (
        ("all shards whose fits are there", "gaussianverse atlas-shard --out out"),
        ("two of them, on four cores", "gaussianverse atlas-shard --out out --shards 3,7 --workers 4"),
    ),
    "import": (
        ("a folder of PLY files", "gaussianverse import splats --out out --license CC-BY-4.0"),
        ("published GaussianVerse objects with their captions",
         "gaussianverse import published --out out --swap-red-blue --captions captions.json"),
    ),
    "finalize": (
        ("write the tables of a dataset whose shards are all there", "gaussianverse finalize --out out"),
        ("in another region's bucket",
         "gaussianverse finalize --out s3://bucket/out --set store.region=eu-central-1"),
    ),
    "retry-failed": (
        ("all quarantined objects again", "gaussianverse retry-failed --out out"),
        ("those that ran out of time, with more of it",
         "gaussianverse retry-failed --out out --reasons timeout --set policy.fit_deadline_s=7200"),
    ),
    "status": (
        ("how far a run is", "gaussianverse status --out out"),
        ("a bar that moves, also for a run on another machine", "gaussianverse status --out s3://bucket/out --watch"),
        ("as JSON", "gaussianverse status --out out --json"),
    ),
    "report": (
        ("a table, and a page to look at", "gaussianverse report --out out"),
        ("a page elsewhere, with the 50 objects of the lowest PSNR",
         "gaussianverse report --out out --dest page --worst 50 --worst-by psnr"),
        ("the rows alone, as JSON", "gaussianverse report --out out --json"),
    ),
    "evaluate": (
        ("PSNR, SSIM and counts on held-out views", "gaussianverse evaluate --out out"),
        ("500 objects, compared with two other datasets",
         "gaussianverse evaluate --out out --objects 500 --against old published --to evaluation"),
    ),
    "inspect": (
        ("one object", "gaussianverse inspect chair --out out"),
        ("as it was in version 1, on one line", "gaussianverse inspect chair --out out --version 1 --json"),
    ),
    "top-errors": (
        ("why objects were quarantined", "gaussianverse top-errors --out out"),
        ("the five most frequent causes, as JSON", "gaussianverse top-errors --out out --most 5 --json"),
    ),
    "diff": (
        ("what the newest version changed", "gaussianverse diff out"),
        ("between two versions", "gaussianverse diff out --from 1 --to 3 --json"),
    ),
    "verify": (
        ("every byte", "gaussianverse verify --out out"),
        ("a hundred objects, and every file's size", "gaussianverse verify --out s3://bucket/out --sample 100"),
        ("two shards of a run that goes on", "gaussianverse verify --out out --shards 0-1"),
    ),
    "extend": (
        ("say what would change", "gaussianverse extend --out out --manifest more.jsonl --dry-run"),
        ("add and correct objects", 'gaussianverse extend --out out --manifest more.jsonl --note "captions of May"'),
        ("take out duplicates", "gaussianverse extend --out out --remove same.parquet"),
    ),
    "export": (
        ("one object as PLY", "gaussianverse export chair ply --out out --format ply"),
        ("good objects as a dataset of their own",
         "gaussianverse export good --out out --format dataset --filter 'psnr>=30'"),
        ("for the Hugging Face hub", "gaussianverse export hub --out out --format huggingface"),
    ),
    "duplicates": (
        ("objects that are the same", "gaussianverse duplicates out"),
        ("a list for extend --remove", "gaussianverse duplicates out --distance 2 --out same.parquet"),
    ),
    "compact": (
        ("what the newest version counts", "gaussianverse compact out compacted"),
        ("version 3, ten of its shards", "gaussianverse compact out compacted --version 3 --shards 0-9"),
    ),
    "purge": (
        ("say what versions before 3 take up", "gaussianverse purge out --before 3 --dry-run"),
        ("give up a version that was begun", "gaussianverse purge out --unfinished --confirm 0004"),
    ),
    "clean-work": (
        ("count scratch", "gaussianverse clean-work --out out --dry-run"),
        ("delete it", "gaussianverse clean-work --out out"),
    ),
})  # fmt: skip
