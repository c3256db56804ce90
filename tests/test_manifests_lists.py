"""Lists of meshes: three forms of one list, uids of names, and faults with their lines."""

from pathlib import Path

import pytest

from gaussianverse.manifests.errors import ManifestError
from gaussianverse.manifests.rendering import lists
from gaussianverse.manifests.schema import Row

FORMS = {
    "a.txt": "meshes/red chair.glb\n\n  b.gltf  \n",
    "a.csv": "mesh,caption,weight\nmeshes/red chair.glb,,\nb.gltf,\n",
    "a.jsonl": '{"mesh": "meshes/red chair.glb"}\n\n{"mesh": "b.gltf", "uid": "b"}\n',
}


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_forms_of_one_list(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FORMS[name])
    first, second = lists.read(tmp_path / name)
    assert (first.mesh, second.mesh) == (tmp_path / "meshes/red chair.glb", tmp_path / "b.gltf")
    assert first.row == Row(uid="red_chair", views="red_chair", format="gobjaverse")
    assert second.row == Row(uid="b", views="b", format="gobjaverse")


def test_rows_carry_what_a_manifest_carries(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(
        '\ufeffmesh,uid,caption,license,maker\n/m/a.glb,a-1,"a red, small chair",CC0-1.0,Ann\n'
    )
    ((mesh, row),) = lists.read(tmp_path / "a.csv")
    assert mesh == Path("/m/a.glb")
    assert (row.uid, row.caption, row.license, row.extras) == (
        "a-1",
        "a red, small chair",
        "CC0-1.0",
        {"maker": "Ann"},
    )
    (tmp_path / "a.jsonl").write_text('{"mesh": "a.glb", "captions": ["x", "y"], "split": "val", "faces": 12}\n')
    ((mesh, row),) = lists.read(tmp_path / "a.jsonl")
    assert (row.captions, row.split, row.extras) == (("x", "y"), "val", {"faces": 12})


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "\n", "no meshes in it"),
        ("a.txt", "x/a.glb\ny/a.glb\n", "a.txt:2: duplicate uid 'a', first on line 1"),
        ("a.txt", b"\xff\xfe", "is not UTF-8"),
        ("a.csv", "mesh,uid\na.glb\n", "a.csv:2: expected 2 columns"),
        ("a.csv", "mesh,uid\na.glb,a,b\n", "a.csv:2: expected 2 columns"),
        ("a.csv", "path,uid\na.glb,a\n", "a.csv:2: no 'mesh'"),
        ("a.csv", "mesh,uid\na.glb,a b\n", "a.csv:2: uid 'a b': only A-Z"),
        ("a.csv", "mesh,uid,mesh\na.glb,a,b.glb\n", "a.csv: its header has 'mesh' twice"),
        ("a.csv", 'mesh,uid\n"a.glb,a\n', "a.csv:.*invalid CSV"),
        ("a.csv", "mesh,views\na.glb,v\n", "a.csv:2: 'views' of a mesh that is yet to be rendered"),
        ("a.jsonl", '{"mesh": "a.glb"}\n{"mesh": 3}\n', "a.jsonl:2: no 'mesh'"),
        ("a.jsonl", '{"mesh": "a.glb", "uid": 7}\n', "^[^\n]*a.jsonl:1: 'uid' is 7, expected text[^\n]*$"),
        ("a.jsonl", '{"mesh": "a.glb"}\n{"mesh"\n', "a.jsonl:2: invalid JSON"),
        ("a.jsonl", '{"mesh": "a.glb", "psnr": 3}\n', "a.jsonl:1: a column cannot be called 'psnr'"),
    ],
)
def test_faults_have_their_line(name: str, text: str | bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ManifestError, match=message):
        lists.read(tmp_path / name)


def test_a_missing_list_is_named(tmp_path: Path) -> None:
    for name in ("a.txt", "a.csv", "a.jsonl"):
        with pytest.raises(ManifestError, match=f"{name}: cannot be read"):
            lists.read(tmp_path / name)
